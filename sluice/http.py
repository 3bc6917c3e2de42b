"""The door that all functions share: it finds the handler for a call, and turns answers and errors into HTTP.

Errors are RFC 9457 problem details, whoever raised them; none carries a stack trace or an exception's text that was not
written for the caller. Beside its own calls every function answers `/healthz`, `/readyz` and `/metrics`.

Nothing here knows who serves: `sluice.flask_door` and `sluice.async_door` read a `Call` and write an `Answer`.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from werkzeug.http import generate_etag, parse_etags

from sluice import errors
from sluice.errors import FieldError, InvalidRequest, SluiceError, TooLarge, Unavailable, UnsupportedMedia
from sluice.kinds import MAX_INPUT_BYTES, kinds
from sluice.logs import log_context
from sluice.metrics import REQUEST_SECONDS, REQUESTS, exposition
from sluice.services import Services, prepare, services
from sluice.task import Task, as_json, new_id
from sluice.waiting import Blocking

log = logging.getLogger(__name__)

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

#: Fields of a body, or of a query. No kind has as many, and to complain of each of thousands would take long.
MAX_FIELDS = 100

#: Bad fields that one answer names.
MAX_ERRORS = 20

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

NOTHING_HERE, NOT_THIS_METHOD = "There is nothing at this path.", "This path does not take this method."

_VISIBLE = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(slots=True)
class Call:
    """A request, as the doors hand it on. The names of `headers` are in lower case; `query` is as it was sent."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    #: Why the body is not there: it was too large, or broke off.
    fault: InvalidRequest | None = None
    id: str = field(init=False)

    def __post_init__(self) -> None:
        """Its id is the caller's, if that is sane, or a new one."""
        given = self.headers.get("x-request-id", "")
        self.id = given if given and _VISIBLE.fullmatch(given) else new_id()

    @property
    def arguments(self) -> dict[str, str]:
        """The query's arguments. Raises InvalidRequest naming those that are given more than once."""
        return _single_values(self.query)


@dataclass(slots=True)
class Answer:
    """What goes back: the status, the headers but for the body's length, and the body."""

    status: HTTPStatus
    headers: dict[str, str]
    body: bytes = b""


Handler = Callable[..., Answer | Awaitable[Answer]]


class Endpoint:
    """Answers the calls of one function. `routes` maps "METHOD /path/<name>" to a handler, which is called with the
    call, the process's services, and the named part of the path (the last one, if any), and returns an answer or
    raises. A handler may block; one that is a coroutine of `sluice.waiting` must not.

    Made when a function is loaded; raises InvalidSettings then, so that a function with wrong settings never starts.
    """

    def __init__(self, name: str, routes: Mapping[str, Handler], *, needs_queue: bool = False) -> None:
        self.name = name
        self._needs_queue = needs_queue
        #: Its own calls, beside the probes.
        self.routes = tuple(routes)
        #: The handlers by method, by whole path, and by the path up to its named part (and the name of that).
        self._fixed: dict[str, dict[str, Handler]] = {}
        self._named: dict[str, tuple[str, dict[str, Handler]]] = {}
        #: The handlers that don't block.
        self._coroutines: set[Handler] = set()
        for route, handler in {
            **routes,
            "GET /healthz": _healthz,
            "GET /readyz": self._readyz,
            "GET /metrics": _metrics,
        }.items():
            method, path = route.split(" ")
            before, _, named = path.partition("<")
            if named:
                methods = self._named.setdefault(before, (named.rstrip(">"), {}))[1]
            else:
                methods = self._fixed.setdefault(path, {})
            if inspect.iscoroutinefunction(handler):
                self._coroutines.add(handler)
            methods[method] = handler
            if method == "GET":
                methods["HEAD"] = handler
        prepare(needs_queue=needs_queue)
        kinds()  # a wrong kind stops the start

    async def respond(self, call: Call) -> Answer:
        """The answer to a call, whatever happens. To be driven by `waiting.run` or `waiting.run_async`."""
        started = time.perf_counter()
        with log_context(request_id=call.id):
            try:
                answer = await self._handle(call)
            except SluiceError as error:
                answer = _from_sluice(error)
            except Exception:
                log.exception("a request failed in an unforeseen way")
                answer = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here. It has been logged.")
        self._finish(call, answer)
        REQUEST_SECONDS.labels(self.name).observe(time.perf_counter() - started)
        return answer

    def _finish(self, call: Call, answer: Answer) -> None:
        """Add what belongs to every answer."""
        answer.headers["X-Request-Id"] = call.id
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers.setdefault("Cache-Control", "no-store")
        REQUESTS.labels(self.name, _known(call.method), int(answer.status)).inc()

    async def _handle(self, call: Call) -> Answer:
        methods, arguments = self._find(call.path)
        if methods is None:
            return problem(HTTPStatus.NOT_FOUND, NOTHING_HERE)
        handler = methods.get(call.method)
        if handler is None:
            refused = problem(HTTPStatus.METHOD_NOT_ALLOWED, NOT_THIS_METHOD)
            refused.headers["Allow"] = ", ".join(sorted(methods))
            return refused
        work = partial(handler, call, services(), **arguments)
        answer: Answer = await (work() if handler in self._coroutines else Blocking(work))  # type: ignore[misc]
        return answer

    def _find(self, path: str) -> tuple[dict[str, Handler] | None, dict[str, str]]:
        found = self._fixed.get(path)
        if found is not None:
            return found, {}
        cut = path.rfind("/") + 1
        name, methods = self._named.get(path[:cut], ("", None))
        value = path[cut:]
        return (methods, {name: value}) if value and "\n" not in value else (None, {})

    def _readyz(self, _call: Call, services: Services) -> Answer:
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


def answer(content: Any, status: HTTPStatus = HTTPStatus.OK, *, location: str | None = None) -> Answer:
    """A JSON answer. A task is shown as `Task.to_json` says."""
    headers = {"Content-Type": "application/json"}
    if location is not None:
        headers["Location"] = location
    body = content.to_message() if isinstance(content, Task) else as_json(content)
    return Answer(status, headers, body + b"\n")


def conditional(call: Call, content: Any) -> Answer:
    """A JSON answer with an ETag, or 304 without a body to a caller that has it already (RFC 9110, 13.1.2)."""
    whole = answer(content)
    etag = generate_etag(whole.body)
    held = call.headers.get("if-none-match")
    headers = {"Cache-Control": "no-cache", "ETag": f'"{etag}"'}
    if held is not None and parse_etags(held).contains_weak(etag):
        return Answer(HTTPStatus.NOT_MODIFIED, headers)
    whole.headers.update(headers)
    return whole


def problem(status: HTTPStatus, detail: str, field_errors: list[FieldError] | None = None) -> Answer:
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
    response.headers["Content-Type"] = "application/problem+json"
    return response


def read_fields(call: Call) -> dict[str, Any]:
    """The fields of a JSON or form body. Raises InvalidRequest, TooLarge or UnsupportedMedia."""
    media = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = media == "application/json" or media.endswith("+json")
    if not is_json and media != "application/x-www-form-urlencoded":
        raise UnsupportedMedia("Send the task as application/json or as application/x-www-form-urlencoded.")
    if call.fault is not None:
        raise call.fault
    if is_json:
        try:
            fields = _read_json(call.body)
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"The body is not valid JSON (line {error.lineno}, column {error.colno}).") from None
        except (ValueError, RecursionError):
            raise InvalidRequest("The body is not valid JSON.") from None
        if not isinstance(fields, dict):
            raise InvalidRequest("The body must be a JSON object.")
        if len(fields) > MAX_FIELDS:
            raise _too_many_fields()
        return fields
    fields = _single_values(call.body.decode(errors="replace"))
    if any(name.lstrip().startswith("{") for name in fields):
        raise UnsupportedMedia("This looks like JSON. Send it with the header content-type: application/json.")
    return dict(fields)


def _single_values(encoded: str) -> dict[str, str]:
    """The values of a form or a query. Raises InvalidRequest naming those that are given more than once."""
    values: dict[str, str] = {}
    repeated: dict[str, None] = {}
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, errors="replace", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise _too_many_fields() from None
    for name, value in pairs:
        if name in values:
            repeated[name] = None
        values[name] = value
    if repeated:
        raise InvalidRequest(
            "Some fields are given more than once.", [FieldError(name, "is given more than once") for name in repeated]
        )
    return values


def _too_many_fields() -> InvalidRequest:
    return InvalidRequest(f"There are more than {MAX_FIELDS} fields.")


def idempotency_key(call: Call) -> str | None:
    """The Idempotency-Key header: a structured-field string (in quotes), or the bare text that most clients send."""
    given = call.headers.get("idempotency-key")
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


def message_headers(call: Call) -> dict[str, Any]:
    """What travels with a message from the request that caused it."""
    headers = {"x-request-id": call.id}
    traceparent = call.headers.get("traceparent", "")
    if _TRACEPARENT.fullmatch(traceparent):
        headers["traceparent"] = traceparent
    return headers


class Body:
    """A body that comes in pieces. One that is too large is read on, up to a bound, and thrown away."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> bool:
        """Take the next piece. False when no more are wanted."""
        self._size += len(piece)
        if self._size <= MAX_BODY_BYTES:
            self._pieces.append(piece)
        return self._size <= MAX_BODY_BYTES + MAX_DISCARDED_BYTES

    def whole(self) -> tuple[bytes, InvalidRequest | None]:
        """All of it; or nothing, and why."""
        if self._size > MAX_BODY_BYTES:
            return b"", TooLarge(f"The body is larger than {MAX_BODY_BYTES // 1024} KiB.")
        return b"".join(self._pieces), None

    @staticmethod
    def broken_off() -> tuple[bytes, InvalidRequest]:
        return b"", InvalidRequest("The connection broke off before the whole body had come.")


def _from_sluice(error: SluiceError) -> Answer:
    for kind, status in STATUS_OF:
        if isinstance(error, kind):
            response = problem(status, str(error), error.errors if isinstance(error, InvalidRequest) else None)
            if isinstance(error, Unavailable):
                response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
            return response
    log.error("an error without a status reached the door", exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here. It has been logged.")


def _read_json(body: bytes) -> Any:
    """As `json.loads`, which makes a new decoder for every body that it is given hooks for."""
    return _decoder.decode(body.decode(json.detect_encoding(body), "surrogatepass"))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def _known(method: str) -> str:
    """A label must not take whatever a caller makes up."""
    return method if method in KNOWN_METHODS else "other"


async def _healthz(_call: Call, _services: Services) -> Answer:
    return answer({"status": "ok"})


def _state_of_store(services: Services) -> str:
    try:
        services.store.ping()
    except Unavailable:
        return "away"
    return "ok"


def _metrics(_call: Call, services: Services) -> Answer:
    # The folder is chosen by functions/gunicorn.conf.py: all workers answer for all.
    content_type, body = exposition(services.settings.prometheus_multiproc_dir)
    return Answer(HTTPStatus.OK, {"Content-Type": content_type}, body)
