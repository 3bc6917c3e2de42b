"""One WSGI application: each function behind its public path, and the page for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import flask
import functions_framework
from werkzeug.exceptions import HTTPException

from embedded.headers import read_headers
from functions.engine.engine import Engine
from functions.engine.health import respond
from sluice.flask_door import problem_of
from sluice.services import Services

ROOT = Path(__file__).resolve().parent.parent

#: The public path of each function, as the ingress has it.
FUNCTIONS = {
    "/tasks/add": "add_task",
    "/tasks/get": "get_tasks",
    "/tasks/cancel": "cancel_task",
    "/tasks/retry": "retry_task",
}

#: Not what the machine's own table says: some call a script text/plain, and then no browser runs it.
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


def make_app(engine: Engine, services: Services, web: Path = ROOT / "web") -> WsgiApp:
    """The application. Loads each function as functions-framework does, from its own source file.

    `web` holds the page in `page`, and `headers.conf`; InvalidSettings is raised if that can't be read.
    """
    functions: dict[str, WsgiApp] = {
        path: functions_framework.create_app(name, str(ROOT / "functions" / name / "main.py"))
        for path, name in FUNCTIONS.items()
    }
    page = _page(engine, services, web)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        for prefix, function in functions.items():
            if path == prefix or path.startswith(f"{prefix}/"):
                return function(environ, start_response)
        return page(environ, start_response)

    return app


def _page(engine: Engine, services: Services, web: Path) -> flask.Flask:
    app = flask.Flask("page", static_folder=None)
    headers = read_headers(web / "headers.conf")

    @app.get("/healthz")
    @app.get("/readyz")
    @app.get("/metrics")
    def health() -> flask.Response:
        status, content_type, body = respond(flask.request.path, engine, services)
        return flask.Response(body, status, content_type=content_type)

    @app.get("/")
    @app.get("/<path:path>")
    def static(path: str = "index.html") -> flask.Response:
        if any(part.startswith(".") for part in path.split("/")):
            flask.abort(HTTPStatus.NOT_FOUND)
        content_type = TYPES.get(Path(path).suffix, "application/octet-stream")
        response = flask.send_from_directory(web / "page", path, mimetype=content_type)
        response.headers["Cache-Control"] = "no-cache"
        return response

    @app.after_request
    def secure(response: flask.Response) -> flask.Response:
        response.headers.update(headers)
        return response

    app.register_error_handler(HTTPException, problem_of)
    return app
