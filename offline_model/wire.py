"""One client's connection: what goes out, and whether anybody still listens."""

import json
import select
import socket
import threading
import time
from http import HTTPStatus
from uuid import uuid4

#: Seconds between two looks at the peer where the system cannot wake us when it hangs up.
LOOK_SECONDS = 0.05
#: Linux tells of a closed peer without being asked again and again; elsewhere this is 0.
HANG_UP_EVENT: int = getattr(select, "POLLRDHUP", 0)
#: Longest wait in one system call, in seconds; only bounds how long a missed wake-up could last.
SLICE_SECONDS = 1.0


class ClientLeft(Exception):
    """The client hung up before the answer's end."""


class ServerStopped(Exception):
    """The server is stopping; nobody's answer will be finished."""


class Wire:
    """The socket of one connection. Every method raises `ClientLeft` or `ServerStopped` if there is no one to talk to.

    A client that closes only its sending half counts as gone: no HTTP client does that to a server it still reads.
    """

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._connection = connection
        self._stopping = stopping
        #: Whether the connection may serve another request; set for each request, falls to False on the way.
        self.keep_alive = False
        #: Whether the client understands chunked bodies, which HTTP/1.0 does not.
        self.chunked = False
        #: Whether the current request has got the head of an answer.
        self.answered = False
        self._poller = select.poll() if HANG_UP_EVENT else None
        if self._poller is not None:
            self._poller.register(connection, HANG_UP_EVENT)

    def begin(self, keep_alive: bool, chunked: bool) -> None:
        """Get ready for the answer to the next request."""
        self.keep_alive = keep_alive and chunked
        self.chunked = chunked
        self.answered = False

    def wait(self, seconds: float | None) -> None:
        """Let `seconds` pass (None: for ever), but not a moment longer than the client stays."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            remaining = SLICE_SECONDS if deadline is None else deadline - time.monotonic()
            if self._hung_up(min(max(remaining, 0.0), SLICE_SECONDS)):
                raise ServerStopped if self._stopping.is_set() else ClientLeft
            if self._stopping.is_set():
                raise ServerStopped
            if deadline is not None and time.monotonic() >= deadline:
                return

    def send_json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        """Send a whole answer with a JSON body."""
        self.send(status, "application/json", json.dumps(value).encode(), headers)

    def send(self, status: int, content_type: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        self._put(self._head(status, content_type, {"Content-Length": str(len(body)), **(headers or {})}) + body)

    def send_half(self, status: int, content_type: str, body: bytes) -> None:
        """Promise the whole `body` and send the first half of it."""
        self.keep_alive = False
        head = self._head(status, content_type, {"Content-Length": str(len(body))})
        self._put(head + body[: len(body) // 2])

    def open_stream(self, first: bytes) -> None:
        """Begin an answer of server-sent events with the events `first`."""
        headers = {"Cache-Control": "no-cache"}
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
        self._put(self._head(HTTPStatus.OK, "text/event-stream; charset=utf-8", headers) + self._framed(first))

    def send_events(self, events: bytes) -> None:
        """Send more of an open stream."""
        self._put(self._framed(events))

    def close_stream(self, last: bytes) -> None:
        """Send the events `last` and the stream's end in one write, so that no one can leave between the two."""
        self._put(self._framed(last) + (b"0\r\n\r\n" if self.chunked else b""))

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> bytes:
        self.answered = True
        lines = [
            f"HTTP/1.1 {int(status)} {_phrase(status)}",
            f"Content-Type: {content_type}",
            f"X-Request-Id: req_{uuid4().hex}",
            "Server: sluice-offline-model",
            f"Connection: {'keep-alive' if self.keep_alive else 'close'}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _framed(self, data: bytes) -> bytes:
        # An empty chunk would end the stream.
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked and data else data

    def _put(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise (ServerStopped if self._stopping.is_set() else ClientLeft) from error

    def _hung_up(self, seconds: float) -> bool:
        """Whether the peer closes within `seconds`; may return early with False where looks have to be short."""
        if self._poller is not None:
            return bool(self._poller.poll(seconds * 1000))
        seconds = min(seconds, LOOK_SECONDS)
        if not select.select([self._connection], [], [], seconds)[0]:
            return False
        try:
            if not self._connection.recv(1, socket.MSG_PEEK):
                return True
        except OSError:
            return True
        # The client has sent its next request already: readable for good, so a look no longer takes time.
        time.sleep(seconds)
        return False


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
