"""The page comes up in a browser, quietly, however it is served."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.waiting import eventually
from tests.web.noise import Noise
from tests.web.sluices import Sluice, both


@both
def test_the_page_loads_and_complains_of_nothing(sluice: Sluice, page: Page) -> None:
    answer = page.goto(f"{sluice.url}/")
    assert answer is not None
    assert answer.status == 200
    expect(page).to_have_title("Sluice")
    expect(page.locator("main")).to_be_visible()
    page.wait_for_load_state("networkidle")


@both
def test_the_functions_answer_on_the_same_origin(sluice: Sluice) -> None:
    task = sluice.add("ada")
    assert sluice.done(task)["status"] == "completed"
    assert sluice.get("/tasks/get", params={"user_id": "ada"}).json()["tasks"][0]["_id"] == task


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("document.head.append(Object.assign(document.createElement('style'), {textContent: 'b {}'}))", "style-src"),
        ("try { document.body.innerHTML = '<b>' } catch {}", "trusted-types"),
        ("setTimeout(() => { throw new Error('oh') })", "not caught: Error: oh"),
        ("void Promise.reject(new Error('no'))", "not caught: Error: no"),
        ("console.warn('hm')", "warning: hm"),
        ("void fetch('/nowhere')", "Failed to load resource"),
        ("void fetch('http://127.0.0.1:9/').catch(() => 0)", "connect-src"),
    ],
    ids=["style", "markup", "error", "rejection", "warning", "not found", "elsewhere"],
)
def test_what_the_page_does_wrong_is_heard_of(
    sluice: Sluice, page: Page, noise: Noise, script: str, words: str
) -> None:
    page.goto(f"{sluice.url}/")
    page.evaluate(f"() => {{ {script} }}")

    def heard() -> list[str]:
        page.wait_for_timeout(10)  # events come only while Playwright waits
        return [complaint for complaint in noise.unexpected() if words in complaint]

    eventually(heard, what=words)
    noise.allow(f"CSP|Content Security Policy|TrustedHTML|{words}")
