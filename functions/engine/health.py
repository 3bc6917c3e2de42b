"""The engine's answers to Kubernetes and Prometheus: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from functions.engine.engine import Engine
from sluice.errors import Unavailable
from sluice.services import Services


class HealthServer:
    """Serves on a thread of its own. `port` is the one that it listens on (the system's choice when given 0)."""

    def __init__(self, engine: Engine, services: Services, host: str, port: int) -> None:
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

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def respond(path: str, engine: Engine, services: Services) -> tuple[int, str, bytes]:
    """Status, content type and body. Healthy: a restart would mend nothing. Ready: tasks can be taken and stored."""
    if path == "/metrics":
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return 200, CONTENT_TYPE_LATEST, generate_latest()
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
