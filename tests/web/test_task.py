"""One task at its own address, as its user sees it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Locator, Page, Route

from tests.e2e.embedded import ROOT
from tests.web.actors import KINDS, LIST, box, expect, newcomer, rows, soon, status, visit
from tests.web.noise import Noise
from tests.web.sluices import ClusterSluice, Sluice

Open = Callable[..., Page]

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def shown_code(page: Page) -> str:
    """What the numbered lines say."""
    return str(page.locator(".source .line").evaluate_all("lines => lines.map(line => line.textContent).join('')"))


def id_in(page: Page) -> str:
    found = re.search(r"[?&]task=([0-9a-f]{32})", page.url)
    assert found, page.url
    return found[1]


def test_somebody_new_has_code_one_click_and_ten_seconds_after_opening_the_page(
    sluice: Sluice, page: Page, open_page: Open
) -> None:
    began = time.monotonic()
    page.goto(f"{sluice.url}/")
    examples = page.locator(".example")
    expect(examples).to_have_count(3)
    expect(page.get_by_role("heading", name="Post a task and watch it being done")).to_be_visible()
    expect(rows(page)).to_have_count(0)
    expect(page.locator("#strip")).to_be_hidden()
    examples.first.click()
    expect(page.locator(".source")).to_contain_text("def ")
    took = time.monotonic() - began
    print(f"code after {took:.1f} s")
    assert took < 10

    expect(status(page)).to_have_text("Completed")
    expect(page).to_have_title(re.compile("^Completed: Create a function that sums up three numbers"))
    task = sluice.task(id_in(page))
    assert shown_code(page) == task["code"]
    expect(page.locator(".source [class*=hl-]").first).to_be_visible()
    assert shown_code(page) == task["code"]

    steps = page.locator(".timeline li")
    expect(steps.locator(".name")).to_have_text(["wait for an engine", *(step["name"] for step in task["steps"])])
    for words in steps.locator(".took").all_text_contents():
        assert re.fullmatch(r"[\d.]+ (ms|s)", words)

    page.reload()
    elsewhere = open_page()
    visit(elsewhere, sluice, query=f"?task={task['_id']}")
    for reader in (page, elsewhere):
        expect(status(reader)).to_have_text("Completed")
        expect(reader.locator(".source")).to_contain_text("def ")
        assert shown_code(reader) == task["code"]
    expect(elsewhere.locator(".list-end")).to_have_text("No tasks yet.")


WATCH_LINES = """() => {
    window.seen = [];
    new MutationObserver(() => {
        const status = document.querySelector("article .badge")?.dataset.status;
        const now = [status, document.querySelectorAll(".source .line").length];
        if (String(seen.at(-1)) !== String(now)) seen.push(now);
    }).observe(document.getElementById("pane"), { subtree: true, childList: true, attributes: true });
}"""


def lines_while_running(page: Page) -> list[int]:
    return [lines for status, lines in page.evaluate("seen") if status == "running" and lines > 1]


@pytest.mark.parametrize("sluice", ["embedded"], indirect=True)
def test_the_offline_models_code_is_seen_before_it_is_whole(sluice: Sluice, page: Page) -> None:
    visit(page, sluice)
    page.evaluate(WATCH_LINES)
    # On a busy machine the page may look only when it is over.
    for number in range(3):
        box(page, "Objective").fill("Count how often each word occurs in a text.")
        button(page, "Send").click()
        expect(rows(page).filter(has_text="Completed")).to_have_count(number + 1)
        expect(status(page)).to_have_text("Completed")
        if partly := lines_while_running(page):
            assert max(partly) < page.locator(".source .line").count()
            return
    pytest.fail("it was never seen growing")


def test_code_grows_line_by_line_and_what_is_selected_stays_selected(sluice: ClusterSluice, page: Page) -> None:
    user = newcomer()
    lines = [f"value_{number} = {number}  # the {number}th" for number in range(60)]
    answer = "\n".join(["Here.", "", "```python", *lines, "```", ""])
    sluice.model.script([{"match": "grows", "seconds": 10, "answer": answer}])
    task = sluice.add(user, objective="It grows")
    visit(page, sluice, user, f"?task={task}")
    page.evaluate(WATCH_LINES)
    expect(status(page)).to_have_text("Running")
    expect(page).to_have_title(re.compile("^Running: It grows"))
    bar = page.locator("article").get_by_role("progressbar", name="Progress")
    expect(bar).to_be_visible()

    expect(page.locator(".source .line:nth-child(4) [class*=hl-]").first).to_be_visible()
    before = page.locator(".source .line").count()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.source .line:nth-child(2)'))")
    selected = lines[1]
    assert page.evaluate("String(getSelection())").strip() == selected
    expect(page.locator(f".source .line:nth-child({before + 5})")).to_be_attached()
    assert page.evaluate("String(getSelection())").strip() == selected
    expect(status(page)).to_have_text("Completed")
    assert page.evaluate("String(getSelection())").strip() == selected

    expect(bar).to_be_hidden()
    expect(page).to_have_title(re.compile("^Completed: It grows"))
    seen = lines_while_running(page)
    assert len(set(seen)) >= 2, seen
    assert seen == sorted(seen)
    assert shown_code(page) == sluice.task(task)["code"]


def test_copy_gives_exactly_the_code_also_without_a_clipboard(
    sluice: ClusterSluice, page: Page, open_page: Open
) -> None:
    user = newcomer()
    code = 'def größe(x):\n\tprint("“ß” & <b> 👩‍👩‍👧 \\\\n")\n\n\n    return  x   \n# end'
    sluice.model.script([{"match": "copied", "answer": f"```python\n{code}\n```"}])
    task = sluice.add(user, objective="To be copied")
    whole = sluice.done(task)["code"]
    assert whole.strip() == code

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, sluice, user, f"?task={task}")
    expect(page.locator(".source")).to_contain_text("größe")
    button(page, "Copy").click()
    expect(button(page, "Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == whole
    button(page, "Copy link").click()
    expect(page.locator("#live")).to_have_text("Link copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url

    page = open_page()
    page.context.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    visit(page, sluice, user, f"?task={task}")
    expect(page.locator(".source")).to_contain_text("größe")
    button(page, "Copy").click()
    expect(button(page, "Copied")).to_be_focused()
    box(page, "Objective").focus()
    page.keyboard.press("Control+V")
    expect(box(page, "Objective")).to_have_value(whole)


EXTENSIONS = {
    "python": "py",
    "javascript": "js",
    "go": "go",
    "rust": "rs",
    "typescript": "ts",
    "bash": "sh",
    "Klingon": "txt",
    "constructor": "txt",
}


def test_a_download_is_named_after_the_task_and_its_language(sluice: Sluice, page: Page, tmp_path: Path) -> None:
    user = newcomer()
    tasks = {language: sluice.add(user, language=language) for language in EXTENSIONS}
    codes = {language: sluice.done(task)["code"] for language, task in tasks.items()}
    visit(page, sluice, user)
    for language, task in tasks.items():
        page.locator(f"#list a[href*='{task}']").click()
        expect(page.locator(".language")).to_have_text(language)
        with page.expect_download() as download:
            button(page, "Download").click()
        assert download.value.suggested_filename == f"create-a-function-that-sums-up.{EXTENSIONS[language]}"
        download.value.save_as(tmp_path / language)
        assert (tmp_path / language).read_bytes().decode() == codes[language]


def test_a_running_task_is_cancelled_at_once(sluice: ClusterSluice, page: Page) -> None:
    sluice.model.script([{"match": "cancelled", "seconds": 60}])
    visit(page, sluice)
    box(page, "Objective").fill("Soon to be cancelled")
    button(page, "Send").click()
    button(page, "Cancel").click()
    expect(status(page)).to_have_text("Cancelled", timeout=2000)
    assert sluice.task(id_in(page))["status"] == "cancelled"
    expect(page.locator("article .state")).to_contain_text("Nobody works on it any more")
    expect(rows(page)).to_contain_text("Cancelled")
    expect(page).to_have_title(re.compile("^Cancelled: "))
    expect(button(page, "Cancel")).to_be_hidden()
    expect(button(page, "Retry")).to_be_visible()


def test_a_failed_task_says_why_and_what_to_do_and_is_done_when_retried(sluice: ClusterSluice, page: Page) -> None:
    user = newcomer()
    sluice.model.script([{"match": "unwanted", "fault": "refuse", "times": 1}])
    task = sluice.add(user, objective="Something unwanted")
    visit(page, sluice, user, f"?task={task}")
    state = page.locator("article .state")
    expect(status(page)).to_have_text("Failed")
    expect(page).to_have_title(re.compile("^Failed: "))
    expect(state).to_contain_text(sluice.task(task)["error"]["message"])
    expect(state).to_contain_text("Error code: refused")
    expect(state).to_contain_text("Use it as a new task and change what it asks for.")
    expect(page.locator(".timeline li").last).to_have_attribute("data-status", "failed")

    button(page, "Retry").click()
    expect(status(page)).to_have_text("Completed")
    expect(state).to_be_hidden()
    expect(page.locator(".attempts")).to_have_text("2 attempts")
    expect(page.locator(".timeline")).to_contain_text("(attempt 2)")
    assert id_in(page) == task
    assert shown_code(page) == sluice.task(task)["code"] != ""


def test_a_task_that_is_tried_again_by_itself_says_when(sluice: ClusterSluice, page: Page) -> None:
    user = newcomer()
    sluice.model.script([{"match": "busy", "fault": "status", "status": 429, "retry_after": 6, "times": 1}])
    task = sluice.add(user, objective="The model is busy")
    visit(page, sluice, user, f"?task={task}")
    state = page.locator("article .state")
    expect(state).to_contain_text("The model is busy.")
    expect(status(page)).to_have_text("Pending")
    for seconds in ("[45]", "[23]"):
        expect(state).to_contain_text(re.compile(rf"It is tried again in {seconds} s, by itself\."))
    expect(status(page)).to_have_text("Completed")
    expect(state).to_be_hidden()


@pytest.mark.parametrize("unknown", ["0" * 32, "nonsense", "../../healthz?", "%00"])
def test_an_address_of_no_task_says_so(sluice: Sluice, page: Page, noise: Noise, unknown: str) -> None:
    user = newcomer()
    noise.allow()
    task = sluice.add(user, kind="message", text="The one that there is")
    visit(page, sluice, user, f"?task={unknown}")
    expect(page.get_by_role("heading", name="There is no such task")).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="Look whether the link is complete")).to_be_visible()
    for name in ("Cancel", "Retry", "Use as a new task"):
        expect(button(page, name)).to_be_hidden()
    page.locator(f"#list a[href*='{task}']").click()
    expect(status(page)).to_have_text("Completed")


def test_times_are_those_of_the_readers_zone(sluice: Sluice, open_page: Open) -> None:
    user = newcomer()
    task = sluice.add(user, kind="message", text="What time is it?")
    created = sluice.done(task)["created_at"]
    for zone in ("Europe/Berlin", "America/New_York"):
        page = open_page(timezone_id=zone)
        visit(page, sluice, user, f"?task={task}")
        local = datetime.fromisoformat(created).astimezone(ZoneInfo(zone))
        exact = re.compile(rf"{local.day} {local:%b}\w* {local:%Y}.*{local:%H:%M:%S}\.{local.microsecond // 1000:03}")
        for moment in (page.locator("article .created"), rows(page).locator(".when")):
            expect(moment).to_have_attribute("title", exact)
            expect(moment).to_have_attribute("datetime", created)
            expect(moment).to_have_text(re.compile(r"just now|\d+ s ago"))
        page.get_by_text("Inputs and details").click()
        expect(page.locator(".facts")).to_contain_text(exact)


def test_back_and_forward_lead_through_the_tasks_that_were_open(sluice: Sluice, page: Page) -> None:
    user = newcomer()
    for text in ("The first", "The second"):
        sluice.done(sluice.add(user, kind="message", text=text))
    visit(page, sluice, user)
    title = page.locator(".task-title")
    for text in ("The first", "The second"):
        rows(page).get_by_role("link").filter(has_text=text).click()
        expect(title).to_have_text(text)
        expect(page.locator("#list a[aria-current=true]")).to_contain_text(text)
    page.go_back()
    expect(title).to_have_text("The first")
    page.go_back()
    expect(title).to_have_count(0)
    expect(page).to_have_title("Sluice")
    expect(page.locator("#list a[aria-current=true]")).to_have_count(0)
    page.go_forward()
    expect(title).to_have_text("The first")
    expect(page).to_have_title("Completed: The first · Sluice")


def test_an_answer_that_comes_when_its_task_was_left_changes_nothing(sluice: Sluice, page: Page) -> None:
    user = newcomer()
    task = sluice.add(user, kind="message", text="Too late")
    sluice.done(task)
    visit(page, sluice, user)
    held: list[Route] = []
    page.route(f"**/tasks/get/{task}", lambda route: held.append(route))
    rows(page).get_by_role("link").click()
    soon(page, lambda: held)
    page.go_back()
    expect(page).to_have_title("Sluice")
    page.evaluate("document.getElementById('live').textContent = ''")
    with page.expect_response(LIST):  # the next beat begins when this one has ended
        held[0].continue_()
    expect(page.locator("#connection-words")).to_have_text("Connected")
    assert page.title() == "Sluice"
    assert page.locator("#live").text_content() == ""


def test_on_a_phone_a_task_takes_the_place_of_the_list(sluice: Sluice, open_page: Open) -> None:
    user = newcomer()
    sluice.done(sluice.add(user, objective="Convert an integer to Roman numerals.", language="go"))
    page = open_page(**PHONE)
    visit(page, sluice, user)
    desk, pane = page.locator(".desk"), page.locator("#pane")
    expect(desk).to_be_visible()
    rows(page).get_by_role("link").click()
    expect(status(page)).to_be_in_viewport()
    expect(desk).to_be_hidden()
    page.get_by_role("link", name="All tasks").click()
    expect(desk).to_be_visible()
    expect(pane).to_be_hidden()
    page.go_back()
    expect(status(page)).to_be_visible()
    button(page, "Use as a new task").click()
    expect(pane).to_be_hidden()
    expect(box(page, "Objective")).to_have_value("Convert an integer to Roman numerals.")
    expect(box(page, "Objective")).to_be_focused()
    expect(box(page, "Language")).to_have_value("go")


def test_use_as_a_new_task_fills_the_form_of_its_kind(sluice: Sluice, page: Page) -> None:
    user = newcomer()
    text = "Twice\nas\tgood"
    sluice.done(sluice.add(user, kind="message", text=text))
    visit(page, sluice, user)
    rows(page).get_by_role("link").click()
    expect(page.get_by_role("tab", name="Code")).to_have_attribute("aria-selected", "true")
    button(page, "Use as a new task").click()
    expect(page.get_by_role("tab", name="Message")).to_have_attribute("aria-selected", "true")
    expect(box(page, "Text")).to_have_value(text)
    expect(box(page, "Text")).to_be_focused()
    button(page, "Send").click()
    expect(rows(page)).to_have_count(2)
    expect(status(page)).to_have_text("Completed")
    assert sluice.task(id_in(page))["text"] == text


def test_a_task_that_is_there_before_the_kinds_are_known_is_drawn_by_its_kind(sluice: Sluice, page: Page) -> None:
    user = newcomer()
    task = sluice.add(user)
    sluice.done(task)
    held: list[Route] = []
    page.route(KINDS, lambda route: held.append(route))
    page.goto(f"{sluice.url}/?task={task}")
    expect(status(page)).to_have_text("Completed")
    soon(page, lambda: held)
    held[0].continue_()
    expect(page.get_by_role("region", name="Code", exact=True)).to_have_count(1)
    expect(page.locator(".block")).to_have_count(1)


def test_there_is_advice_for_every_error_code_and_for_no_other() -> None:
    section = (ROOT / "docs/tasks.md").read_text().split("## Error codes")[1]
    cells = re.findall(r"^\| (`.*?) \|", section, re.M)
    again = re.search(r"tried again:(.*?), and then", section, re.S)
    assert again
    documented = set(re.findall(r"`(\w+)`", " ".join([*cells, again[1]])))
    assert len(documented) > 15
    script = (ROOT / "web/page/app/advice.js").read_text()
    (advice,) = re.findall(r"const ADVICE = \{(.*?)\n\};", script, re.S)
    assert set(re.findall(r"^  (\w+):", advice, re.M)) == documented
