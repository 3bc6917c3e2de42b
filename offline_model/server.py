"""The HTTP side: one thread per connection, one method per endpoint."""

import logging
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

from offline_model.calls import Calls
from offline_model.chat import MODEL, BadRequest, error_body, read_json, read_request
from offline_model.completions import complete
from offline_model.script import BadRule, Script
from offline_model.wire import ClientLeft, ServerStopped, Wire

#: Largest request body, in bytes.
BODY_BYTES = 1024 * 1024
#: How much of a body that is too large is read and thrown away, in bytes, so that the client gets to hear why.
DRAIN_BYTES = 16 * BODY_BYTES
#: How long the end of such a body is waited for, in seconds.
DRAIN_SECONDS = 5.0

log = logging.getLogger("offline_model")


class Server(ThreadingHTTPServer):
    """Listens from the moment it is made; knows its open connections, so that it can end them all."""

    daemon_threads = True
    #: For `handle_request`, which is only called when someone waits; who went away again must not hold it up.
    timeout = 0
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], scriptable: bool, seconds_per_answer: float) -> None:
        self.scriptable = scriptable
        self.seconds_per_answer = seconds_per_answer
        self.script = Script()
        self.calls = Calls()
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._bell, self._rope = socket.socketpair()
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without the look-up of the host's name that HTTPServer makes, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]

    def serve(self) -> None:
        """Accept connections until `stop`."""
        with selectors.DefaultSelector() as selector:
            listening = selector.register(self, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while not self.stopping.is_set():
                if any(key is listening for key, _ in selector.select()):
                    self.handle_request()

    def stop(self) -> None:
        """Make `serve` return now. The stdlib's `shutdown` would do so at the next tick of its clock."""
        self.stopping.set()
        self._rope.send(b"!")

    def server_close(self) -> None:
        """Stop listening."""
        super().server_close()
        self._bell.close()
        self._rope.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection before its thread starts, so that `end_connections` cannot miss it."""
        with self._changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        super().close_request(request)
        with self._changed:
            self._connections.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A client that goes away is no error here; everything else is logged."""
        if not isinstance(sys.exception(), OSError):
            log.exception("connection from %s failed", client_address)

    def end_connections(self, seconds: float) -> None:
        """Hang up on all clients and wait up to `seconds` for the threads that served them."""
        with self._changed:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # the client was quicker
                    continue
            self._changed.wait_for(lambda: not self._connections, seconds)


class Handler(BaseHTTPRequestHandler):
    """Reads requests from one connection and answers them."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Make the wire of this connection."""
        super().setup()
        self.wire = Wire(self.connection, self.server.stopping)

    def handle(self) -> None:
        """Serve requests until either side has had enough."""
        try:
            super().handle()
        except (ClientLeft, ServerStopped, ConnectionError):
            self.close_connection = True

    def do_GET(self) -> None:
        """Every method goes the same way."""
        self._answer()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log for those who ask for it; a line per call on stderr would be noise."""
        log.debug(format, *args)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server cannot read (request line, headers) is refused in OpenAI's shape as well."""
        self.close_connection = True
        self.wire.begin(keep_alive=False, chunked=False)
        self.wire.send_json(code, error_body(message or explain or "bad request", "invalid_request_error"))

    def _answer(self) -> None:
        modern = self.request_version >= "HTTP/1.1"
        self.wire.begin(keep_alive=not self.close_connection, chunked=modern)
        try:
            self._endpoint(self._body())
        except BadRequest as error:
            self.wire.send_json(error.status, error.body)
        except (ClientLeft, ServerStopped):
            raise
        except Exception:
            log.exception("%s %s failed", self.command, self.path)
            self.wire.keep_alive = False
            if not self.wire.answered:
                self.wire.send_json(500, error_body("The offline model itself failed; see its log.", "server_error"))
        finally:
            self.close_connection = not self.wire.keep_alive

    def _endpoint(self, body: bytes) -> None:
        path = urlsplit(self.path).path
        endpoints: dict[str, dict[str, Callable[[bytes], None]]] = {
            "/healthz": {"GET": self._health},
            "/v1/models": {"GET": self._models},
            "/v1/chat/completions": {"POST": self._completions},
        }
        if self.server.scriptable:
            endpoints["/script"] = {"PUT": self._put_script, "DELETE": self._delete_script}
            endpoints["/calls"] = {"GET": self._calls}
        if path not in endpoints:
            raise BadRequest(f"Unknown request URL: {self.command} {path}.", code="unknown_url", status=404)
        if self.command not in endpoints[path]:
            raise BadRequest(f"Not allowed to {self.command} on {path}.", code="method_not_supported", status=405)
        endpoints[path][self.command](body)

    def _health(self, _body: bytes) -> None:
        self.wire.send_json(200, {"status": "ok"})

    def _models(self, _body: bytes) -> None:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "sluice"}
        self.wire.send_json(200, {"object": "list", "data": [model]})

    def _completions(self, body: bytes) -> None:
        # Counted before the body is looked at: a call that makes no sense is still a call.
        with self.server.calls.counted(self.headers.get("X-Client-Request-Id", "")):
            request = read_request(body)
            rule = self.server.script.pick(request.last_user_text)
            complete(self.wire, request, rule, self.server.seconds_per_answer)

    def _put_script(self, body: bytes) -> None:
        try:
            self.wire.send_json(200, {"rules": self.server.script.replace(read_json(body))})
        except BadRule as error:
            raise BadRequest(str(error), "script") from error

    def _delete_script(self, _body: bytes) -> None:
        self.server.script.replace([])
        self.server.calls.clear()
        self.wire.send_json(200, {"rules": 0})

    def _calls(self, _body: bytes) -> None:
        calls = self.server.calls
        self.wire.send_json(200, {"calls": calls.by_id(), "open": calls.open(), "closed_early": calls.closed_early()})

    def _body(self) -> bytes:
        """The request's body. Raises `BadRequest` (400, 411, 413) or `ClientLeft`."""
        if "Transfer-Encoding" in self.headers:
            self.wire.keep_alive = False
            raise BadRequest("Send a Content-Length, not a Transfer-Encoding.", status=411)
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()):
            self.wire.keep_alive = False
            raise BadRequest("Content-Length must be a number.")
        size = int(length[:20])
        if size > BODY_BYTES:
            self.wire.keep_alive = False
            self._drain(size)
            raise BadRequest(f"The body may have {BODY_BYTES} bytes, this one has {length[:20]}.", status=413)
        body = self.rfile.read(size)
        if len(body) < size:
            raise ClientLeft
        return body

    def _drain(self, size: int) -> None:
        # To close on a client that still sends would reset the connection, and the client would never see the 413.
        remaining, deadline = min(size, DRAIN_BYTES), time.monotonic() + DRAIN_SECONDS
        self.connection.settimeout(DRAIN_SECONDS)
        try:
            while remaining > 0 and time.monotonic() < deadline:
                read = len(self.rfile.read1(min(remaining, BODY_BYTES)))
                if not read:
                    raise ClientLeft
                remaining -= read
        except TimeoutError:
            return
        finally:
            self.connection.settimeout(None)
