"""POST /tasks/add: what is accepted, and how every other body is refused."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest
from werkzeug.test import TestResponse

from sluice.http import MAX_BODY_BYTES
from sluice.task import Task
from tests.functions.conftest import Sluice, bad_fields, moment, problem_of

GOOD = {"user_id": "ada", "objective": "Add."}


def post(sluice: Sluice, body: bytes, content_type: str | None = "application/json", **options: Any) -> TestResponse:
    return sluice.adding.post("/tasks/add", data=body, content_type=content_type, **options)


# --- accepted --------------------------------------------------------------------------------------------------------


def test_a_task_is_accepted_with_its_place_and_its_whole_document(sluice: Sluice) -> None:
    response = sluice.adding.post(
        "/tasks/add",
        json={
            "user_id": "ada",
            "objective": "Create a function that sums up three numbers.",
            "language": "python",
        },
    )
    assert response.status_code == HTTPStatus.ACCEPTED
    assert response.content_type == "application/json"
    task = response.get_json()
    assert response.headers["Location"] == f"/tasks/get/{task['_id']}"
    assert response.headers["Cache-Control"] == "no-store"
    created_at = moment(task["created_at"])
    assert abs(datetime.now(UTC) - created_at) < timedelta(minutes=1)
    assert moment(task["deadline"]) == created_at + timedelta(minutes=5)
    assert task == {
        "_id": task["_id"],
        "user_id": "ada",
        "kind": "code",
        "objective": "Create a function that sums up three numbers.",
        "language": "python",
        "created_at": task["created_at"],
        "queued_at": task["created_at"],
        "started_at": None,
        "completed_at": None,
        "deadline": task["deadline"],
        "retry_at": None,
        "status": "pending",
        "progress": 0,
        "steps": [],
        "attempts": 0,
        "error": None,
        "code": "",
        "model": None,
        "usage": None,
    }


def test_the_place_of_an_accepted_task_leads_to_it(sluice: Sluice) -> None:
    response = sluice.add()
    assert sluice.getting.get(response.headers["Location"]).get_json() == response.get_json()


def test_an_accepted_task_is_whole_in_the_queue_and_in_the_database(sluice: Sluice) -> None:
    task = sluice.add().get_json()
    [message] = sluice.messages()
    assert message.id == task["_id"]
    assert Task.from_message(message.body).to_json() == task
    stored = sluice.stored(task["_id"])
    assert stored is not None
    assert stored.to_json() == task


def test_a_form_is_as_good_as_json(sluice: Sluice) -> None:
    response = sluice.adding.post(
        "/tasks/add", data={"user_id": "ada", "objective": "Grüße: a+b & c", "language": "go"}
    )
    assert response.status_code == HTTPStatus.ACCEPTED
    task = response.get_json()
    assert (task["user_id"], task["objective"], task["language"]) == ("ada", "Grüße: a+b & c", "go")


def test_a_task_of_another_kind_has_that_kinds_fields(sluice: Sluice) -> None:
    response = sluice.adding.post("/tasks/add", json={"user_id": "ada", "kind": "message", "text": "Hello."})
    assert response.status_code == HTTPStatus.ACCEPTED
    task = response.get_json()
    assert (task["kind"], task["text"], task["message"]) == ("message", "Hello.", "")
    assert "objective" not in task
    assert "code" not in task


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"])
def test_json_is_read_under_all_of_its_names(sluice: Sluice, content_type: str) -> None:
    assert post(sluice, json.dumps(GOOD).encode(), content_type).status_code == HTTPStatus.ACCEPTED


def test_the_request_id_and_the_trace_travel_with_the_message(sluice: Sluice) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sluice.adding.post("/tasks/add", json=GOOD, headers={"X-Request-Id": "req-1", "traceparent": trace})
    assert sluice.messages()[0].headers == {"x-request-id": "req-1", "traceparent": trace}


def test_a_request_id_that_is_made_here_travels_and_a_trace_that_is_none_does_not(sluice: Sluice) -> None:
    response = sluice.adding.post(
        "/tasks/add", json=GOOD, headers={"X-Request-Id": "two words", "traceparent": "00-nothing"}
    )
    assert sluice.messages()[0].headers == {"x-request-id": response.headers["X-Request-Id"]}


def test_a_text_of_64_kib_is_accepted(sluice: Sluice) -> None:
    for text in ("x" * 65536, "a\n" * 32768, "é" * 32768):
        response = sluice.adding.post("/tasks/add", json={"user_id": "ada", "kind": "message", "text": text})
        assert response.status_code == HTTPStatus.ACCEPTED
        assert response.get_json()["text"] == text


# --- refused: the fields ---------------------------------------------------------------------------------------------


def test_every_bad_field_is_named(sluice: Sluice) -> None:
    response = sluice.adding.post(
        "/tasks/add", json={"user_id": "a\x00", "objective": " ", "language": 7, "colour": "red"}
    )
    assert bad_fields(response) == ["colour", "language", "objective", "user_id"]
    assert sluice.is_empty()


def test_every_bad_field_of_a_form_is_named(sluice: Sluice) -> None:
    response = sluice.adding.post("/tasks/add", data={"objective": "", "colour": "red"})
    assert bad_fields(response) == ["colour", "objective", "user_id"]


@pytest.mark.parametrize("kind", ["poem", "", None, 7, [], {}, ["code"]])
def test_an_unknown_kind_is_refused_with_the_kinds_that_there_are(sluice: Sluice, kind: object) -> None:
    response = sluice.add(kind=kind)
    assert bad_fields(response) == ["kind"]
    assert "code" in response.get_json()["errors"][0]["message"]


@pytest.mark.parametrize("field", ["user_id", "objective", "language"])
@pytest.mark.parametrize("text", ["a\x00b", "a\x1bb", "a\x7fb", "a\u0085b", "a\ud800b"])
def test_what_no_text_may_hold_is_refused_by_name(sluice: Sluice, field: str, text: str) -> None:
    assert bad_fields(post(sluice, json.dumps({**GOOD, field: text}).encode())) == [field]
    assert sluice.is_empty()


def test_a_field_whose_name_is_no_text_is_refused(sluice: Sluice) -> None:
    problem_of(post(sluice, b'{"user_id":"ada","objective":"Add.","\\ud800":1}'), HTTPStatus.BAD_REQUEST)


@pytest.mark.parametrize("value", [None, 7, 1.5, True, [], {}, 10**300])
@pytest.mark.parametrize("field", ["user_id", "objective", "language"])
def test_a_value_of_the_wrong_type_is_refused_by_name(sluice: Sluice, field: str, value: object) -> None:
    assert bad_fields(sluice.add(**{field: value})) == [field]


def test_form_fields_that_are_given_twice_are_refused_by_name(sluice: Sluice) -> None:
    body = b"user_id=ada&objective=Add.&user_id=bob&language=go&language=c"
    assert bad_fields(post(sluice, body, "application/x-www-form-urlencoded")) == ["language", "user_id"]


# --- refused: the body -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"hello",
        b"{'user_id': 'ada'}",
        b'{"user_id": "ada",}',
        b'{"user_id": NaN}',
        b'{"user_id": Infinity}',
        b'{"user_id": -Infinity}',
        b"NaN",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"user_id":' + b"9" * 5000 + b"}",
        b"9" * 5000,
        b"\xff\xfe",
        b'{"user_id": "\x80"}',
        b'{"user_id": "a\x00b"}',
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_is_no_json_is_refused(sluice: Sluice, body: bytes) -> None:
    assert "JSON" in problem_of(post(sluice, body), HTTPStatus.BAD_REQUEST)["detail"]
    assert sluice.is_empty()


@pytest.mark.parametrize("body", [b"[]", b'[{"user_id":"ada"}]', b'"ada"', b"null", b"7", b"true"])
def test_json_that_is_no_object_is_refused(sluice: Sluice, body: bytes) -> None:
    assert "object" in problem_of(post(sluice, body), HTTPStatus.BAD_REQUEST)["detail"]


def test_an_empty_object_and_an_empty_form_name_what_is_missing(sluice: Sluice) -> None:
    assert bad_fields(post(sluice, b"{}")) == ["objective", "user_id"]
    assert bad_fields(post(sluice, b"", "application/x-www-form-urlencoded")) == ["objective", "user_id"]


@pytest.mark.parametrize("content_type", ["text/plain", "text/json", "application/xml", "multipart/form-data", "x", ""])
def test_another_content_type_is_refused(sluice: Sluice, content_type: str) -> None:
    problem_of(post(sluice, json.dumps(GOOD).encode(), content_type), HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


@pytest.mark.parametrize("body", [json.dumps(GOOD).encode(), b""])
def test_a_body_without_a_content_type_is_refused(sluice: Sluice, body: bytes) -> None:
    problem_of(post(sluice, body, None), HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


# --- refused: the size -----------------------------------------------------------------------------------------------

TOO_LONG = b"x" * (MAX_BODY_BYTES + 1)


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_a_body_over_the_limit_is_refused(sluice: Sluice, content_type: str) -> None:
    problem_of(post(sluice, TOO_LONG, content_type), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    assert sluice.is_empty()


def test_a_body_over_the_limit_that_does_not_say_its_length_is_refused(sluice: Sluice) -> None:
    response = sluice.adding.post(
        "/tasks/add",
        input_stream=io.BytesIO(TOO_LONG),
        content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True},
    )
    problem_of(response, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def test_a_body_over_the_limit_is_read_so_that_the_answer_can_be_seen(sluice: Sluice) -> None:
    stream = io.BytesIO(TOO_LONG)
    sluice.adding.post(
        "/tasks/add",
        input_stream=stream,
        content_type="application/json",
        headers={"Content-Length": str(len(TOO_LONG))},
    )
    assert stream.read() == b""


@pytest.mark.parametrize("text", ["x" * 65537, "x" * 100_000, "é" * 40_000, "\n" * 65536 + "x"])
def test_a_text_over_64_kib_is_refused(sluice: Sluice, text: str) -> None:
    response = sluice.adding.post("/tasks/add", json={"user_id": "ada", "kind": "message", "text": text})
    assert "64 KiB" in problem_of(response, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)["detail"]
    assert sluice.is_empty()


def test_a_form_with_a_text_over_64_kib_is_refused(sluice: Sluice) -> None:
    response = sluice.adding.post("/tasks/add", data={"user_id": "ada", "objective": "x" * 100_000})
    problem_of(response, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


@pytest.mark.parametrize("encoding", ["json", "data"])
def test_thousands_of_fields_are_not_looked_at_one_by_one(sluice: Sluice, encoding: str) -> None:
    fields: Any = {f"field-{number}": "x" for number in range(101)}
    response = sluice.adding.post("/tasks/add", **{encoding: fields})
    assert "more than 100 fields" in problem_of(response, HTTPStatus.BAD_REQUEST)["detail"]
