"""The door that all functions share: it finds the handler for a call, and turns answers and errors into HTTP.

Errors are RFC 9457 problem details, whoever raised them; none carries a stack trace or an exception's text that was not
written for the caller. Beside its own calls every function answers `/healthz`, `/readyz` and `/metrics`.
"""

from __future__ import annotations

import io
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from flask import Request, Response, current_app, has_app_context
from flask import request as current_request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import ClientDisconnected, HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge
from werkzeug.routing import Map, Rule

from sluice import errors
from sluice.errors import FieldError, InvalidRequest, SluiceError, Unavailable, UnsupportedMedia
from sluice.kinds import MAX_INPUT_BYTES, kinds
from sluice.logs import log_context
from sluice.metrics import REQUEST_SECONDS, REQUESTS
from sluice.services import Services, prepare, services
from sluice.task import Task

log = logging.getLogger(__name__)

Handler = Callable[..., Response]

#: JSON may write one byte of text as six (`\u0000`); the text itself is measured once it is read.
MAX_BODY_BYTES = 6 * MAX_INPUT_BYTES + 4096

#: Of a body that is refused, so much is still read and thrown away: a connection that is closed on unread data is
#: reset, and the caller would never see the answer.
MAX_DISCARDED_BYTES = 8 * 1024 * 1024

#: Seconds after which a caller may try again when a service is away.
RETRY_AFTER_SECONDS = 2

STATUS_OF: list[tuple[type[SluiceError], HTTPStatus]] = [
    (errors.TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (errors.UnsupportedMedia, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (errors.InvalidRequest, HTTPStatus.BAD_REQUEST),
    (errors.TaskNotFound, HTTPStatus.NOT_FOUND),
    (errors.Conflict, HTTPStatus.CONFLICT),
    (errors.KeyReused, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
]

#: Bad fields that one answer names.
MAX_ERRORS = 20

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

#: Where a request's id is kept in its environment.
REQUEST_ID = "sluice.request_id"

_VISIBLE = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Endpoint:
    """Answers the calls of one function. `routes` maps "METHOD /path/<name>" to a handler, which is called with the
    request, the process's services, and the named parts of the path, and returns a response or raises.

    Made when a function is loaded; raises InvalidSettings then, so that a function with wrong settings never starts.
    """

    def __init__(self, name: str, routes: Mapping[str, Handler], *, needs_queue: bool = False) -> None:
        self._name = name
        self._needs_queue = needs_queue
        #: Its own calls, beside the probes.
        self.routes = tuple(routes)
        rules = []
        for route, handler in {
            **routes,
            "GET /healthz": _healthz,
            "GET /readyz": self._readyz,
            "GET /metrics": _metrics,
        }.items():
            method, path = route.split(" ")
            rules.append(Rule(path, methods=[method], endpoint=handler))
        self._map = Map(rules, strict_slashes=True, merge_slashes=False, redirect_defaults=False)
        prepare(needs_queue=needs_queue)
        kinds()  # a wrong kind stops the start
        if has_app_context():
            current_app.register_error_handler(HTTPException, self._refused)

    def __call__(self, request: Request) -> Response:
        started = time.perf_counter()
        with log_context(request_id=_receive(request)):
            try:
                urls = self._map.bind(server_name="", path_info=request.path)
                handler, arguments = urls.match(method=request.method)
                response: Response = handler(request, services(), **arguments)
            except HTTPException as error:
                response = problem_of(error)
                if isinstance(error, ClientDisconnected):
                    request.stream = io.BytesIO()  # it would be waited for again
            except SluiceError as error:
                response = _from_sluice(error)
            except Exception:
                log.exception("a request failed in an unforeseen way")
                response = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here. It has been logged.")
        response = self._finish(request, response)
        REQUEST_SECONDS.labels(self._name).observe(time.perf_counter() - started)
        return response

    def _refused(self, error: HTTPException) -> Response:
        """Some calls the framework refuses itself: of `/robots.txt`, or of a path with a line break."""
        _receive(current_request)
        return self._finish(current_request, problem_of(error))

    def _finish(self, request: Request, response: Response) -> Response:
        """What belongs to every answer."""
        _finish_body(request)
        response.headers["X-Request-Id"] = request.environ[REQUEST_ID]
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        REQUESTS.labels(self._name, _known(request.method), response.status_code).inc()
        return response

    def _readyz(self, _request: Request, services: Services) -> Response:
        """Ready while one of the services can be reached: one is enough to accept a task."""
        parts = {"database": _state_of_store(services)}
        if self._needs_queue:
            parts["queue"] = "ok" if services.broker.is_connected else "away"
        ready = "ok" in parts.values()
        content = {"status": "ready" if ready else "not ready", **parts, **services.stand_ins}
        response = answer(content, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)
        if not ready:
            response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response


def answer(content: Any, status: HTTPStatus = HTTPStatus.OK, *, location: str | None = None) -> Response:
    """A JSON answer. A task is shown as `Task.to_json` says."""
    if isinstance(content, Task):
        content = content.to_json()
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
    response = Response(body, status, mimetype="application/json")
    if location is not None:
        response.autocorrect_location_header = False
        response.headers["Location"] = location
    return response


def conditional(request: Request, content: Any) -> Response:
    """A JSON answer with an ETag, or 304 without a body to a caller that has it already (RFC 9110, 13.1.2)."""
    response = answer(content)
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response


def problem(status: HTTPStatus, detail: str, field_errors: list[FieldError] | None = None) -> Response:
    """An error answer: RFC 9457 problem details."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
    }
    if field_errors:
        content["errors"] = [{"field": error.field, "message": error.message} for error in field_errors[:MAX_ERRORS]]
    response = answer(content, status)
    response.mimetype = "application/problem+json"
    return response


def read_fields(request: Request) -> dict[str, Any]:
    """The fields of a JSON or form body. Raises InvalidRequest, TooLarge or UnsupportedMedia."""
    if request.mimetype == "application/json" or request.mimetype.endswith("+json"):
        try:
            fields = json.loads(request.get_data(), parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"The body is not valid JSON (line {error.lineno}, column {error.colno}).") from None
        except (ValueError, RecursionError):
            raise InvalidRequest("The body is not valid JSON.") from None
        if not isinstance(fields, dict):
            raise InvalidRequest("The body must be a JSON object.")
        return fields
    if request.mimetype == "application/x-www-form-urlencoded":
        fields = single_values(request.form)
        if any(name.lstrip().startswith("{") for name in fields):
            raise UnsupportedMedia("This looks like JSON. Send it with the header content-type: application/json.")
        return fields
    raise UnsupportedMedia("Send the task as application/json or as application/x-www-form-urlencoded.")


def single_values(given: MultiDict[str, str]) -> dict[str, Any]:
    """The values of a form or a query. Raises InvalidRequest naming those that are given more than once."""
    repeated = [FieldError(name, "is given more than once") for name, values in given.lists() if len(values) > 1]
    if repeated:
        raise InvalidRequest("Some fields are given more than once.", repeated)
    return given.to_dict()


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key header: a structured-field string (in quotes), or the bare text that most clients send."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return None
    key = given.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not key or len(key) > 255 or not key.isascii() or not key.isprintable():
        raise InvalidRequest(
            "The Idempotency-Key is not valid.",
            [FieldError("Idempotency-Key", "must be 1 to 255 printable ASCII characters")],
        )
    return key


def message_headers(request: Request) -> dict[str, Any]:
    """What travels with a message from the request that caused it."""
    headers = {"x-request-id": request.environ[REQUEST_ID]}
    traceparent = request.headers.get("traceparent", "")
    if _TRACEPARENT.fullmatch(traceparent):
        headers["traceparent"] = traceparent
    return headers


def _receive(request: Request) -> str:
    """Set a limit to the request's body. Returns the request's id, the caller's or a new one; it is kept with it."""
    request.max_content_length = MAX_BODY_BYTES
    given = request.headers.get("X-Request-Id", "")
    request_id: str = given if _VISIBLE.fullmatch(given) else uuid.uuid4().hex
    request.environ[REQUEST_ID] = request_id
    return request_id


def _from_sluice(error: SluiceError) -> Response:
    for kind, status in STATUS_OF:
        if isinstance(error, kind):
            response = problem(status, str(error), error.errors if isinstance(error, InvalidRequest) else None)
            if isinstance(error, Unavailable):
                response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
            return response
    log.error("an error without a status reached the door", exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here. It has been logged.")


def problem_of(error: HTTPException) -> Response:
    """The errors of werkzeug, in words that don't depend on its version."""
    status = HTTPStatus(error.code or 500)
    details = {
        NotFound: "There is nothing at this path.",
        MethodNotAllowed: "This path does not take this method.",
        RequestEntityTooLarge: f"The body is larger than {MAX_BODY_BYTES // 1024} KiB.",
    }
    response = problem(status, details.get(type(error), status.description or status.phrase))
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _known(method: str) -> str:
    """A label must not take whatever a caller makes up."""
    return method if method in KNOWN_METHODS else "other"


def _finish_body(request: Request) -> None:
    """Read what is left of a request's body, or throw it away if it is too large; one that has broken off has nothing
    left. The framework reads it after each answer, and would fail at both."""
    try:
        request.get_data()
    except RequestEntityTooLarge:
        left = min(request.content_length or MAX_DISCARDED_BYTES, MAX_DISCARDED_BYTES)
        with suppress(OSError):
            while left > 0 and (chunk := request.environ["wsgi.input"].read(min(left, 65536))):
                left -= len(chunk)
        request.stream = io.BytesIO()
    except (HTTPException, OSError):
        request.stream = io.BytesIO()


def _healthz(_request: Request, _services: Services) -> Response:
    return answer({"status": "ok"})


def _state_of_store(services: Services) -> str:
    try:
        services.store.ping()
    except Unavailable:
        return "away"
    return "ok"


def _metrics(_request: Request, services: Services) -> Response:
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = REGISTRY
    if services.settings.prometheus_multiproc_dir:  # set by functions/gunicorn.conf.py: all workers answer for all
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
