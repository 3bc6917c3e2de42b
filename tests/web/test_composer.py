"""The form for a new task."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import Page, Route

from tests.web.actors import (
    ADD,
    KINDS,
    box,
    chip,
    composer,
    expect,
    problem,
    requests,
    row,
    rows,
    soon,
    tasks_of,
    visit,
)
from tests.web.noise import Noise
from tests.web.sluices import Sluice

LONG = {"type": "string", "maxLength": 65536}
SHORT = {"type": "string", "maxLength": 40}

#: A kind that the page has never heard of.
SURVEY = {
    "kind": "survey",
    "title": "Survey",
    "inputs": {
        "type": "object",
        "required": ["name", "about", "mood"],
        "$defs": {"Mood": {"type": "string", "title": "Mood", "enum": ["good", "bad"]}},
        "properties": {
            "name": {**SHORT, "title": "Name", "description": "Whoever answers.", "examples": ["Ada"]},
            "about": {**LONG, "title": "About"},
            "age": {"type": "integer", "title": "Age", "minimum": 1, "maximum": 120, "default": 30},
            "score": {"type": "number", "title": "Score"},
            "news": {"type": "boolean", "title": "News", "default": True},
            "mood": {"$ref": "#/$defs/Mood"},
            "size": {"type": "integer", "title": "Size", "enum": [1, 2, 3]},
            "feeling": {"anyOf": [{"$ref": "#/$defs/Mood"}, {"type": "null"}], "title": "Feeling", "default": None},
            "nick": {"anyOf": [SHORT, {"type": "null"}], "title": "Nick", "default": None},
            "tags": {"type": "array", "items": {"type": "string"}, "title": "Tags", "examples": [["one", "two"]]},
        },
    },
    "outputs": {"type": "object", "properties": {}},
}


def offer_survey(page: Page) -> None:
    def answer(route: Route) -> None:
        answered = route.fetch()
        route.fulfill(response=answered, json={"kinds": [*answered.json()["kinds"], SURVEY]})

    page.route(KINDS, answer)


def fill_survey(page: Page) -> None:
    box(page, "Name").fill("Grace")
    box(page, "About").fill("Two\nlines")
    box(page, "Mood").select_option("bad")


def refuse(page: Page, *errors: tuple[str, str]) -> list[dict[str, Any]]:
    """Answers what is sent with these errors; returns the bodies that were sent."""
    sent: list[dict[str, Any]] = []
    named = [{"field": field, "message": message} for field, message in errors]
    words = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "No.", "errors": named}

    def answer(route: Route) -> None:
        sent.append(json.loads(route.request.post_data or ""))
        route.fulfill(status=400, content_type="application/problem+json", body=json.dumps(words))

    page.route(ADD, answer)
    return sent


def test_there_is_a_tab_for_each_kind_and_the_keyboard_moves_between_them(sluice: Sluice, page: Page) -> None:
    visit(page, sluice)
    tabs = page.get_by_role("tablist", name="Kind of task").get_by_role("tab")
    expect(tabs).to_have_text(["Code", "Message"])
    code, message = tabs.nth(0), tabs.nth(1)
    expect(code).to_have_attribute("aria-selected", "true")
    expect(message).to_have_attribute("aria-selected", "false")
    code.focus()
    for key, chosen in [
        ("ArrowRight", message),
        ("ArrowRight", code),
        ("ArrowLeft", message),
        ("ArrowLeft", code),
        ("End", message),
        ("Home", code),
        ("End", message),
    ]:
        page.keyboard.press(key)
        expect(chosen).to_be_focused()
        expect(chosen).to_have_attribute("aria-selected", "true")
        expect(tabs.and_(page.locator("[tabindex='0']"))).to_have_count(1)
    expect(page.get_by_role("tabpanel", name="Message").get_by_role("textbox")).to_have_count(1)
    expect(box(page, "Text")).to_be_visible()
    page.reload()
    expect(message).to_have_attribute("aria-selected", "true")
    code.click()
    expect(page.get_by_role("tabpanel", name="Code").get_by_label("Objective")).to_be_visible()


def test_the_form_is_drawn_from_what_the_server_says_of_the_kind(sluice: Sluice, page: Page) -> None:
    visit(page, sluice)
    objective, language = box(page, "Objective"), box(page, "Language")
    expect(objective).to_have_attribute("placeholder", "Create a function that sums up three numbers.")
    expect(objective).to_have_attribute("aria-required", "true")
    expect(objective).to_have_accessible_description("What the code should do.")
    expect(objective).to_have_value("")
    expect(language).not_to_have_attribute("aria-required", "true")
    expect(language).to_have_value("python")
    offered = language.evaluate("input => [...input.list.options].map(option => option.value)")
    assert offered[:3] == ["python", "javascript", "typescript"]
    assert "bash" in offered


def test_a_new_kind_has_its_form_without_a_change_of_the_page(sluice: Sluice, page: Page) -> None:
    offer_survey(page)
    visit(page, sluice)
    page.get_by_role("tab", name="Survey").click()
    expect(box(page, "Name")).to_have_attribute("type", "text")
    expect(box(page, "Name")).to_have_attribute("placeholder", "Ada")
    expect(box(page, "Name")).to_have_accessible_description("Whoever answers.")
    assert box(page, "About").evaluate("control => control.localName") == "textarea"
    age = composer(page).get_by_role("spinbutton", name="Age")
    assert [age.get_attribute(name) for name in ("min", "max", "step")] == ["1", "120", "1"]
    expect(age).to_have_value("30")
    expect(composer(page).get_by_role("spinbutton", name="Score")).to_have_value("")
    expect(composer(page).get_by_role("checkbox", name="News")).to_be_checked()
    mood = composer(page).get_by_role("combobox", name="Mood")
    expect(mood.get_by_role("option")).to_have_text(["good", "bad"])
    expect(mood).to_have_attribute("aria-required", "true")
    expect(composer(page).get_by_role("combobox", name="Size").get_by_role("option")).to_have_text(["—", "1", "2", "3"])
    expect(box(page, "Nick")).to_have_attribute("type", "text")
    expect(box(page, "Nick")).to_have_value("")
    expect(composer(page).locator("label", has_text="Nick")).to_contain_text("optional")
    expect(box(page, "Tags")).to_have_attribute("placeholder", '["one","two"]')


def test_a_choice_that_may_be_left_out_can_be_taken_back(sluice: Sluice, page: Page) -> None:
    offer_survey(page)
    visit(page, sluice)
    page.get_by_role("tab", name="Survey").click()
    feeling = composer(page).get_by_role("combobox", name="Feeling")
    expect(feeling.get_by_role("option")).to_have_text(["—", "good", "bad"])


def test_each_input_is_sent_as_what_it_is_and_blanks_are_left_out(sluice: Sluice, page: Page, noise: Noise) -> None:
    noise.allow()
    offer_survey(page)
    sent = refuse(page, ("tags.1", "must be shorter"), ("shoe", "is not a field here"))
    user = visit(page, sluice)
    page.get_by_role("tab", name="Survey").click()
    fill_survey(page)
    box(page, "Tags").fill('["a", ')
    page.keyboard.press("Control+Enter")
    expect(box(page, "Tags")).to_have_accessible_description("must be valid JSON")
    expect(box(page, "Tags")).to_be_focused()
    assert sent == []
    box(page, "Tags").fill('["a", 1]')
    box(page, "Score").fill("2.5")
    box(page, "Size").select_option("2")
    page.keyboard.press("Control+Enter")
    expect(problem(page)).to_have_text("shoe: is not a field here")
    expect(box(page, "Tags")).to_have_accessible_description("must be shorter")
    must = {"user_id": user, "kind": "survey", "name": "Grace", "about": "Two\nlines", "age": 30, "news": True}
    assert sent == [{**must, "mood": "bad", "score": 2.5, "size": 2, "tags": ["a", 1]}]
    for name in ("Tags", "Score", "Age"):
        box(page, name).fill("")
    box(page, "Size").select_option("—")
    box(page, "News").uncheck()
    page.keyboard.press("Control+Enter")
    expect(problem(page)).to_be_visible()
    assert sent[1:] == [{**{name: must[name] for name in must if name != "age"}, "news": False, "mood": "bad"}]


def test_a_number_that_is_none_is_refused_beside_its_field(sluice: Sluice, page: Page, noise: Noise) -> None:
    noise.allow()
    offer_survey(page)
    sent = refuse(page, ("name", "must be shorter"))
    visit(page, sluice)
    page.get_by_role("tab", name="Survey").click()
    fill_survey(page)
    box(page, "Score").press_sequentially("1e")
    page.keyboard.press("Control+Enter")
    expect(composer(page).locator("[aria-invalid=true]")).to_have_count(1)
    assert sent == []
    expect(box(page, "Score")).to_have_accessible_description("must be a number")


def test_blanks_are_not_sent_as_an_objective(sluice: Sluice, page: Page) -> None:
    user = visit(page, sluice)
    made = requests(page, ADD)
    objective = box(page, "Objective")
    objective.fill(" \n ")
    composer(page).get_by_role("button", name="Send").click()
    expect(objective).to_be_focused()
    expect(objective).to_have_attribute("aria-invalid", "true")
    expect(objective).to_have_accessible_description(re.compile("must not be blank"))
    assert made == []
    assert tasks_of(sluice, user) == []
    objective.press_sequentially("A")
    expect(objective).to_have_attribute("aria-invalid", "false")
    expect(objective).to_have_accessible_description("What the code should do.")


def test_what_the_server_refuses_is_said_beside_the_field_and_nothing_is_lost(
    sluice: Sluice, page: Page, noise: Noise
) -> None:
    noise.allow()
    user = visit(page, sluice)
    objective, language = box(page, "Objective"), box(page, "Language")
    objective.fill("Ring the bell\x07")
    language.fill("x" * 41)
    page.keyboard.press("Control+Enter")
    expect(objective).to_have_accessible_description(re.compile(r"control character \(U\+0007\)"))
    expect(language).to_have_accessible_description(re.compile("at most 40 characters"))
    for control in (objective, language):
        expect(control).to_have_attribute("aria-invalid", "true")
    expect(objective).to_be_focused()
    expect(objective).to_have_value("Ring the bell\x07")
    expect(language).to_have_value("x" * 41)
    objective.fill("Ring the bell")
    page.keyboard.press("Control+Enter")
    expect(language).to_be_focused()
    expect(objective).to_have_attribute("aria-invalid", "false")
    assert tasks_of(sluice, user) == []


def test_what_the_server_refuses_does_not_stay_in_the_list(sluice: Sluice, page: Page, noise: Noise) -> None:
    noise.allow()
    visit(page, sluice)
    box(page, "Language").fill("x" * 41)
    box(page, "Objective").fill("Ring the bell")
    page.keyboard.press("Control+Enter")
    expect(box(page, "Language")).to_be_focused()
    expect(rows(page)).to_have_count(0, timeout=3000)


def test_too_much_text_is_explained_and_kept(sluice: Sluice, page: Page, noise: Noise) -> None:
    noise.allow()
    user = visit(page, sluice)
    objective = box(page, "Objective")
    objective.fill("too much " * 7778)
    expect(composer(page)).to_contain_text("70,002 of 65,536 characters")
    page.keyboard.press("Control+Enter")
    expect(problem(page).or_(composer(page).locator(".field-error:not(:empty)"))).to_contain_text("64 KiB")
    expect(objective).to_have_value("too much " * 7778)
    assert tasks_of(sluice, user) == []


def test_a_sent_task_is_in_the_list_at_once_and_opens(sluice: Sluice, page: Page) -> None:
    user = visit(page, sluice, query="?status=completed")
    held: list[Route] = []
    page.route(ADD, lambda route: held.append(route))
    box(page, "Language").fill("javascript")
    box(page, "Objective").fill("Convert an integer to Roman numerals.\nUp to 3999.")
    page.keyboard.press("Control+Enter")
    expect(row(page, "Sending…")).to_contain_text("Convert an integer to Roman numerals.")
    expect(page).to_have_url(f"{sluice.url}/")
    soon(page, lambda: held)
    held[0].continue_()
    expect(page).to_have_url(re.compile(r"/\?task=[0-9a-f]{32}$"))
    (task,) = tasks_of(sluice, user)
    assert page.url.endswith(task["_id"])
    assert (task["objective"], task["language"]) == (
        "Convert an integer to Roman numerals.\nUp to 3999.",
        "javascript",
    )
    expect(rows(page)).to_have_count(1)
    expect(rows(page).get_by_role("link")).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("heading", name="Convert an integer to Roman numerals.")).to_be_visible()
    expect(box(page, "Objective")).to_have_value("")
    expect(box(page, "Language")).to_have_value("javascript")
    expect(row(page, "Completed")).to_have_count(1)
    expect(chip(page, "All")).to_have_attribute("aria-current", "true")


def test_both_keys_send_and_each_task_has_a_key_of_its_own(sluice: Sluice, page: Page) -> None:
    user = visit(page, sluice)
    made = requests(page, ADD)
    page.get_by_role("tab", name="Message").click()
    for number, keys in enumerate(["Control+Enter", "Meta+Enter"], 1):
        box(page, "Text").fill(f"by {keys}")
        page.keyboard.press(keys)
        page.keyboard.press(keys)
        expect(row(page, f"by {keys}")).to_contain_text("Completed")
        expect(box(page, "Text")).to_have_value("")
        expect(rows(page)).to_have_count(number)
    box(page, "Text").fill("by the button")
    composer(page).get_by_role("button", name="Send").dblclick()
    expect(row(page, "by the button")).to_contain_text("Completed")
    texts = ["by the button", "by Meta+Enter", "by Control+Enter"]
    assert [task["text"] for task in tasks_of(sluice, user)] == texts
    own = [request.headers.get("idempotency-key", "") for request in made]
    assert len(set(own)) == 3
    assert min(map(len, own)) >= 16


def test_what_is_typed_survives_a_reload(sluice: Sluice, page: Page) -> None:
    visit(page, sluice)
    box(page, "Objective").fill("Half a sent")
    box(page, "Language").fill("go")
    page.get_by_role("tab", name="Message").click()
    box(page, "Text").press_sequentially("Hel")
    page.reload()
    expect(box(page, "Text")).to_have_value("Hel")
    page.get_by_role("tab", name="Code").click()
    expect(box(page, "Objective")).to_have_value("Half a sent")
    expect(box(page, "Language")).to_have_value("go")
    expect(box(page, "Objective")).to_have_attribute("aria-invalid", "false")
