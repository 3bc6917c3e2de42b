"""Pictures of the page in each of its states: `make screenshots`.

All go to docs/pictures/all, which git ignores; the two that the README shows go to docs/pictures.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.servers.browser import ARGUMENTS, CHROMIUM, chromium_missing
from tests.servers.nginx import nginx_missing
from tests.servers.rabbit import RabbitNode, rabbitmq_missing
from tests.servers.wire_mongo import WireMongo
from tests.web.actors import box, composer, expect, row, status, visit
from tests.web.sluices import ClusterSluice

PICTURES = Path(__file__).resolve().parents[2] / "docs/pictures"
ALL = PICTURES / "all"

USER = "ada"

SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}

#: The pictures of the README, by what they show.
FOR_README = {"desktop-light-completed": "desktop.png", "phone-dark-completed": "phone.png"}

DONE = "Convert an integer to Roman numerals."
RUNNING = "Count how often each word occurs in a text."
FAILED = "Write a program that keeps all the secrets of the office."
BUSY = "Sort a list of names by their last part."

#: What the tasks of the list are, oldest first, and how each must end before the next one is sent.
HISTORY = [
    ({"kind": "message", "text": "Hello, Sluice."}, "Completed"),
    ({"objective": "Reverse the words of a sentence.", "language": "rust"}, "Completed"),
    ({"objective": FAILED, "language": "python"}, "Failed"),
    ({"objective": "Find the shortest path in a maze.", "language": "java"}, "Cancelled"),
    ({"objective": "Create a function that sums up three numbers.", "language": "python"}, "Completed"),
    ({"objective": DONE, "language": "javascript"}, "Completed"),
]

SCRIPT = [
    {"match": "secrets", "fault": "refuse"},
    {"match": "maze", "seconds": 600},
    {"match": "last part", "fault": "status", "status": 429, "retry_after": 45},
    {"match": "each word", "seconds": 40},
]


def main() -> int:
    missing = [reason for reason in (chromium_missing(), nginx_missing(), rabbitmq_missing()) if reason]
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 1
    shutil.rmtree(ALL, ignore_errors=True)
    ALL.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        directory = Path(folder)
        rabbit = servers.enter_context(RabbitNode(directory / "rabbit"))
        mongo = servers.enter_context(WireMongo(directory / "mongo"))
        sluice = servers.enter_context(ClusterSluice(directory / "cluster", rabbit, mongo))
        playwright = servers.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        Pictures(sluice, browser).take_all()
        browser.close()
    for taken, name in FOR_README.items():
        shutil.copy(ALL / f"{taken}.png", PICTURES / name)
    for picture in sorted(PICTURES.rglob("*.png")):
        _squeeze(picture)
        print(f"{picture.stat().st_size // 1024:5} KB  {picture.relative_to(PICTURES)}")
    return 0


class Pictures:
    """Brings Sluice into each state, and takes it in all sizes and colours."""

    def __init__(self, sluice: ClusterSluice, browser: Browser) -> None:
        self._sluice = sluice
        self._browser = browser

    def take_all(self) -> None:
        for page, name in self._pages("newcomer"):
            expect(page.locator(".example")).to_have_count(3)
            self._take(page, f"{name}-first-visit")

        self._sluice.model.script(SCRIPT)
        ids = [self._add(fields, end) for fields, end in HISTORY]
        done, failed = ids[-1], ids[2]
        for page, name in self._pages(USER, f"?task={done}"):
            expect(page.locator(".source [class*=hl-]").first).to_be_attached()
            self._take(page, f"{name}-completed")
        for page, name in self._pages(USER, f"?task={failed}"):
            expect(status(page)).to_have_text("Failed")
            self._take(page, f"{name}-failed")

        busy = self._add({"objective": BUSY, "language": "go"}, "Pending")
        running = self._add({"objective": RUNNING, "language": "go"}, "Running")
        for page, name in self._pages(USER, f"?task={running}"):
            expect(page.locator(".source .line").nth(5)).to_be_attached()
            self._take(page, f"{name}-running")
        for page, name in self._pages(USER, f"?task={busy}"):
            expect(page.locator("article .state")).to_contain_text("tried again")
            self._take(page, f"{name}-tried-again")
        for page, name in self._pages(USER):
            expect(row(page, RUNNING)).to_be_visible()
            self._take(page, f"{name}-list")
            page.get_by_role("button", name="Send", exact=True).click()
            expect(composer(page).get_by_text("must not be blank")).to_be_visible()
            self._take(page, f"{name}-form-errors")
            page.locator("#who").click()
            expect(page.get_by_role("dialog")).to_be_visible()
            self._take(page, f"{name}-dialog")
            page.keyboard.press("Escape")
            page.route("**/tasks/**", lambda route: route.abort())
            box(page, "Objective").fill("Draw a tree of folders.")
            page.get_by_role("button", name="Send", exact=True).click()
            expect(row(page, "Draw a tree")).to_contain_text("Not confirmed yet")
            expect(page.get_by_role("button", name="Try now")).to_be_visible()
            self._take(page, f"{name}-server-away")

    def _add(self, fields: dict[str, str], end: str) -> str:
        task = self._sluice.add(USER, **fields)
        with self._page(USER, SIZES["desktop"], "light", f"?task={task}") as page:
            if end == "Cancelled":
                expect(status(page)).to_have_text("Running")
                page.get_by_role("button", name="Cancel", exact=True).click()
            expect(status(page)).to_have_text(end)
        return task

    def _pages(self, user: str, query: str = "") -> Iterator[tuple[Page, str]]:
        for size, options in SIZES.items():
            for colours in ("light", "dark"):
                with self._page(user, options, colours, query) as page:
                    yield page, f"{size}-{colours}"

    @contextmanager
    def _page(self, user: str, options: dict[str, Any], colours: str, query: str) -> Iterator[Page]:
        context = self._browser.new_context(
            **options,
            color_scheme=colours,
            device_scale_factor=2,
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="Europe/Berlin",
        )
        page = context.new_page()
        visit(page, self._sluice, user, query)
        yield page
        context.close()

    def _take(self, page: Page, name: str) -> None:
        page.mouse.move(0, 0)
        page.screenshot(path=ALL / f"{name}.png", animations="disabled", caret="hide")


def _squeeze(picture: Path) -> None:
    """A third of the size, where there is pngquant; else it stays as it is."""
    if pngquant := shutil.which("pngquant"):
        subprocess.run([pngquant, "--force", "--skip-if-larger", "--strip", "--output", picture, picture], check=False)


if __name__ == "__main__":
    sys.exit(main())
