"""Somebody new at the page, and where on it things are."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Expect, Locator, Page, Request

from tests.waiting import eventually
from tests.web.sluices import ClusterSluice, Sluice

#: As Playwright's own, with patience for a busy machine.
expect = Expect()
expect.set_options(timeout=15_000)

LIST = re.compile(r"/tasks/get\?")
KINDS = re.compile(r"/tasks/get/kinds$")
ADD = re.compile(r"/tasks/add$")


def newcomer() -> str:
    """The name of a user that nobody has had."""
    return f"user-{uuid.uuid4().hex[:12]}"


def visit(page: Page, sluice: Sluice, user: str | None = None, query: str = "") -> str:
    """Opens the page as this user, or a new one; returns the name. What the page remembers later stays over reloads."""
    user = user or newcomer()
    name = json.dumps(json.dumps(user))  # a blank page, as a tab begins with, has no storage
    page.context.add_init_script(
        f"if (origin !== 'null' && !localStorage.getItem('sluice.user')) localStorage.setItem('sluice.user', {name})"
    )
    page.goto(f"{sluice.url}/{query}")
    expect(page.locator("#connection-words")).to_have_text("Connected")
    return user


def slow_down(sluice: Sluice, objective: str) -> None:
    """Makes tasks with this objective run for more than a second."""
    if isinstance(sluice, ClusterSluice):  # the embedded model takes its time anyway
        sluice.model.script([{"match": re.escape(objective), "seconds": 1.5}])


def add_slow(sluice: Sluice, user: str, objective: str) -> str:
    """Adds a task that runs for more than a second; returns its id. A page that is idle may not see it run."""
    slow_down(sluice, objective)
    return sluice.add(user, objective=objective)


def tasks_of(sluice: Sluice, user: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = sluice.get("/tasks/get", params={"user_id": user}).json()["tasks"]
    return tasks


def composer(page: Page) -> Locator:
    return page.get_by_role("region", name="New task")


def box(page: Page, name: str) -> Locator:
    """The control of the composer with this label."""
    return composer(page).get_by_label(name)


def send(page: Page, objective: str) -> None:
    box(page, "Objective").fill(objective)
    page.keyboard.press("Control+Enter")


def problem(page: Page) -> Locator:
    """What is said of the form as a whole."""
    return composer(page).get_by_role("alert")


def rows(page: Page) -> Locator:
    return page.get_by_role("list", name="Tasks, newest first").get_by_role("listitem")


def row(page: Page, words: str) -> Locator:
    return rows(page).filter(has_text=words)


def chip(page: Page, word: str) -> Locator:
    """A filter of the strip, by its word; its text is the word and the number."""
    return page.get_by_role("group", name="Filter by status").get_by_role("link", name=re.compile(f"^{word}"))


def status(page: Page) -> Locator:
    """The status of the task that is open."""
    return page.get_by_role("region", name="Task", exact=True).locator(".status-word")


def requests(page: Page, path: re.Pattern[str]) -> list[Request]:
    """The requests from now on, as they are made."""
    made: list[Request] = []
    page.on("request", lambda request: made.append(request) if path.search(request.url) else None)
    return made


def soon(page: Page, condition: Callable[[], Any], what: str = "") -> None:
    """Waits for something that Playwright tells by an event."""

    def look() -> Any:
        page.wait_for_timeout(10)  # events come only while Playwright waits
        return condition()

    eventually(look, 15, what)
