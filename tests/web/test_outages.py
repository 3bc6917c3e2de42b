"""Servers that die, networks that break, answers that are lost: what the page makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from playwright.sync_api import Locator, Page, Route

from tests.waiting import eventually
from tests.web.actors import ADD, box, expect, row, rows, soon, status, tasks_of, visit
from tests.web.noise import Noise
from tests.web.sluices import ClusterSluice, Sluice, both_lasting

Open = Callable[..., Page]

#: The longest pause between two tries is 15 s and a quarter of it, and a machine can be busy.
LONG = 40_000

API = re.compile(r"/tasks/")


def connection(page: Page) -> Locator:
    return page.locator("#connection-words")


def send(page: Page, objective: str, language: str = "python") -> None:
    box(page, "Objective").fill(objective)
    box(page, "Language").fill(language)
    page.get_by_role("button", name="Send", exact=True).click()


#: How many calls of the API the page has made, and how many of these have been answered or have failed.
COUNT_CALLS = """
    window.asked = window.ended = 0;
    const given = window.fetch;
    window.fetch = (...call) => {
        asked++;
        return given(...call).finally(() => ended++);
    };
"""


def break_network(noise: Noise) -> None:
    noise.allow()
    noise.allow("ERR_")
    noise.allow("Failed to read the 'localStorage'")  # `visit` of these tests, in a tab that is still blank


@contextmanager
def dead(sluice: Sluice) -> Iterator[None]:
    sluice.kill()
    try:
        yield
    finally:  # others use it after this test
        sluice.start()


@both_lasting
def test_an_open_page_outlives_its_server(lasting_sluice: Sluice, open_page: Open, noise: Noise) -> None:
    """And so does what was sent meanwhile, from a page that is open all the time and from one that is not."""
    sluice = lasting_sluice
    break_network(noise)
    if isinstance(sluice, ClusterSluice):
        sluice.model.script([{"match": "midst", "seconds": 4}])
    open_one, closed_one = open_page(), open_page()
    leaving = visit(closed_one, sluice)
    staying = visit(open_one, sluice)
    sluice.done(sluice.add(staying, kind="message", text="An old one"))
    send(open_one, "In the midst of it")
    expect(status(open_one)).to_have_text("Running")
    open_one.evaluate("window.wasReloaded = false")
    with dead(sluice):
        expect(connection(open_one)).to_have_text(re.compile(r"can't be reached\. Next try in \d+ s\."))
        for page, objective in ((open_one, "Sent while it was dead"), (closed_one, "Sent and left")):
            send(page, objective)
            expect(row(page, objective)).to_contain_text("Not confirmed yet. The server can't be reached.")
        box(open_one, "Objective").fill("Only a draft")
        closed_one.close()

    expect(connection(open_one)).to_have_text("Connected", timeout=LONG)
    expect(row(open_one, "Sent while it was dead")).to_contain_text("Completed", timeout=LONG)
    returned = closed_one.context.new_page()
    returned.goto(f"{sluice.url}/")
    expect(row(returned, "Sent and left")).to_contain_text("Completed", timeout=LONG)
    row(open_one, "In the midst of it").get_by_role("link").click()
    # Without the cluster its message was in memory, and the sweep waits most of a minute before it sends another.
    if isinstance(sluice, ClusterSluice):
        expect(status(open_one)).to_have_text("Completed", timeout=LONG)
        expect(open_one.locator(".source .line").nth(1)).to_be_attached()
    expect(rows(open_one).locator(".title")).to_have_text(
        ["Sent while it was dead", "In the midst of it", "An old one"]
    )
    expect(box(open_one, "Objective")).to_have_value("Only a draft")
    assert open_one.evaluate("window.wasReloaded") is False
    assert len(tasks_of(sluice, staying)) == 3
    assert len(tasks_of(sluice, leaving)) == 1


def test_while_nobody_answers_a_page_tries_ever_less_often_and_goes_on_by_itself(
    lasting_sluice: Sluice, page: Page, noise: Noise
) -> None:
    """By the page's own clock, which the test moves on."""
    break_network(noise)
    page.add_init_script(COUNT_CALLS)
    page.clock.install()
    visit(page, lasting_sluice)
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)

    def settle() -> None:
        for _ in range(3):  # one answer may lead to the next question
            soon(page, lambda: page.evaluate("ended === asked"), "all is answered, or has failed")

    def seconds_to_the_next() -> int:
        settle()
        asked = page.evaluate("asked")
        for seconds in count(1):
            page.clock.run_for(1000)
            if page.evaluate("asked") > asked:
                return seconds
        raise AssertionError

    settle()
    page.route(API, lambda route: route.abort("connectionrefused"))
    page.locator("#connection-now").dispatch_event("click")
    expect(connection(page)).to_have_text(re.compile(r"can't be reached\. Next try in \d+ s\."))
    for seconds in (1, 2, 4, 8, 15, 15):  # each more or less by a fourth
        assert 0.75 * seconds <= seconds_to_the_next() <= 1.25 * seconds + 1

    settle()
    page.unroute_all()
    assert seconds_to_the_next() <= 20
    expect(connection(page)).to_have_text("Connected")


@pytest.mark.parametrize("sluice", ["embedded"], indirect=True)
def test_a_task_that_the_server_has_forgotten_is_sent_again(sluice: Sluice, page: Page, noise: Noise) -> None:
    break_network(noise)
    user = visit(page, sluice)
    send(page, "Not to be forgotten")
    expect(status(page)).to_have_text("Running")
    (before,) = tasks_of(sluice, user)
    with dead(sluice):
        expect(connection(page)).to_contain_text("can't be reached")
    # By itself the page may be as fast: then the button is hidden, and to click it would be waited for in vain.
    page.locator("#connection-now").dispatch_event("click")
    expect(connection(page)).to_have_text("Connected", timeout=LONG)
    expect(row(page, "Not to be forgotten")).to_contain_text("Completed", timeout=LONG)
    expect(status(page)).to_have_text("Completed")
    expect(page.get_by_role("alert").filter(has_text="does not know")).to_be_hidden()
    (after,) = tasks_of(sluice, user)
    assert (after["_id"], after["status"]) == (before["_id"], "completed")


def test_a_task_whose_answer_was_lost_is_there_once(lasting_sluice: Sluice, page: Page, noise: Noise) -> None:
    break_network(noise)
    user = visit(page, lasting_sluice)
    keys: list[str] = []

    def lose(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) <= 2:
            assert route.fetch().status == 202
            route.abort()
        else:
            route.continue_()

    page.route(ADD, lose)
    send(page, "Sent three times")
    expect(rows(page)).to_have_text([re.compile("Sent three times.*Completed")], timeout=LONG)
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(tasks_of(lasting_sluice, user)) == 1


def test_two_tabs_that_come_back_online_send_what_waits_once(
    lasting_sluice: Sluice, open_page: Open, noise: Noise
) -> None:
    break_network(noise)
    if isinstance(lasting_sluice, ClusterSluice):
        lasting_sluice.model.script([{"match": "tunnel", "seconds": 3}])
    one = open_page()
    user = visit(one, lasting_sluice)
    other = one.context.new_page()
    other.goto(lasting_sluice.url)
    expect(connection(other)).to_have_text("Connected")
    one.context.set_offline(True)
    send(one, "Written in a tunnel")
    for page in (one, other):
        expect(row(page, "Written in a tunnel")).to_contain_text("Not confirmed yet. This device is offline.")
        expect(connection(page)).to_have_text(re.compile(r"This device is offline\. Next try in \d+ s\."))
    held: list[Route] = []
    other.route(ADD, lambda route: held.append(route))
    one.context.set_offline(False)
    # The slower tab, if it has sent it too, has its answer when the other one has told it that the task is accepted.
    accepted = [row(page, "Written in a tunnel").locator("a[href]") for page in (one, other)]
    expect(accepted[0]).to_be_attached(timeout=LONG)
    soon(other, lambda: held or accepted[1].count())
    for route in held:
        route.continue_()
    other.unroute_all()
    for page in (one, other):
        expect(row(page, "Written in a tunnel")).to_contain_text("Completed", timeout=LONG)
        expect(rows(page)).to_have_count(1)
        expect(connection(page)).to_have_text("Connected")
    assert len(tasks_of(lasting_sluice, user)) == 1
    left = "Object.keys(localStorage).filter(name => name.startsWith('sluice.outbox.'))"
    eventually(lambda: one.evaluate(left) == [], what="nothing is left to be sent")


def test_a_task_that_is_refused_after_an_outage_can_be_edited_or_discarded(
    lasting_sluice: Sluice, page: Page, noise: Noise
) -> None:
    break_network(noise)
    user = visit(page, lasting_sluice)
    page.context.set_offline(True)
    send(page, "To be mended", language="x" * 41)
    expect(row(page, "To be mended")).to_contain_text("Not confirmed yet")
    send(page, "To be thrown away", language="x" * 41)
    expect(rows(page)).to_have_count(2)
    box(page, "Objective").fill("Only a draft")
    page.context.set_offline(False)
    for words in ("To be mended", "To be thrown away"):
        expect(row(page, words)).to_contain_text("Not accepted: language", timeout=LONG)
    expect(box(page, "Objective")).to_have_value("Only a draft")
    page.reload()
    expect(box(page, "Objective")).to_have_value("Only a draft")

    row(page, "To be thrown away").get_by_role("button", name="Discard").click()
    expect(row(page, "To be thrown away")).to_have_count(0)
    row(page, "To be mended").get_by_role("button", name="Edit").click()
    expect(rows(page)).to_have_count(0)
    expect(box(page, "Objective")).to_have_value("To be mended")
    send(page, "To be mended", language="go")
    expect(row(page, "To be mended")).to_contain_text("Completed")
    (task,) = tasks_of(lasting_sluice, user)
    assert task["language"] == "go"


def test_all_tasks_that_wait_say_so(lasting_sluice: ClusterSluice, page: Page, noise: Noise) -> None:
    break_network(noise)
    lasting_sluice.model.script([{"match": "of them", "seconds": 60}])
    user = visit(page, lasting_sluice)
    page.context.set_offline(True)
    for words in ("The first of them", "The second of them"):
        send(page, words)
    for words in ("The second of them", "The first of them"):
        expect(row(page, words)).to_contain_text("Not confirmed yet. This device is offline.")
        row(page, words).get_by_role("button", name="Discard").click()
    expect(rows(page)).to_have_count(0)
    page.context.set_offline(False)
    expect(connection(page)).to_have_text("Connected", timeout=LONG)
    # The first may have arrived before the network was gone: it is found out, and cancelled before it is done.
    left = "Object.keys(localStorage).filter(name => name.startsWith('sluice.outbox.'))"
    eventually(lambda: page.evaluate(left) == [], what="nothing is left to be sent")
    assert [task for task in tasks_of(lasting_sluice, user) if task["status"] != "cancelled"] == []


def test_what_the_server_says_while_it_can_not_work_is_shown(lasting_sluice: Sluice, page: Page, noise: Noise) -> None:
    noise.allow()
    visit(page, lasting_sluice)
    problem = '{"title": "Service Unavailable", "status": 503, "detail": "The database is away. Nothing was kept."}'
    headers = {"content-type": "application/problem+json", "retry-after": "9"}
    page.route(API, lambda route: route.fulfill(status=503, headers=headers, body=problem))
    send(page, "Not now")
    expect(row(page, "Not now")).to_contain_text("Not confirmed yet. The database is away. Nothing was kept.")
    expect(connection(page)).to_have_text(re.compile(r"Nothing was kept\. Next try in [5-9] s\."))

    page.unroute_all()
    page.get_by_role("button", name="Try now").click()
    expect(connection(page)).to_have_text("Connected")
    expect(row(page, "Not now")).to_contain_text("Completed", timeout=LONG)


def test_a_proxy_that_answers_with_html_is_called_what_it_is(lasting_sluice: Sluice, page: Page, noise: Noise) -> None:
    noise.allow()
    visit(page, lasting_sluice)
    html = "<html><body><h1>502 Bad Gateway</h1></body></html>"
    page.route(API, lambda route: route.fulfill(status=502, content_type="text/html", body=html))
    expect(connection(page)).to_have_text(re.compile("^Something between here and the server does not work"))
