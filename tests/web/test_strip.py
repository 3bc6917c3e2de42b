"""What stands above the list and beside the name: counts, engines, stand-ins, and who is at work here."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page

from tests.web.actors import add_slow, chip, expect, newcomer, row, rows, send, slow_down, visit
from tests.web.noise import Noise
from tests.web.sluices import ClusterSluice, Sluice, both


def engines(page: Page) -> Locator:
    return page.get_by_role("banner").get_by_text(re.compile("(at work|idle)$"))


def name(page: Page) -> Locator:
    return page.get_by_role("banner").get_by_role("button", name=re.compile("^You are"))


def dialog(page: Page) -> Locator:
    """The dialog in which the name is changed, opened."""
    name(page).click()
    found = page.get_by_role("dialog", name="Who are you?")
    expect(found).to_be_visible()
    return found


def test_counts_follow_what_happens_and_filter_the_list(sluice: Sluice, page: Page) -> None:
    user = newcomer()
    for text in ("one", "two"):
        sluice.done(sluice.add(user, kind="message", text=text))
    visit(page, sluice, user)

    def counts() -> list[Locator]:
        return [chip(page, word) for word in ("All", "Pending", "Running", "Completed", "Failed", "Cancelled")]

    for found, number in zip(counts(), [2, 0, 0, 2, 0, 0], strict=True):
        expect(found).to_contain_text(re.compile(rf"\b{number}$"))
    slow_down(sluice, "a slow one")
    send(page, "a slow one")
    expect(chip(page, "All")).to_contain_text("3")
    expect(chip(page, "Running")).to_contain_text("1")
    expect(chip(page, "Completed")).to_contain_text("3")
    cancelled = add_slow(sluice, user, "a cancelled one")
    assert sluice.post(f"/tasks/cancel/{cancelled}").status_code == 200
    for found, number in zip(counts(), [4, 0, 0, 3, 0, 1], strict=True):
        expect(found).to_contain_text(re.compile(rf"\b{number}$"))
    chip(page, "Cancelled").click()
    expect(rows(page)).to_have_count(1)
    expect(row(page, "a cancelled one")).to_contain_text("Cancelled")
    expect(page).to_have_url(re.compile("[?&]status=cancelled$"))
    expect(chip(page, "Cancelled")).to_have_attribute("aria-current", "true")
    expect(chip(page, "All")).not_to_have_attribute("aria-current", "true")
    expect(chip(page, "All")).to_contain_text("4")
    chip(page, "All").click()
    expect(rows(page)).to_have_count(4)
    expect(page).not_to_have_url(re.compile("status"))


def test_an_engine_is_seen_while_it_is_at_work(sluice: Sluice, page: Page) -> None:
    visit(page, sluice)
    expect(engines(page)).to_have_text("Engines idle")
    slow_down(sluice, "a slow one")
    send(page, "a slow one")
    expect(engines(page)).to_have_text("1 engine at work")
    expect(row(page, "a slow one")).to_contain_text("Completed")
    expect(engines(page)).to_have_text("Engines idle")


@both
def test_stand_ins_are_told_where_there_are_some(sluice: Sluice, page: Page) -> None:
    visit(page, sluice)
    expect(engines(page)).to_be_visible()
    told = page.get_by_role("banner").get_by_text("Offline model")
    if isinstance(sluice, ClusterSluice):
        expect(told).to_be_hidden()
        return
    expect(told).to_be_visible()
    for words in ("database: in memory", "queue: in memory", "model: offline model (set OPENAI_API_KEY"):
        expect(told).to_have_attribute("title", re.compile(re.escape(words)))


def test_somebody_new_is_given_a_name_that_stays(sluice: Sluice, open_page: Callable[..., Page]) -> None:
    page, other = open_page(), open_page()
    for one in (page, other):
        one.goto(f"{sluice.url}/")
        expect(name(one)).to_contain_text(re.compile("guest-[0-9a-z]{8,}"))
    given = name(page).inner_text()
    assert given != name(other).inner_text()
    page.reload()
    expect(name(page)).to_have_text(given, use_inner_text=True)


def test_a_name_can_be_changed_and_then_the_tasks_are_those_of_the_other(sluice: Sluice, page: Page) -> None:
    other = newcomer()
    sluice.done(sluice.add(other, kind="message", text="a task of the other"))
    user = newcomer()
    sluice.done(sluice.add(user, kind="message", text="my own task"))
    visit(page, sluice, user, "?status=completed")
    expect(row(page, "my own task")).to_be_visible()
    field = dialog(page).get_by_label("Name")
    expect(field).to_have_value(user)
    expect(field).to_be_focused()
    field.fill(other)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(name(page)).to_contain_text(user)
    expect(name(page)).to_be_focused()
    dialog(page).get_by_role("button", name="Leave it").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    field = dialog(page).get_by_label("Name")
    expect(field).to_have_value(user)
    field.fill(f"  {other} ")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(name(page)).to_contain_text(other)
    expect(rows(page)).to_have_count(1)
    expect(row(page, "a task of the other")).to_be_visible()
    expect(chip(page, "All")).to_contain_text("1")
    page.reload()
    expect(name(page)).to_contain_text(other)
    expect(row(page, "a task of the other")).to_be_visible()


def test_what_is_no_name_is_refused_in_words(sluice: Sluice, page: Page, noise: Noise) -> None:
    noise.allow()
    user = visit(page, sluice)
    shown = dialog(page)
    field = shown.get_by_label("Name")
    for text, words in [(" ", "needed"), ("a\x07b", "control character")]:
        field.fill(text)
        shown.get_by_role("button", name="Use this name").click()
        expect(shown.get_by_role("alert")).to_contain_text(words)
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_be_focused()
    expect(shown).to_be_visible()
    page.keyboard.press("Escape")
    expect(name(page)).to_contain_text(user)
    expect(dialog(page).locator("[role=alert]")).to_have_text("")


def test_a_name_that_is_too_long_is_refused_and_not_cut(sluice: Sluice, page: Page) -> None:
    visit(page, sluice)
    shown = dialog(page)
    shown.get_by_label("Name").fill("x" * 129)
    page.keyboard.press("Enter")
    expect(shown.get_by_role("alert")).to_contain_text("128 characters")
    expect(shown.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    shown.get_by_label("Name").fill("x" * 128)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_two_tabs_have_one_name(sluice: Sluice, page: Page) -> None:
    other = newcomer()
    sluice.done(sluice.add(other, kind="message", text="a task of the other"))
    visit(page, sluice)
    second = page.context.new_page()
    second.goto(f"{sluice.url}/")
    expect(name(second)).to_have_text(name(page).inner_text(), use_inner_text=True)
    dialog(page).get_by_label("Name").fill(other)
    page.keyboard.press("Enter")
    for one in (page, second):
        expect(name(one)).to_contain_text(other)
        expect(row(one, "a task of the other")).to_be_visible()
