"""Whatever people and models write is text."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route

from tests.web.actors import ADD, KINDS, expect, newcomer, problem, rows, status, visit
from tests.web.noise import Noise
from tests.web.sluices import ClusterSluice, Sluice

Open = Callable[..., Page]

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned';window.owned=1\">"
FAMILY = "👩‍👩‍👧‍👦"
LINE_OF_60_KB = "ha" * 30_000

TEXTS = {
    "script": SCRIPT,
    "end of code": f"</pre></code></textarea></title></script>{SCRIPT}",
    "urls": "javascript:window.owned=1 data:text/html,<script>window.owned=1</script>",
    "right to left": "مرحبا بالعالم 123 \u202eabc\u202c עולם",
    "emoji": f"{FAMILY} 🏳️‍🌈 e\u0301 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L",
    "one line": LINE_OF_60_KB,
    "many lines": "\n".join(f"line {number:04} of many" for number in range(3000)),
    "template": "${window.owned=1} {{constructor}} %s %27 \\u003cb\\u003e &lt;b&gt; &amp;",
}

USER = """<b onclick="window.owned=1">&?#%'"</b>/../+ ü"""


def assert_harmless(page: Page) -> None:
    assert page.title() != "owned"
    assert page.evaluate("typeof window.owned") == "undefined"
    assert page.locator("img:not([src*='icon.svg']), iframe, #pane script, #list script, [onclick]").count() == 0


def assert_fits(page: Page) -> None:
    """Nobody has to scroll sideways, but within a box of code."""
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") <= 0
    wide = """() => [...document.querySelectorAll('.desk, .pane, .list, .task')]
        .filter(box => box.checkVisibility() && box.scrollWidth > box.clientWidth + 1).map(box => box.className)"""
    assert page.evaluate(wide) == []


def shown_text(page: Page) -> str:
    return str(page.locator(".source .line").evaluate_all("lines => lines.map(line => line.textContent).join('')"))


@pytest.mark.parametrize("width", [360, 1280])
def test_what_people_write_is_shown_as_they_wrote_it(sluice: Sluice, open_page: Open, width: int) -> None:
    user = f"{USER}{newcomer()}"
    tasks = {name: sluice.add(user, kind="message", text=text) for name, text in TEXTS.items()}
    for task in tasks.values():
        sluice.done(task)
    page = open_page(viewport={"width": width, "height": 740})
    visit(page, sluice, user)
    expect(page.locator("#who-name")).to_have_text(user)
    expect(rows(page)).to_have_count(len(TEXTS))
    expect(rows(page).locator(".title")).to_have_text([sluice_title(text) for text in reversed(TEXTS.values())])
    assert_harmless(page)
    assert_fits(page)
    for name, task in tasks.items():
        page.locator(f"#list a[href*='{task}']").click()
        expect(status(page)).to_have_text("Completed")
        expect(page.locator(".task-title")).to_have_text(sluice_title(TEXTS[name]))
        expect(page.locator(".source .line").first).to_be_attached()
        assert shown_text(page) == TEXTS[name]
        page.get_by_text("Inputs and details").click()
        assert page.locator(".input").text_content() == TEXTS[name]
        assert page.title().startswith("Completed: ")
        assert_harmless(page)
        assert_fits(page)
        page.go_back()


def sluice_title(text: str) -> str:
    return text.splitlines()[0][:200]


def test_what_models_answer_is_shown_as_they_answered(sluice: ClusterSluice, page: Page) -> None:
    fence = "`" * 4
    answers = {name: f"{fence}html\n{text}\n{fence}" for name, text in TEXTS.items()}
    sluice.model.script(
        [
            *({"match": f"answer with {name}$", "answer": answer} for name, answer in answers.items()),
            {"match": "fail", "fault": "status", "status": 400, "message": SCRIPT, "code": SCRIPT},
        ]
    )
    user = visit(page, sluice)
    tasks = {name: sluice.add(user, objective=f"answer with {name}", language="html") for name in answers}
    failed = sluice.add(user, objective="fail")
    for name, task in tasks.items():
        code = sluice.done(task)["code"]
        assert code.strip() == TEXTS[name]
        page.goto(f"{sluice.url}/?task={task}")
        expect(status(page)).to_have_text("Completed")
        expect(page.locator(".source .line").first).to_be_attached()
        assert shown_text(page) == code
        expect(page.locator(".language")).to_have_text("html")
        if "<" in code:
            expect(page.locator(".source [class*=hl-]").first).to_be_attached()
        assert shown_text(page) == code
        assert_harmless(page)
        assert_fits(page)
    message = sluice.done(failed)["error"]["message"]
    page.goto(f"{sluice.url}/?task={failed}")
    expect(page.locator("article .state")).to_contain_text(message)
    assert_harmless(page)


def test_what_the_server_says_is_text_too(sluice: Sluice, page: Page, noise: Noise) -> None:
    noise.allow()

    def add_kind(route: Route) -> None:
        answer = route.fetch()
        kinds = answer.json()["kinds"]
        kinds[0]["title"] = SCRIPT
        kinds[0]["inputs"]["properties"]["objective"].update(title=SCRIPT, description=SCRIPT, examples=[SCRIPT])
        kinds[0]["inputs"]["examples"][0]["objective"] = SCRIPT
        route.fulfill(response=answer, json={"kinds": kinds})

    def refuse(route: Route) -> None:
        refusal = {"title": SCRIPT, "status": 400, "detail": SCRIPT}
        if route.request.post_data_json["objective"] == "by field":
            refusal["errors"] = [{"field": "objective", "message": SCRIPT}, {"field": SCRIPT, "message": SCRIPT}]
        headers = {"content-type": "application/problem+json"}
        route.fulfill(status=400, headers=headers, body=json.dumps(refusal))

    page.route(KINDS, add_kind)
    page.route(ADD, refuse)
    visit(page, sluice)
    expect(page.get_by_role("tab").first).to_have_text(SCRIPT)
    expect(page.locator(".example-text").first).to_have_text(SCRIPT)
    objective = page.locator("#input-code-objective")
    for words in ("in general", "by field"):
        objective.fill(words)
        page.get_by_role("button", name="Send", exact=True).click()
        expect(problem(page)).to_contain_text(SCRIPT)
    expect(page.locator("#input-code-objective-error")).to_have_text(SCRIPT)
    assert_harmless(page)
    assert_fits(page)
