"""GET /tasks/get: a user's tasks page by page, how they stand, one task, the kinds; and what need not be sent again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest

from sluice import service
from sluice.kinds import MAX_INPUT_BYTES, kinds
from sluice.services import install
from sluice.task import PUBLIC_FIELDS, STATUSES, utc_now
from tests.functions.conftest import Sluice, bad_fields, problem_of

NOBODY = "0" * 32


def walk(sluice: Sluice, **query: Any) -> list[str]:
    """The ids of all pages."""
    ids, cursor = [], None
    while True:
        page = sluice.list(**query, **({} if cursor is None else {"cursor": cursor})).get_json()
        ids += [task["_id"] for task in page["tasks"]]
        cursor = page["next"]
        if cursor is None:
            return ids


# --- lists -----------------------------------------------------------------------------------------------------------


def test_a_user_without_tasks_has_an_empty_list(sluice: Sluice) -> None:
    response = sluice.list()
    assert response.status_code == HTTPStatus.OK
    assert response.content_type == "application/json"
    assert response.get_json() == {"tasks": [], "next": None}


def test_a_list_shows_whole_tasks_newest_first_of_one_user_only(sluice: Sluice) -> None:
    now = utc_now()
    ages = [30, 10, 20]
    tasks = [sluice.given(created_at=now - timedelta(seconds=age)) for age in ages]
    sluice.given(user_id="bob", created_at=now)
    page = sluice.list().get_json()
    assert page == {"tasks": [tasks[1].to_json(), tasks[2].to_json(), tasks[0].to_json()], "next": None}


def test_bookkeeping_is_not_in_lists(sluice: Sluice) -> None:
    sluice.start(sluice.add().get_json()["_id"])
    [task] = sluice.list().get_json()["tasks"]
    assert task["status"] == "running"
    assert {"engine", "lease_until", "crashes", "failures", "swept_at"}.isdisjoint(task)


def test_pages_together_are_the_whole_list(sluice: Sluice) -> None:
    now = utc_now()
    ids = [sluice.given(created_at=now - timedelta(seconds=age)).id for age in range(7)]
    for limit in (1, 2, 3, 6, 7, 8):
        assert walk(sluice, limit=limit) == ids


def test_a_full_page_that_is_the_last_says_so(sluice: Sluice) -> None:
    sluice.given()
    sluice.given()
    assert sluice.list(limit=2).get_json()["next"] is None
    assert sluice.list(limit=1).get_json()["next"] is not None


def test_tasks_of_the_same_moment_are_all_listed_once(sluice: Sluice) -> None:
    now = utc_now()
    ids = {sluice.given(created_at=now).id for _ in range(9)}
    walked = walk(sluice, limit=2)
    assert len(walked) == 9
    assert set(walked) == ids


@pytest.mark.parametrize("same_moment", [False, True])
def test_tasks_that_are_added_between_pages_shift_nothing(sluice: Sluice, same_moment: bool) -> None:
    now = utc_now()
    step = timedelta(0) if same_moment else timedelta(milliseconds=1)
    before = {sluice.given(created_at=now - number * step).id for number in range(6)}
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = sluice.list(limit=2, **cursor).get_json()
        seen += [task["_id"] for task in page["tasks"]]
        for number in range(3):
            sluice.given(created_at=now + timedelta(seconds=1 + number))
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert len(seen) == len(set(seen)), "no task twice"
    assert set(seen) == before, "none left out, and none that came later"


def test_a_cursor_goes_on_after_its_task_is_gone(sluice: Sluice) -> None:
    now = utc_now()
    tasks = [sluice.given(created_at=now - timedelta(seconds=age)) for age in range(4)]
    cursor = sluice.list(limit=2).get_json()["next"]
    sluice.database.get_collection("tasks").delete_one({"_id": tasks[1].id})
    rest = sluice.list(limit=2, cursor=cursor).get_json()["tasks"]
    assert [task["_id"] for task in rest] == [tasks[2].id, tasks[3].id]


def test_a_list_can_be_of_one_kind_one_status_or_both(sluice: Sluice) -> None:
    code, message = sluice.given(status="failed"), sluice.given(kind="message", status="failed")
    done = sluice.given(status="completed")
    assert set(walk(sluice)) == {code.id, message.id, done.id}
    assert walk(sluice, kind="message") == [message.id]
    assert walk(sluice, status="completed") == [done.id]
    assert walk(sluice, kind="code", status="failed") == [code.id]
    assert walk(sluice, status="cancelled") == []


def test_filters_hold_on_every_page(sluice: Sluice) -> None:
    now = utc_now()
    statuses = ["failed", "pending"] * 4
    tasks = [sluice.given(status=status, created_at=now - timedelta(seconds=n)) for n, status in enumerate(statuses)]
    assert walk(sluice, status="failed", limit=1) == [task.id for task in tasks if task.status == "failed"]


def test_a_page_has_50_tasks_if_nothing_else_is_said(sluice: Sluice) -> None:
    for _ in range(51):
        sluice.given()
    page = sluice.list().get_json()
    assert len(page["tasks"]) == 50
    assert page["next"]


@pytest.mark.parametrize("limit", ["0", "-1", "9999", "abc", "", "1.5", "9" * 400])
def test_an_absurd_limit_is_refused_by_name(sluice: Sluice, limit: str) -> None:
    assert bad_fields(sluice.list(limit=limit)) == ["limit"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!!!", "AAAA", "é", "MTIz", "\x00", "a" * 5000, "OTk5OTk5OTk5OTk5OTk5OjA="]
)
def test_a_broken_cursor_is_refused_by_name(sluice: Sluice, cursor: str) -> None:
    assert bad_fields(sluice.list(cursor=cursor)) == ["cursor"]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("kind", "poem"), ("status", "done"), ("view", "short"), ("page", "2"), ("user_id", ""), ("user_id", "\x00")],
)
def test_a_bad_parameter_is_refused_by_name(sluice: Sluice, parameter: str, value: str) -> None:
    assert bad_fields(sluice.list(**{parameter: value})) == [parameter]


def test_every_bad_parameter_is_named(sluice: Sluice) -> None:
    response = sluice.getting.get("/tasks/get?limit=0&status=x&page=2")
    assert bad_fields(response) == ["limit", "page", "status", "user_id"]


def test_a_page_of_long_texts_ends_sooner_and_the_next_one_goes_on(sluice: Sluice) -> None:
    now = utc_now()
    text = "x" * MAX_INPUT_BYTES
    tasks = [sluice.given(objective=text, created_at=now - timedelta(seconds=age)) for age in range(70)]
    full = sluice.list(limit=70).get_json()
    assert len(full["tasks"]) == service.MAX_PAGE_BYTES // len(text) - 1, "beside the texts they have names and such"
    assert walk(sluice, limit=70) == [task.id for task in tasks]
    page = sluice.list(limit=70, view="summary")
    assert (len(page.get_json()["tasks"]), page.get_json()["next"]) == (70, None), "summaries hold no long texts"
    assert len(page.data) < service.MAX_PAGE_BYTES


# --- summaries -------------------------------------------------------------------------------------------------------


def test_a_summary_has_a_title_but_no_steps_inputs_and_outputs(sluice: Sluice) -> None:
    task = sluice.given(objective="\n  Sum up.  \nAnd more.", code="def f(): ...", steps=[{"name": "think"}])
    shown = {name: value for name, value in task.to_json().items() if name in PUBLIC_FIELDS - {"steps"}}
    assert sluice.list(view="summary").get_json() == {"tasks": [{**shown, "title": "Sum up."}], "next": None}
    assert sluice.list(view="full").get_json() == {"tasks": [task.to_json()], "next": None}


def test_for_summaries_no_outputs_are_read(sluice: Sluice, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    page = sluice.store.page
    monkeypatch.setattr(sluice.store, "page", lambda *args, **more: read.extend(more["fields"]) or page(*args, **more))
    sluice.given()
    assert sluice.list(view="summary").get_json()["tasks"][0]["title"] == "Add."
    assert {name for kind in kinds().values() for name in kind.inputs.model_fields} <= set(read)
    assert {name for kind in kinds().values() for name in kind.outputs.model_fields}.isdisjoint(read)
    assert "steps" not in read


def test_a_task_of_a_kind_that_is_no_more_has_a_summary_without_a_title(sluice: Sluice) -> None:
    sluice.given(kind="poem", text="Ode to Joy")
    [summary] = sluice.list(view="summary").get_json()["tasks"]
    assert (summary["kind"], summary["title"]) == ("poem", "")


def test_summaries_are_paged_and_filtered_as_tasks_are(sluice: Sluice) -> None:
    now = utc_now()
    statuses = ["failed", "pending"] * 4
    tasks = [sluice.given(status=status, created_at=now - timedelta(seconds=n)) for n, status in enumerate(statuses)]
    sluice.given(kind="message", user_id="bob")
    assert walk(sluice, view="summary", limit=3) == [task.id for task in tasks]
    assert walk(sluice, view="summary", kind="code", status="failed", limit=1) == [task.id for task in tasks[::2]]
    cursor = sluice.list(limit=3).get_json()["next"]
    rest = sluice.list(view="summary", cursor=cursor).get_json()["tasks"]
    assert [task["_id"] for task in rest] == [task.id for task in tasks[3:]], "one cursor for both views"


# --- the overview ----------------------------------------------------------------------------------------------------


def overview(sluice: Sluice, **query: str) -> Any:
    response = sluice.getting.get("/tasks/get/overview", query_string={"user_id": "ada", **query})
    assert response.status_code == HTTPStatus.OK
    return response.get_json()


def test_an_overview_counts_a_users_tasks_and_everybodys_engines(sluice: Sluice) -> None:
    assert overview(sluice) == {"tasks": dict.fromkeys(STATUSES, 0), "engines": 0, "stand_ins": {}}
    for number, status in enumerate(STATUSES):
        for _ in range(number):
            sluice.given(status=status)
    sluice.start(sluice.add(user_id="bob").get_json()["_id"])
    counts = {"pending": 0, "running": 1, "completed": 2, "failed": 3, "cancelled": 4}
    assert overview(sluice) == {"tasks": counts, "engines": 1, "stand_ins": {}}, "a task of ada's has no engine now"
    assert overview(sluice, user_id="bob")["tasks"] == {**dict.fromkeys(STATUSES, 0), "running": 1}


def test_an_overview_does_not_count_for_ever(sluice: Sluice, monkeypatch: pytest.MonkeyPatch) -> None:
    assert service.MAX_COUNT == 10_000
    monkeypatch.setattr(service, "MAX_COUNT", 3)
    for _ in range(5):
        sluice.given()
    assert overview(sluice)["tasks"]["pending"] == 3


def test_an_overview_says_what_is_not_the_real_thing(sluice: Sluice) -> None:
    stand_ins = {"model": "offline model (set OPENAI_API_KEY for a real one)"}
    install(replace(sluice.services, stand_ins=stand_ins))
    assert overview(sluice)["stand_ins"] == stand_ins


@pytest.mark.parametrize(
    ("query", "bad"),
    [({}, ["user_id"]), ({"user_id": " "}, ["user_id"]), ({"user_id": "ada", "status": "failed"}, ["status"])],
)
def test_a_bad_parameter_of_an_overview_is_refused_by_name(
    sluice: Sluice, query: dict[str, str], bad: list[str]
) -> None:
    assert bad_fields(sluice.getting.get("/tasks/get/overview", query_string=query)) == bad


def test_an_overview_of_two_users_at_once_is_refused(sluice: Sluice) -> None:
    assert bad_fields(sluice.getting.get("/tasks/get/overview?user_id=ada&user_id=bob")) == ["user_id"]


def test_an_overview_has_another_etag_when_a_task_moves_on(sluice: Sluice) -> None:
    task_id = sluice.add().get_json()["_id"]
    path = "/tasks/get/overview?user_id=ada"
    headers = {"If-None-Match": sluice.getting.get(path).headers["ETag"]}
    assert sluice.getting.get(path, headers=headers).status_code == HTTPStatus.NOT_MODIFIED
    sluice.start(task_id)
    assert sluice.getting.get(path, headers=headers).get_json()["tasks"]["running"] == 1


# --- one task --------------------------------------------------------------------------------------------------------


def test_a_task_is_shown_as_it_is_now_without_bookkeeping(sluice: Sluice) -> None:
    task = sluice.add().get_json()
    assert sluice.get(task["_id"]).get_json() == task
    running = sluice.start(task["_id"])
    shown = sluice.get(task["_id"]).get_json()
    assert (shown["status"], shown["attempts"]) == ("running", 1)
    assert shown == running.to_json()
    assert "engine" not in shown


@pytest.mark.parametrize(
    "task_id",
    [NOBODY, "x", "7", NOBODY[:-1], NOBODY + "0", "A" * 32, "%00", "%ff", "null", "$ne", "a" * 3000, "..", "%20"],
)
def test_a_task_that_is_not_there_is_not_found_and_neither_is_what_is_no_id(sluice: Sluice, task_id: str) -> None:
    problem_of(sluice.get(task_id), HTTPStatus.NOT_FOUND)


# --- the kinds -------------------------------------------------------------------------------------------------------


def test_the_kinds_are_listed_with_their_inputs_as_json_schema(sluice: Sluice) -> None:
    response = sluice.getting.get("/tasks/get/kinds")
    assert response.status_code == HTTPStatus.OK
    shown = {kind["kind"]: kind for kind in response.get_json()["kinds"]}
    assert shown.keys() == kinds().keys()
    inputs = shown["code"]["inputs"]
    assert inputs["required"] == ["objective"]
    assert inputs["properties"]["language"]["default"] == "python"
    assert shown["code"]["title"]
    assert "code" in shown["code"]["outputs"]["properties"]


# --- what need not be sent again -------------------------------------------------------------------------------------


@pytest.fixture
def path(sluice: Sluice, request: pytest.FixtureRequest) -> str:
    path: str = request.param
    return path.replace("<id>", sluice.add().get_json()["_id"])


EVERY_PATH = pytest.mark.parametrize(
    "path",
    [
        "/tasks/get?user_id=ada",
        "/tasks/get?user_id=ada&view=summary",
        "/tasks/get/overview?user_id=ada",
        "/tasks/get/<id>",
        "/tasks/get/kinds",
        "/tasks/get/openapi.json",
    ],
    indirect=True,
)


@EVERY_PATH
def test_what_has_not_changed_is_not_sent_again(sluice: Sluice, path: str) -> None:
    first = sluice.getting.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    etag = first.headers["ETag"]
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = sluice.getting.get(path, headers={"If-None-Match": known})
        assert again.status_code == HTTPStatus.NOT_MODIFIED
        assert again.data == b""
        assert again.headers["ETag"] == etag
        assert again.headers["Cache-Control"] == "no-cache"


@EVERY_PATH
def test_what_the_caller_does_not_have_is_sent(sluice: Sluice, path: str) -> None:
    response = sluice.getting.get(path, headers={"If-None-Match": '"other"'})
    assert response.status_code == HTTPStatus.OK
    assert response.get_json()


@EVERY_PATH
def test_head_says_what_get_would_without_the_body(sluice: Sluice, path: str) -> None:
    full = sluice.getting.get(path)
    head = sluice.getting.head(path)
    assert head.status_code == HTTPStatus.OK
    assert head.data == b""
    for name in ("ETag", "Content-Type", "Content-Length", "Cache-Control"):
        assert head.headers[name] == full.headers[name]


def test_head_of_a_task_that_is_not_there_is_not_found(sluice: Sluice) -> None:
    response = sluice.getting.head(f"/tasks/get/{NOBODY}")
    assert response.status_code == HTTPStatus.NOT_FOUND
    assert response.data == b""


def test_a_changed_task_has_another_etag_alone_and_in_its_list(sluice: Sluice) -> None:
    task_id = sluice.add().get_json()["_id"]
    alone, listed = sluice.get(task_id).headers["ETag"], sluice.list().headers["ETag"]
    sluice.start(task_id)
    again = sluice.get(task_id, **{"If-None-Match": alone})
    assert again.status_code == HTTPStatus.OK
    assert again.get_json()["status"] == "running"
    assert again.headers["ETag"] != alone
    assert sluice.list().headers["ETag"] != listed


def test_an_error_is_never_kept(sluice: Sluice) -> None:
    assert sluice.get(NOBODY).headers["Cache-Control"] == "no-store"
    assert sluice.list(limit=0).headers["Cache-Control"] == "no-store"
