"""What all functions have in common: probes, metrics, request ids, and how an error looks."""

from __future__ import annotations

import io
import re
from http import HTTPStatus

import pytest
from prometheus_client import CONTENT_TYPE_LATEST
from werkzeug.test import TestResponse

from sluice.errors import InvalidSettings, SluiceError, Unstorable
from sluice.http import MAX_BODY_BYTES, MAX_DISCARDED_BYTES
from sluice.services import Services, install
from tests.functions.conftest import Sluice, problem_of

DOORS = ["flask", "async"]

NAMES = ["add_task", "get_tasks", "cancel_task", "retry_task"]
EVERY_FUNCTION = pytest.mark.parametrize("name", NAMES)
NOBODY = "0" * 32

#: A call that each function knows: its name, method and path, and what of `sluice.service` it calls.
CALLS = [
    ("add_task", "POST", "/tasks/add", "add_task"),
    ("get_tasks", "GET", "/tasks/get?user_id=ada", "list_tasks"),
    ("get_tasks", "GET", "/tasks/get/overview?user_id=ada", "overview"),
    ("get_tasks", "GET", f"/tasks/get/{NOBODY}", "get_task"),
    ("cancel_task", "POST", f"/tasks/cancel/{NOBODY}", "cancel_task"),
    ("retry_task", "POST", f"/tasks/retry/{NOBODY}", "retry_task"),
]
EVERY_CALL = pytest.mark.parametrize(("name", "method", "path", "called"), CALLS)


def call(sluice: Sluice, name: str, method: str, path: str, **headers: str) -> TestResponse:
    body = {"user_id": "ada", "objective": "Add."} if name == "add_task" else None
    return sluice.client(name).open(path, method=method, json=body, headers=headers)


# --- probes and metrics ----------------------------------------------------------------------------------------------


@EVERY_FUNCTION
def test_a_function_is_healthy_whatever_is_away(sluice: Sluice, name: str) -> None:
    client = sluice.client(name)
    for _ in range(2):
        response = client.get("/healthz")
        assert (response.status_code, response.get_json()) == (HTTPStatus.OK, {"status": "ok"})
        assert response.headers["Cache-Control"] == "no-store"
        sluice.database.is_away, sluice.broker.away = True, "refuses"


@pytest.mark.parametrize("name", ["add_task", "retry_task"])
def test_a_function_that_sends_is_ready_while_one_of_the_two_services_is_there(sluice: Sluice, name: str) -> None:
    client = sluice.client(name)
    assert client.get("/readyz").get_json() == {"status": "ready", "database": "ok", "queue": "ok"}
    sluice.broker.away = "refuses"
    assert client.get("/readyz").get_json() == {"status": "ready", "database": "ok", "queue": "away"}
    sluice.database.is_away = True
    response = client.get("/readyz")
    assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert int(response.headers["Retry-After"]) > 0
    assert response.get_json() == {"status": "not ready", "database": "away", "queue": "away"}
    sluice.broker.away = None
    assert client.get("/readyz").get_json() == {"status": "ready", "database": "away", "queue": "ok"}


@pytest.mark.parametrize("name", ["get_tasks", "cancel_task"])
def test_a_function_that_sends_nothing_is_ready_while_the_database_is_there(sluice: Sluice, name: str) -> None:
    client = sluice.client(name)
    sluice.broker.away = "refuses"
    assert client.get("/readyz").get_json() == {"status": "ready", "database": "ok"}
    sluice.database.is_away = True
    response = client.get("/readyz")
    assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert int(response.headers["Retry-After"]) > 0
    assert response.get_json() == {"status": "not ready", "database": "away"}


def test_a_function_that_sends_nothing_works_without_a_queue(sluice: Sluice) -> None:
    task_id = sluice.add().get_json()["_id"]
    install(Services(sluice.services.settings, sluice.store))
    assert sluice.get(task_id).status_code == HTTPStatus.OK
    assert sluice.cancel(task_id).status_code == HTTPStatus.OK
    assert sluice.getting.get("/readyz").status_code == HTTPStatus.OK


@EVERY_FUNCTION
def test_a_function_shows_its_metrics_as_prometheus_reads_them(sluice: Sluice, name: str) -> None:
    client = sluice.client(name)
    client.get("/nowhere")
    response = client.get("/metrics")
    assert response.status_code == HTTPStatus.OK
    assert response.content_type == CONTENT_TYPE_LATEST
    assert re.search(
        rf'^sluice_requests_total{{function="{name}",method="GET",status="404"}} [1-9]', response.text, re.MULTILINE
    )


def test_accepted_tasks_are_counted_by_where_they_are_kept(sluice: Sluice) -> None:
    sluice.add()
    assert 'sluice_tasks_accepted_total{kept_by="both",kind="code"}' in sluice.adding.get("/metrics").text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@EVERY_FUNCTION
def test_head_works_for_probes(sluice: Sluice, name: str, path: str) -> None:
    response = sluice.client(name).head(path)
    assert (response.status_code, response.data) == (HTTPStatus.OK, b"")


# --- paths and methods -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/tasks", "/tasks/nowhere", "/healthz/", "/tasks/add/x", "/%2e%2e/"])
@EVERY_FUNCTION
def test_there_is_nothing_at_other_paths(sluice: Sluice, name: str, path: str) -> None:
    problem_of(sluice.client(name).get(path), HTTPStatus.NOT_FOUND)


FRAMEWORKS_OWN = pytest.mark.parametrize("path", ["/robots.txt", "/favicon.ico", "/tasks/cancel/%0A"])


@FRAMEWORKS_OWN
@EVERY_FUNCTION
def test_the_frameworks_own_answers_are_like_all_others(sluice: Sluice, name: str, path: str) -> None:
    client = sluice.client(name)
    response = client.get(path, headers={"X-Request-Id": "req-1"})
    problem_of(response, HTTPStatus.NOT_FOUND)
    assert response.headers["X-Request-Id"] == "req-1"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"


@FRAMEWORKS_OWN
@EVERY_FUNCTION
def test_the_framework_reads_no_body_without_end(sluice: Sluice, name: str, path: str) -> None:
    body = io.BytesIO(TOO_LONG * 40)
    response = sluice.client(name).post(
        path, input_stream=body, content_type="text/plain", environ_overrides={"wsgi.input_terminated": True}
    )
    problem_of(response, HTTPStatus.NOT_FOUND)
    assert body.tell() < MAX_DISCARDED_BYTES + 2 * MAX_BODY_BYTES


@EVERY_CALL
def test_a_path_ends_where_it_ends(sluice: Sluice, name: str, method: str, path: str, called: str) -> None:
    problem_of(call(sluice, name, method, path.partition("?")[0] + "/"), HTTPStatus.NOT_FOUND)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("add_task", "/tasks/add"),
        ("cancel_task", f"/tasks/cancel/{NOBODY}"),
        ("retry_task", f"/tasks/retry/{NOBODY}"),
    ],
)
def test_what_changes_something_is_a_post(sluice: Sluice, name: str, path: str, method: str) -> None:
    response = sluice.client(name).open(path, method=method)
    assert response.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert response.headers["Allow"] == "POST"
    if method != "HEAD":
        problem_of(response, HTTPStatus.METHOD_NOT_ALLOWED)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        "/tasks/get",
        "/tasks/get/overview",
        f"/tasks/get/{NOBODY}",
        "/tasks/get/kinds",
        "/tasks/get/openapi.json",
        "/healthz",
    ],
)
def test_what_only_reads_is_a_get(sluice: Sluice, path: str, method: str) -> None:
    response = sluice.getting.open(path, method=method)
    problem_of(response, HTTPStatus.METHOD_NOT_ALLOWED)
    assert response.headers["Allow"] == "GET, HEAD"


# --- bodies that nobody reads ----------------------------------------------------------------------------------------

TOO_LONG = b"x" * (MAX_BODY_BYTES + 1)


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
@pytest.mark.parametrize(
    ("name", "method", "path", "status"),
    [
        ("add_task", "POST", "/tasks/nowhere", HTTPStatus.NOT_FOUND),
        ("add_task", "PUT", "/tasks/add", HTTPStatus.METHOD_NOT_ALLOWED),
        ("add_task", "POST", "/tasks/add", HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
        ("get_tasks", "GET", f"/tasks/get/{NOBODY}", HTTPStatus.NOT_FOUND),
        ("cancel_task", "POST", f"/tasks/cancel/{NOBODY}", HTTPStatus.NOT_FOUND),
        ("retry_task", "POST", f"/tasks/retry/{NOBODY}", HTTPStatus.NOT_FOUND),
    ],
)
def test_a_body_over_the_limit_spoils_no_answer(
    sluice: Sluice, name: str, method: str, path: str, status: HTTPStatus, chunked: bool
) -> None:
    response = sluice.client(name).open(
        path,
        method=method,
        input_stream=io.BytesIO(TOO_LONG),
        content_type="text/plain",
        headers={} if chunked else {"Content-Length": str(len(TOO_LONG))},
        environ_overrides={"wsgi.input_terminated": chunked},
    )
    if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # to say so is as good
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    problem_of(response, status)


class BrokenOff(io.RawIOBase):
    """What a server gives to read when a connection breaks, or its chunks make no sense."""

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: object) -> int:
        raise ConnectionResetError("client.internal:5678 reset the connection")


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
@EVERY_CALL
def test_a_body_that_breaks_off_gives_no_answer_but_a_problem(
    sluice: Sluice, name: str, method: str, path: str, called: str, chunked: bool
) -> None:
    length = {} if chunked else {"Content-Length": "100"}
    response = sluice.client(name).open(
        path,
        method=method,
        content_type="application/json",
        headers=length,
        environ_overrides={"wsgi.input": BrokenOff(), "wsgi.input_terminated": chunked},
    )
    if response.status_code != HTTPStatus.OK:  # a list needs no body
        problem_of(response, HTTPStatus.BAD_REQUEST if name == "add_task" else HTTPStatus.NOT_FOUND)
    assert response.headers["X-Request-Id"]


# --- errors that nobody foresaw --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the password is open-sesame"),
        KeyError("open-sesame"),
        RecursionError("open-sesame"),
        Unstorable("open-sesame"),
        InvalidSettings("open-sesame"),
        SluiceError("open-sesame"),
        UnicodeEncodeError("utf-8", "open-sesame", 0, 1, "open-sesame"),
    ],
    ids=lambda error: type(error).__name__,
)
@EVERY_CALL
def test_an_unforeseen_error_is_told_without_its_text(
    sluice: Sluice,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    method: str,
    path: str,
    called: str,
    error: Exception,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"sluice.service.{called}", fail)
    response = call(sluice, name, method, path)
    problem_of(response, HTTPStatus.INTERNAL_SERVER_ERROR)
    assert "open-sesame" not in response.text + str(response.headers)
    assert response.headers["X-Request-Id"]
    assert response.headers["Cache-Control"] == "no-store"


def test_an_unforeseen_error_is_logged_with_its_text(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr("sluice.service.add_task", fail)
    sluice.add()
    assert "the disk is on fire" in caplog.text


# --- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["req-1", "8e03978e-40d5-43dd-bc93-6894a57f9324", "x" * 128, "a/b:c=d"])
@EVERY_CALL
def test_a_sane_request_id_comes_back(
    sluice: Sluice, name: str, method: str, path: str, called: str, given: str
) -> None:
    assert call(sluice, name, method, path, **{"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", " ", "two words", "x" * 129, "é", "a\tb", "\x7f"])
@EVERY_FUNCTION
def test_any_other_request_id_is_replaced(sluice: Sluice, name: str, given: str) -> None:
    for path in ("/healthz", "/nowhere"):
        answered = sluice.client(name).get(path, headers={"X-Request-Id": given}).headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{32}", answered)


@EVERY_FUNCTION
def test_every_request_has_an_id_of_its_own(sluice: Sluice, name: str) -> None:
    client = sluice.client(name)
    assert client.get("/healthz").headers["X-Request-Id"] != client.get("/healthz").headers["X-Request-Id"]


@EVERY_CALL
def test_nobody_guesses_at_content_types(sluice: Sluice, name: str, method: str, path: str, called: str) -> None:
    assert call(sluice, name, method, path).headers["X-Content-Type-Options"] == "nosniff"


# --- start -----------------------------------------------------------------------------------------------------------


@EVERY_FUNCTION
def test_a_function_with_wrong_settings_does_not_start(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("sluice.services._installed", {})
    monkeypatch.delenv("MONGODB_URI", raising=False)
    monkeypatch.delenv("RABBITMQ_URL", raising=False)
    monkeypatch.setenv("TASK_TTL_SECONDS", "soon")
    with pytest.raises(InvalidSettings, match=r"MONGODB_URI.*TASK_TTL_SECONDS") as caught:
        sluice.client(name)
    assert ("RABBITMQ_URL" in str(caught.value)) == (name in ("add_task", "retry_task"))
