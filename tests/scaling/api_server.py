"""As much of the Kubernetes API as a client needs that asks how many engines are wanted and ready."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import yaml

from tests.servers.ports import LOOPBACK

NAMESPACE, NAME = "sluice", "engine"

#: The one path that is served.
PATH = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}"


class ApiServer:
    """Serves the Deployment `engine` while it is entered. `wanted` and `ready` are asked at each request."""

    def __init__(self, wanted: Callable[[], int], ready: Callable[[], int]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                is_here = self.path.partition("?")[0] == PATH
                content = deployment(wanted(), ready()) if is_here else NOT_FOUND
                body = json.dumps(content).encode()
                self.send_response(200 if is_here else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="api-server", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._server.server_address[1]}"

    def write_kubeconfig(self, path: Path) -> None:
        cluster = {"name": "scaling", "cluster": {"server": self.url}}
        user = {"name": "nobody", "user": {}}
        context = {"name": "scaling", "context": {"cluster": "scaling", "user": "nobody", "namespace": NAMESPACE}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "scaling"}
        path.write_text(yaml.safe_dump({**config, "clusters": [cluster], "users": [user], "contexts": [context]}))


#: `kind: Status`, as the API answers what there is not.
NOT_FOUND = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}


def deployment(wanted: int, ready: int) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": NAME}
    containers = [{"name": NAME, "image": "sluice/engine"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    # A count of zero is left out, as the API server does (`omitempty`).
    status = {"replicas": wanted, "readyReplicas": ready}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"replicas": wanted, "selector": {"matchLabels": labels}, "template": template},
        "status": {name: count for name, count in status.items() if count},
    }
