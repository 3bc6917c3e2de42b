"""The process that serves a function in the framework's async mode: gunicorn's worker, its limits, its application."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from http import HTTPStatus
from typing import Any

import functions_framework.aio
from functions_framework import _function_registry
from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn_worker import UvicornWorker

from sluice.http import problem
from sluice.rabbit import RabbitTaskBroker
from sluice.services import services
from sluice.task import new_id

#: Seconds that a caller has for the next piece of a request that it has begun.
READ_SECONDS = 5

#: Seconds that all of a request's head may take, and that a caller may leave an answer unread that fits into no buffer.
HEAD_SECONDS, WRITE_SECONDS = 30, 30

#: Bytes of a request before its body: the request line and all headers.
MAX_HEAD_BYTES = 64 * 1024

#: Seconds that calls have to be answered when the process is to stop. Less than gunicorn's graceful_timeout.
ANSWER_SECONDS = 20

#: Seconds between two signs of life.
NOTIFY_SECONDS = 5


def create_app(target: str | None = None, source: str | None = None) -> Any:
    """The application of one function (by FUNCTION_TARGET and FUNCTION_SOURCE, if they are not given): of the coroutine
    with `_async` behind the target's name, as the framework loads it. Raises what loading the function raises.

    The framework's routes, middlewares and wrappers are left out: a function answers every path itself, gives its calls
    ids, and knows what it returns; and they are a fifth of what a call costs.
    """
    name = _function_registry.get_function_target(target)  # type: ignore[no-untyped-call]
    app = functions_framework.aio.create_asgi_app(f"{name}_async", source)  # type: ignore[no-untyped-call]
    function = inspect.unwrap(app.routes[0].endpoint)

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        response = await function(Request(scope, receive))
        await response(scope, receive, send)

    return serve


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, with limits for what it has none for: the time that a caller takes over a request,
    until its first one, and over reading an answer; and the size of a request's head."""

    _head_bytes = 0
    _head_until = 0.0
    _is_in_head = _is_in_request = False
    _patience: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_a_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._patience, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        was_in_head = self._is_in_head
        super().data_received(data)
        if self.transport.is_closing():
            return
        if was_in_head and self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")
                return
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self._is_in_request:
            # Not while an answer to the request before is on its way: then nothing more is read.
            if not self.pipeline and (not is_answering or self.cycle.more_body):
                seconds = min(READ_SECONDS, self._head_until - self.loop.time()) if self._is_in_head else READ_SECONDS
                self._patience = self.loop.call_later(max(0, seconds), self.transport.close)
        elif not is_answering and self.timeout_keep_alive_task is None:
            self._expect_a_request()  # what came was no request: line breaks, the rest of a body that was refused

    def _expect_a_request(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # to close would wait for it to be read
        super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        self._is_in_head = self._is_in_request = True
        self._head_bytes, self._head_until = 0, self.loop.time() + HEAD_SECONDS
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_request = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is told so as every error is."""
        answer = problem(HTTPStatus.BAD_REQUEST, f"{msg} (Anything but ASCII has to be percent-encoded in a URL.)")
        headers = {**answer.headers, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        headers |= {"X-Request-Id": new_id(), "Content-Length": str(len(answer.body)), "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 400 Bad Request\r\n{lines}\r\n".encode() + answer.body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """A caller that offers another protocol and gets this one: nothing to warn of."""


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
        "timeout_notify": NOTIFY_SECONDS,
    }

    async def _serve(self) -> None:
        queue = services().queue
        if isinstance(queue, RabbitTaskBroker):
            queue.publish_on(asyncio.get_running_loop())
        await super()._serve()

    async def callback_notify(self) -> None:
        """A sign of life for gunicorn; if that is gone, so is this process."""
        if os.getppid() != self.ppid:
            os.kill(os.getpid(), signal.SIGTERM)
        await super().callback_notify()
