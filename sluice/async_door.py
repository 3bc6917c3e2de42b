"""A function as the framework's async mode serves it: one thread answers many calls at once; none waits for another.

Taken in production (functions/gunicorn.conf.py), because threads that answer spend most of their time in handing
Python's lock to each other: docs/decisions/0010-async-door.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http import HTTPStatus
from typing import Any

from sluice import waiting
from sluice.errors import InvalidRequest, TooLarge
from sluice.http import Answer, Body, Call, Endpoint
from sluice.services import services

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AsgiAnswer:
    """An answer as the framework's routes take it: an ASGI application that sends it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        answer = self._answer
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        if answer.status != HTTPStatus.NOT_MODIFIED:
            headers.append((b"Content-Length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status.value, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


async def respond(endpoint: Endpoint, request: Any) -> AsgiAnswer:
    """Answer a call of a function, which comes as Starlette's request."""
    call = await _call(request)
    answer = await waiting.run_async(endpoint.respond(call), _threads())
    if isinstance(call.fault, TooLarge):
        answer.headers["Connection"] = "close"  # there may be more of it, without end
    return AsgiAnswer(answer)


async def _call(request: Any) -> Call:
    scope = request.scope
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        text = name.decode("latin-1")
        headers[text] = f"{headers[text]},{value.decode('latin-1')}" if text in headers else value.decode("latin-1")
    body, fault = await _read(request.receive)
    return Call(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, body, fault)


async def _read(receive: Receive) -> tuple[bytes, InvalidRequest | None]:
    body = Body()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return Body.broken_off()
        if not body.add(message.get("body", b"")) or not message.get("more_body"):
            return body.whole()


@cache
def _threads() -> ThreadPoolExecutor:
    """The threads for what blocks."""
    return ThreadPoolExecutor(services().settings.threads, thread_name_prefix="blocking")
