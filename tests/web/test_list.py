"""The list of tasks: what it shows, what it finds, and that it is always of today."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count, pairwise
from typing import Any

from playwright.sync_api import Locator, Page, Response

from sluice.store import open_mongodb
from sluice.task import new_id, new_task, utc_now
from tests.web.actors import (
    LIST,
    add_slow,
    chip,
    expect,
    newcomer,
    requests,
    row,
    rows,
    soon,
    status,
    tasks_of,
    visit,
)
from tests.web.sluices import ClusterSluice, Sluice, both

STATUSES = ["pending", "running", "completed", "failed", "cancelled"]

WATCH_SHIFTS = """
    window.shifts = [];
    new PerformanceObserver((list) => {
        for (const { value, hadRecentInput, sources } of list.getEntries()) {
            const moved = sources.map(({ node }) => node?.className ?? node?.nodeName);
            if (!hadRecentInput) window.shifts.push([value, moved.join(" ")]);
        }
    }).observe({ type: "layout-shift", buffered: true });
"""

HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    const visibilityState = hidden ? "hidden" : "visible";
    Object.defineProperty(document, "visibilityState", { value: visibilityState, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def message(sluice: Sluice, user: str, text: str) -> str:
    return sluice.add(user, kind="message", text=text)


def give_many(sluice: ClusterSluice, user: str, number: int) -> list[str]:
    """Gives a user so many finished tasks; returns their ids, newest first, as the API lists them."""
    store = open_mongodb(sluice.stack.mongo.uri, sluice.stack.queue)
    start = utc_now() - timedelta(hours=1)
    for moment in range(number):
        task = new_task(
            task_id=new_id(),
            user_id=user,
            kind="message",
            inputs={"text": f"number {moment}"},
            outputs={"message": ""},
            now=start + timedelta(milliseconds=moment // 3),  # some at the same moment
            ttl=timedelta(minutes=5),
        )
        done = start + timedelta(seconds=moment)
        store.insert(task.replace(status="completed", queued_at=start, started_at=start, completed_at=done))
    store.close()
    ids = [task["_id"] for page in pages(sluice, user) for task in page]
    assert len(ids) == number
    return ids


@contextmanager
def ten_endless_tasks(sluice: Sluice) -> Iterator[None]:
    """All that an engine does at a time: what comes after them is pending until they are cancelled."""
    user = newcomer()
    endless = [sluice.add(user, objective="endless") for _ in range(10)]
    try:
        yield
    finally:
        for task in endless:
            assert sluice.post(f"/tasks/cancel/{task}").status_code == 200


def pages(sluice: Sluice, user: str) -> Iterator[list[dict[str, Any]]]:
    cursor: str | None = ""
    while cursor is not None:
        query = {"user_id": user, "limit": 200, **({"cursor": cursor} if cursor else {})}
        answer = sluice.get("/tasks/get", params=query).json()
        yield answer["tasks"]
        cursor = answer["next"]


def ids_of(page: Page) -> list[str]:
    """The ids in the list, from top to bottom."""
    hrefs: list[str] = page.evaluate("[...document.querySelectorAll('#list a')].map(link => link.search)")
    return [href.partition("task=")[2][:32] for href in hrefs]


def select(words: Locator) -> str:
    """Selects the text of an element, as with the mouse; returns it."""
    text: str = words.evaluate("element => (getSelection().selectAllChildren(element), getSelection().toString())")
    assert text
    return text


def selected(page: Page) -> str:
    text: str = page.evaluate("getSelection().toString()")
    return text


def test_a_row_says_in_words_what_there_is_to_know_of_its_task(sluice: Sluice, page: Page) -> None:
    made = [
        {
            "_id": f"{number:032x}",
            "user_id": "ada",
            "kind": "code" if number else "message",
            "created_at": f"2026-03-29T0{number}:30:00.125Z",
            "queued_at": f"2026-03-29T0{number}:30:00.125Z",
            "started_at": None if name == "pending" else f"2026-03-29T0{number}:30:01.000Z",
            "completed_at": None if number < 2 else f"2026-03-29T0{number}:31:13.000Z",
            "deadline": f"2026-03-29T0{number}:35:00.000Z",
            "retry_at": None,
            "status": name,
            "progress": 0,
            "attempts": 1,
            "error": {"code": "refused", "message": "No."} if name == "failed" else None,
            "title": f"Task {number}",
        }
        for number, name in enumerate(STATUSES)
    ]
    page.route(LIST, lambda route: route.fulfill(json={"tasks": made[::-1], "next": None}))
    visit(page, sluice)
    expect(rows(page).locator(".title")).to_have_text([f"Task {number}" for number in (4, 3, 2, 1, 0)])
    for number, name in enumerate(STATUSES):
        one = row(page, f"Task {number}")
        expect(one).to_contain_text(name.capitalize())
        expect(one).to_contain_text("Code" if number else "Message")
        expect(one.locator("svg use")).to_have_attribute("href", f"#icon-{name}")
        when = one.locator("time")
        expect(when).to_have_attribute("datetime", f"2026-03-29T0{number}:30:00.125Z")
        # Summer began that night in Berlin, at two.
        hour = f"0{number + 1}:30:00.125 CET" if number == 0 else f"0{number + 2}:30:00.125 CEST"
        expect(when).to_have_attribute("title", re.compile(rf"^29 Mar 2026.* {hour}$"))
        if number > 1:
            expect(one).to_contain_text("1 min 12 s")


@both
def test_the_newest_is_on_top_with_the_first_line_of_its_text_only(sluice: Sluice, page: Page) -> None:
    user = newcomer()
    texts = ["the oldest", "first line\nsecond line", "\n  a <b>bold</b> line " + "and on " * 60]
    for text in texts:
        sluice.done(message(sluice, user, text))
    visit(page, sluice, user)
    titles = rows(page).locator(".title")
    expect(titles).to_have_text([re.compile("^a <b>bold</b> line"), "first line", "the oldest"])
    expect(page.locator("#list")).not_to_contain_text("second line")
    heights = {box["height"] for one in rows(page).all() if (box := one.bounding_box())}
    assert max(heights) - min(heights) <= 2, "each has one line for its title"


@both
def test_filters_are_in_the_address_and_stay(sluice: Sluice, page: Page) -> None:
    user = newcomer()
    sluice.done(message(sluice, user, "a message"))
    sluice.done(sluice.add(user, objective="some code"))
    cancelled = add_slow(sluice, user, "cancelled code")
    assert sluice.post(f"/tasks/cancel/{cancelled}").status_code == 200
    visit(page, sluice, user)
    titles = rows(page).locator(".title")
    expect(titles).to_have_text(["cancelled code", "some code", "a message"])
    kind = page.get_by_role("combobox", name="Filter by kind")
    kind.select_option("Code")
    expect(titles).to_have_text(["cancelled code", "some code"])
    expect(page).to_have_url(f"{sluice.url}/?kind=code")
    chip(page, "Completed").click()
    expect(titles).to_have_text(["some code"])
    expect(page).to_have_url(f"{sluice.url}/?kind=code&status=completed")
    page.reload()
    expect(titles).to_have_text(["some code"])
    expect(chip(page, "Completed")).to_have_attribute("aria-current", "true")
    expect(kind).to_have_value("code")
    page.go_back()
    expect(titles).to_have_text(["cancelled code", "some code"])
    expect(chip(page, "All")).to_have_attribute("aria-current", "true")
    page.go_back()
    expect(titles).to_have_text(["cancelled code", "some code", "a message"])
    expect(kind).to_have_value("")
    page.go_forward()
    expect(titles).to_have_text(["cancelled code", "some code"])
    expect(kind).to_have_value("code")
    chip(page, "Failed").click()
    expect(page.locator("#tasks")).to_contain_text("No task matches these filters.")


@both
def test_search_looks_through_what_is_loaded_and_counts(sluice: Sluice, page: Page) -> None:
    user = newcomer()
    for text in ("red apple", "green apple", "red brick"):
        message(sluice, user, text)
    visit(page, sluice, user)
    expect(rows(page)).to_have_count(3)
    search = page.get_by_role("searchbox")
    search.press_sequentially("APPLE")
    expect(rows(page).locator(".title")).to_have_text(["green apple", "red apple"])
    expect(page.locator("#tasks")).to_contain_text("2 of 3 loaded tasks match.")
    message(sluice, user, "a third apple")
    expect(rows(page)).to_have_count(3)
    search.fill("pear")
    expect(page.locator("#tasks")).to_contain_text("0 of 4 loaded tasks match.")
    search.fill("")
    expect(rows(page)).to_have_count(4)


def test_five_hundred_tasks_load_while_one_scrolls_and_nothing_jumps(sluice: ClusterSluice, page: Page) -> None:
    user = newcomer()
    ids = give_many(sluice, user, 500)
    visit(page, sluice, user)
    expect(rows(page)).to_have_count(50)
    assert ids_of(page) == ids[:50]
    rows(page).nth(5).hover()

    def scrolled_to_the_end() -> bool:
        page.mouse.wheel(0, 3000)
        return rows(page).count() == 500

    soon(page, scrolled_to_the_end, "500 rows")
    assert ids_of(page) == ids
    expect(page.get_by_role("button", name="Load older tasks")).to_be_hidden()

    middle = rows(page).nth(250)
    middle.scroll_into_view_if_needed()
    seen = page.locator(f"#list a[href*='{ids[250]}']")
    before = seen.bounding_box()
    new = message(sluice, user, "one more")
    expect(rows(page)).to_have_count(501)
    expect(row(page, "one more")).to_contain_text("Completed")
    assert ids_of(page) == [new, *ids]
    after = seen.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(after["y"] - before["y"]) <= 2


@both
def test_a_task_from_elsewhere_shows_up_and_goes_on_by_itself(sluice: Sluice, page: Page) -> None:
    user = newcomer()
    sluice.done(message(sluice, user, "an old one"))
    visit(page, sluice, user)
    page.evaluate("window.isTheSamePage = true")
    old = row(page, "an old one")
    old.get_by_role("link").focus()
    task = add_slow(sluice, user, "slowly done")
    words = select(row(page, "slowly done").locator(".title"))
    assert words == "slowly done"
    expect(row(page, "slowly done")).to_contain_text("Completed")
    assert sluice.task(task)["status"] == "completed"
    message(sluice, user, "one more")
    expect(row(page, "one more")).to_contain_text("Completed")
    assert selected(page) == words
    expect(old.get_by_role("link")).to_be_focused()
    assert ids_of(page) == [one["_id"] for one in tasks_of(sluice, user)]
    assert page.evaluate("window.isTheSamePage")


def test_nothing_moves_and_nothing_is_lost_while_an_open_task_is_done(sluice: ClusterSluice, page: Page) -> None:
    user = newcomer()
    sluice.done(message(sluice, user, "an old one"))
    page.context.add_init_script(WATCH_SHIFTS)
    visit(page, sluice, user)
    sluice.model.script([{"match": "endless", "fault": "hang"}, {"match": "slowly done", "seconds": 2}])
    with ten_endless_tasks(sluice):
        task = sluice.add(user, objective="slowly done")
        page.goto(f"{sluice.url}/?task={task}")
        expect(status(page)).to_have_text("Pending")
        row(page, "an old one").get_by_role("link").focus()
        words = select(page.get_by_role("heading", name="slowly done"))
    expect(status(page)).to_have_text("Running")
    expect(status(page)).to_have_text("Completed")
    expect(page.get_by_role("region", name="Code")).to_be_visible()
    expect(row(page, "slowly done")).to_contain_text("Completed")
    assert selected(page) == words
    expect(row(page, "an old one").get_by_role("link")).to_be_focused()
    shifts = page.evaluate("window.shifts")
    assert sum(value for value, _ in shifts) < 0.02, shifts


@both
def test_a_page_asks_ever_less_often_while_nothing_happens_and_not_at_all_while_it_is_hidden(
    sluice: Sluice, page: Page
) -> None:
    user = newcomer()
    sluice.done(message(sluice, user, "an old one"))
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer) if "/tasks/" in answer.url else None)
    made, all_made = requests(page, LIST), requests(page, re.compile("/tasks/"))
    page.clock.install()
    visit(page, sluice, user)
    expect(rows(page)).to_have_count(1)
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)

    def settle() -> None:
        for _ in range(3):  # one answer may lead to the next question
            soon(page, lambda: len(answers) == len(all_made), "all is answered")

    def seconds_to_the_next() -> int:
        settle()
        asked = len(made)
        for seconds in count(1):
            page.clock.run_for(1000)
            page.evaluate("0")  # its answer comes after the news of a request
            if len(made) > asked:
                return seconds
        raise AssertionError

    known = len(answers)
    pauses = [seconds_to_the_next() for _ in range(8)]
    assert pauses[0] <= 3
    assert all(earlier <= later + 1 for earlier, later in pairwise(pauses)), pauses
    assert 10 <= pauses[-1] <= 20
    assert {answer.status for answer in answers[known:] if LIST.search(answer.url)} == {304}

    settle()
    page.evaluate(HIDE, True)
    expect(page.locator("#connection-words")).to_have_text("Paused")
    asked = len(made)
    message(sluice, user, "one more")
    page.clock.run_for(120_000)
    page.evaluate("0")
    assert len(made) == asked
    expect(rows(page)).to_have_count(1)
    page.evaluate(HIDE, False)
    expect(rows(page)).to_have_count(2)
    expect(page.locator("#connection-words")).to_have_text("Connected")
