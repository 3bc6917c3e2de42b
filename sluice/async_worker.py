"""The process that serves a function in the framework's async mode: gunicorn's worker, its limits, its application."""

from __future__ import annotations

import asyncio
from typing import Any

import functions_framework.aio
from functions_framework import _function_registry
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn_worker import UvicornWorker

#: Seconds that a caller has for the next piece of a request that it has begun.
READ_SECONDS = 5

#: Bytes of a request before its body: the request line and all headers.
MAX_HEAD_BYTES = 64 * 1024

#: Seconds that calls have to be answered when the process is to stop. Less than gunicorn's graceful_timeout.
ANSWER_SECONDS = 20


def create_app(target: str | None = None, source: str | None = None) -> Any:
    """The framework's application of one function (by FUNCTION_TARGET and FUNCTION_SOURCE, if they are not given): of
    the coroutine with `_async` behind the target's name. Raises what loading the function raises."""
    name = _function_registry.get_function_target(target)  # type: ignore[no-untyped-call]
    app = functions_framework.aio.create_asgi_app(f"{name}_async", source)  # type: ignore[no-untyped-call]
    function = app.routes[0].endpoint

    async def left_to_the_function(request: Any, _error: Exception) -> Any:
        """Some calls the framework refuses by itself: of `/robots.txt`, of a path with a line break."""
        return await function(request)

    app.add_exception_handler(HTTPException, left_to_the_function)
    return app


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, with limits for what it has none for: the time that a caller takes over a request
    that it has begun, the time until its first, and the size of a request's head."""

    _head_bytes = 0
    _is_in_head = _is_in_request = False
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")
                return
        if self._is_in_request:
            self._patience = self.loop.call_later(READ_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._is_in_head = self._is_in_request = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_request = False
        super().on_message_complete()


class AsyncWorker(UvicornWorker):  # type: ignore[misc]
    """gunicorn's worker for one function."""

    CONFIG_KWARGS = {  # noqa: RUF012 - as the base class has it
        "loop": "uvloop",
        "http": BoundedProtocol,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": ANSWER_SECONDS,
    }
