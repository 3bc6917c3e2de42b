"""The engine's answers to Kubernetes and Prometheus: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

from functions.engine.engine import Engine
from sluice.errors import Unavailable
from sluice.metrics import exposition
from sluice.services import Services

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer


class HealthServer:
    """Listens from the beginning, on `port` (the system's choice when given 0), and answers from `start` on, by threads
    of its own. Raises OSError when it can't listen."""

    def __init__(self, engine: Engine, services: Services, host: str, port: int) -> None:
        self._engine = engine
        self._services = services
        self._listener = socket.create_server((host, port))
        self._server: ThreadingHTTPServer | None = None
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> None:
        # Imported here: a first message that waits for the engine comes before who asks for its health.
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        engine, services = self._engine, self._services

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30  # seconds that an idle connection keeps its thread

            def do_GET(self) -> None:
                status, content_type, body = respond(self.path, engine, services)
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = self._listener
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
        self._server = server

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
        self._listener.close()


def respond(path: str, engine: Engine, services: Services) -> tuple[int, str, bytes]:
    """Status, content type and body. Healthy: a restart would mend nothing. Ready: tasks can be taken and stored."""
    if path == "/metrics":
        return 200, *exposition(services.settings.prometheus_multiproc_dir)
    if path == "/healthz":
        complaints = engine.complaints()
        return _json(503 if complaints else 200, {"status": "unwell" if complaints else "ok", "complaints": complaints})
    if path == "/readyz":
        database = "ok"
        try:
            services.store.ping()
        except Unavailable:
            database = "away"
        queue = "ok" if engine.is_consuming else "away"
        is_ready = (database, queue) == ("ok", "ok")
        content = {"status": "ready" if is_ready else "not ready", "database": database, "queue": queue}
        return _json(200 if is_ready else 503, {**content, **services.stand_ins})
    return _json(404, {"status": "not found"})


def _json(status: int, content: object) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(content).encode() + b"\n"
