"""The page for those who see it otherwise, hear it, use the keyboard alone, or have a slow line."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.web.accessibility import axe
from tests.web.actors import box, composer, expect, newcomer, row, rows, status, visit
from tests.web.noise import Noise
from tests.web.sluices import ClusterSluice, Sluice

Open = Callable[..., Page]

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}}

#: Bytes of a first visit, packed, with a program in colours.
FIRST_LOAD = 150_000


@pytest.mark.parametrize(
    "options",
    [{**DESK, "color_scheme": "light"}, {**PHONE, "color_scheme": "dark"}],
    ids=["desk-light", "phone-dark"],
)
def test_axe_finds_nothing_wrong_in_any_state(
    sluice: ClusterSluice, open_page: Open, noise: Noise, options: dict[str, Any]
) -> None:
    noise.allow()
    sluice.model.script(
        [
            {"match": "slow", "seconds": 60},
            {"match": "refused", "fault": "refuse"},
            {"match": "busy", "fault": "status", "status": 429, "retry_after": 60},
        ]
    )
    page = open_page(**options)
    user = visit(page, sluice)
    found: dict[str, list[str]] = {}

    def look(state: str) -> None:
        found[state] = axe(page)

    expect(page.locator(".example")).to_have_count(3)
    look("first visit")
    tasks = {name: sluice.add(user, objective=f"Something {name}") for name in ("done", "refused", "busy", "slow")}
    sluice.post(f"/tasks/cancel/{sluice.add(user, objective='Something slow to cancel')}")
    expected = {"done": "Completed", "refused": "Failed", "busy": "Pending", "slow": "Running"}
    page.reload()
    for name, word in expected.items():
        expect(row(page, f"Something {name}").filter(has_text=word)).not_to_have_count(0)
    look("list")
    for name, word in expected.items():
        page.goto(f"{sluice.url}/?task={tasks[name]}")
        expect(status(page)).to_have_text(word)
        if name == "done":
            expect(page.locator(".source [class*=hl-]").first).to_be_attached()
            page.get_by_text("Inputs and details").click()
        look(word)
    sluice.post(f"/tasks/cancel/{tasks['slow']}")
    page.goto(f"{sluice.url}/")
    page.locator("#who").click()
    page.get_by_role("textbox", name="Name").fill("")
    page.get_by_role("button", name="Use this name").click()
    expect(page.get_by_text("A name is needed.")).to_be_visible()
    look("dialog")
    page.get_by_role("button", name="Leave it").click()
    page.get_by_role("button", name="Send", exact=True).click()
    expect(composer(page).get_by_text("must not be blank")).to_be_visible()
    look("form with errors")
    page.route("**/tasks/**", lambda route: route.abort())
    box(page, "Objective").fill("Later")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(row(page, "Later")).to_contain_text("Not confirmed yet")
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    look("server away")
    assert {state: complaints for state, complaints in found.items() if complaints} == {}


FOCUS = """() => {
    const element = document.activeElement;
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    return {
        name: element.id || element.getAttribute("aria-label") || element.textContent.trim() || element.name,
        seen: outlineStyle !== "none" && parseFloat(outlineWidth) > 0 && box.width > 0 && box.height > 0
            && box.bottom > 0 && box.top < innerHeight,
    };
}"""


class Keyboard:
    """Moves with Tab, and looks at each stop whether it can be seen."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.unseen: list[str] = []

    def tab_to(self, name: str, key: str = "Tab") -> None:
        passed = []
        for _ in range(40):
            self._page.keyboard.press(key)
            stop = self._page.evaluate(FOCUS)
            passed.append(stop["name"][:30])
            if not stop["seen"]:
                self.unseen.append(stop["name"])
            if re.match(name, stop["name"]):
                return
        pytest.fail(f"no way to {name}: {passed}")


def test_everything_can_be_done_with_the_keyboard_alone(sluice: ClusterSluice, page: Page) -> None:
    sluice.model.script([{"match": "keys", "seconds": 30}])
    user = newcomer()
    sluice.done(sluice.add(user, kind="message", text="An old one"))
    visit(page, sluice, user)
    keyboard = Keyboard(page)
    press = page.keyboard.press

    keyboard.tab_to("Skip to the tasks")
    press("Enter")
    expect(page.locator("#main")).to_be_focused()
    keyboard.tab_to("tab-code")
    page.reload()
    expect(rows(page)).to_have_count(1)

    keyboard.tab_to("tab-code")
    press("ArrowRight")
    expect(page.get_by_role("tab", name="Message")).to_be_focused()
    expect(page.get_by_role("tab", name="Message")).to_have_attribute("aria-selected", "true")
    press("Home")
    keyboard.tab_to("input-code-objective")
    page.keyboard.type("Written with the keys of")
    press("Enter")
    page.keyboard.type("a keyboard")
    press("Control+Enter")
    keyboard.tab_to("Cancel$")
    press("Enter")
    expect(status(page)).to_have_text("Cancelled")
    (sent, *_) = sluice.get("/tasks/get", params={"user_id": user}).json()["tasks"]
    assert sent["status"] == "cancelled"
    assert sent["objective"] == "Written with the keys of\na keyboard"
    expect(page.locator(".task-title")).to_be_focused()

    keyboard.tab_to("An old one", "Shift+Tab")
    press("Enter")
    expect(page.locator(".task-title")).to_have_text("An old one")
    page.go_back()  # a key of the browser, which it does not have without a window
    expect(page.locator(".task-title")).to_have_text("Written with the keys of")

    keyboard.tab_to("who$", "Shift+Tab")
    press("Enter")
    expect(page.get_by_role("textbox", name="Name")).to_be_focused()
    press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#who")).to_be_focused()
    assert keyboard.unseen == []


def test_on_a_phone_the_focus_goes_with_what_is_shown(sluice: Sluice, open_page: Open) -> None:
    user = newcomer()
    task = sluice.add(user, kind="message", text="Read on a phone")
    sluice.done(task)
    page = open_page(**PHONE)
    visit(page, sluice, user)
    keyboard = Keyboard(page)
    keyboard.tab_to("Read on a phone")
    page.keyboard.press("Enter")
    expect(page.locator(".task-title")).to_be_focused()
    keyboard.tab_to("All tasks", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(f"#list a[href*='{task}']")).to_be_focused()
    assert keyboard.unseen == []


LISTEN = """() => {
    const live = document.getElementById("live");
    window.said = [];
    new MutationObserver(() => said.push(live.textContent)).observe(live, { childList: true, characterData: true,
                                                                            subtree: true });
}"""


def test_what_happens_is_announced(sluice: ClusterSluice, page: Page) -> None:
    sluice.model.script([{"match": "badly", "fault": "refuse"}])
    visit(page, sluice)
    page.evaluate(LISTEN)
    assert page.locator("#live").get_attribute("aria-live") == "polite"
    for objective, end in (("Ends well", "Completed"), ("Ends badly", "Failed")):
        box(page, "Objective").fill(objective)
        page.get_by_role("button", name="Send", exact=True).click()
        expect(row(page, objective)).to_contain_text(end)
        expect(page.locator("#live")).to_have_text(f"{end}: {objective}")
        said = page.evaluate("said")
        assert f"Accepted: {objective}" in said
        assert said.count(f"{end}: {objective}") == 1, said


def test_landmarks_and_headings_are_where_they_belong(sluice: Sluice, page: Page) -> None:
    user = newcomer()
    task = sluice.add(user)
    sluice.done(task)
    visit(page, sluice, user, f"?task={task}")
    expect(status(page)).to_have_text("Completed")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    for role, name in (
        ("banner", None),
        ("main", None),
        ("region", "New task"),
        ("region", "Your tasks"),
        ("region", "Task"),
        ("region", "Timeline"),
        ("region", "Result"),
        ("region", "Code"),
        ("list", "Tasks, newest first"),
        ("list", "Steps"),
    ):
        expect(page.get_by_role(role, name=name, exact=True)).to_have_count(1)  # type: ignore[arg-type]
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.filter(h => h.checkVisibility()).map(h => h.tagName)")
    assert levels.count("H1") == 1
    assert levels[0] == "H1"
    assert all(later <= sooner or later == f"H{int(sooner[1]) + 1}" for sooner, later in pairwise(levels))


@pytest.mark.parametrize(("width", "size"), [(320, "15px"), (360, "30px"), (1280, "30px")])
def test_large_text_and_narrow_windows_need_no_scrolling_sideways(
    sluice: Sluice, page: Page, width: int, size: str
) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    user = visit(page, sluice, f"lea-{newcomer()[-6:]}")
    page.evaluate(f"document.documentElement.style.fontSize = '{size}'")
    expect(page.locator(".example")).to_have_count(3)
    assert too_wide(page) == []
    sluice.done(sluice.add(user, objective="Create a_function_with_a_very_long_name_that_goes_on_and_on_for_a_while()"))
    page.locator("#list a").click()
    expect(status(page)).to_have_text("Completed")
    expect(page.locator(".source .line").nth(1)).to_be_attached()
    assert too_wide(page) == []
    page.go_back()
    expect(rows(page)).to_have_count(1)
    assert too_wide(page) == []


def too_wide(page: Page) -> list[str]:
    """What sticks out to the right, but for what is meant to be scrolled by itself."""
    return list(
        page.evaluate(
            """() => [...document.querySelectorAll("body *")]
                .filter(one => one.checkVisibility() && !one.closest(".strip, .tabs, .source, .unseen, svg"))
                .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
                .map(one => `${one.tagName}.${one.className}: ${one.textContent.slice(0, 30)}`)"""
        )
    )


def test_nothing_moves_for_those_who_do_not_want_it(sluice: ClusterSluice, open_page: Open) -> None:
    sluice.model.script([{"match": "moving", "seconds": 60}])
    user = newcomer()
    task = sluice.add(user, objective="Something moving")
    for motion, expected in (("reduce", 0), ("no-preference", 2)):
        page = open_page(reduced_motion=motion)
        visit(page, sluice, user, f"?task={task}")
        expect(status(page)).to_have_text("Running")
        expect(row(page, "Something moving")).to_contain_text("Running")
        moving = page.evaluate("document.getAnimations().filter(one => one.playState === 'running').length")
        assert moving >= expected
        assert bool(moving) == bool(expected)
    sluice.post(f"/tasks/cancel/{task}")


def test_a_first_visit_transfers_little(sluice: ClusterSluice, page: Page) -> None:
    user = newcomer()
    task = sluice.add(user)
    sluice.done(task)
    visit(page, sluice, user, f"?task={task}")
    expect(page.locator(".source [class*=hl-]").first).to_be_visible()
    loaded = page.evaluate(
        """[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
            .map(({ name, encodedBodySize, decodedBodySize }) => [name, encodedBodySize, decodedBodySize])"""
    )
    names = " ".join(name for name, *_ in loaded)
    assert "core.min.js" in names
    assert "languages/python.min.js" in names
    packed = sum(size for _, size, _ in loaded)
    print(f"{packed} bytes in {len(loaded)} answers")
    assert packed < FIRST_LOAD
    assert all(packed < whole for name, packed, whole in loaded if name.endswith((".js", ".css")) and whole > 2000)
