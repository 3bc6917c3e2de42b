"""A client of an ASGI application that is used as a client of a WSGI one: the same tests ask both doors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from werkzeug.exceptions import ClientDisconnected
from werkzeug.test import Client
from werkzeug.wsgi import get_input_stream


class AsgiClient(Client):
    """Runs the application on an event loop, one request after another, without a server between."""

    def __init__(self, application: Any) -> None:
        self._asgi = application
        super().__init__(self._wsgi)

    def _wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        stream = get_input_stream(environ)
        headers = [
            (name.removeprefix("HTTP_").replace("_", "-").lower().encode(), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
        ]
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": environ["REQUEST_METHOD"],
            "scheme": "http",
            "path": path,
            "raw_path": environ["PATH_INFO"].encode("latin-1"),
            "query_string": environ["QUERY_STRING"].encode("latin-1"),
            "root_path": "",
            "headers": headers,
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            try:
                chunk = stream.read(65536)
            except (ClientDisconnected, OSError):
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunk, "more_body": len(chunk) == 65536}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self._asgi(scope, receive, send))
        start, *bodies = sent
        status = HTTPStatus(start["status"])
        start_response(
            f"{status.value} {status.phrase}",
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]],
        )
        body = b"".join(message.get("body", b"") for message in bodies)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
