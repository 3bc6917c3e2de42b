"""nginx as an ordinary child process: the one of the image with the page in it, and an ingress before the functions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.servers.ports import LOOPBACK, accepts_connections, free_port
from tests.servers.process import ServerProcess
from web.build import build

WEB = Path(__file__).resolve().parents[2] / "web"

#: What of web/nginx.conf is not so on this machine: at most the port, the page's place, and the folder for files.
LISTEN = "listen 8080;\n        listen [::]:8080;"
ROOT = "/usr/share/sluice/page"

#: Routes as a Kubernetes Ingress does: each path exactly, and all that is below it ("pathType: Prefix").
INGRESS = """\
daemon off;
pid {here}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    client_max_body_size 1m;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    server {{
        listen {host}:{port};
{routes}    }}
}}
"""


def nginx_missing() -> str | None:
    """None if nginx can be run here, else the reason and what to do about it."""
    return None if _nginx() else "no nginx here: apt-get install --no-install-recommends nginx-light"


def _nginx() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


class Nginx(ServerProcess):
    """One nginx with the configuration given, on `port`; it stays there over `kill` and `start`."""

    def __init__(self, name: str, directory: Path, configuration: str, port: int) -> None:
        self.port = port
        directory.mkdir(parents=True, exist_ok=True)
        self.file = directory / "nginx.conf"
        self.file.write_text(configuration)
        super().__init__(
            name,
            [_nginx() or "nginx", "-e", "stderr", "-c", self.file.resolve(), *_as_whom()],
            directory,
            ready=lambda: accepts_connections(port),
        )

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://{LOOPBACK}:{self.port}"


class WebNginx(Nginx):
    """The page as in production: built by web/build.py, served by web/nginx.conf."""

    def __init__(self, directory: Path, page: Path = WEB / "page") -> None:
        port = free_port()
        here = directory.resolve()
        self.root = here / "page"
        self.release = build(self.root, page)
        super().__init__("nginx-web", directory, image_configuration(here, port), port)
        shutil.copy(WEB / "headers.conf", directory)


class Ingress(Nginx):
    """One origin: the page at `/`, and the functions at the paths (`/tasks/add`) that are keys of `functions`."""

    def __init__(self, directory: Path, web: str, functions: Mapping[str, str]) -> None:
        routes = [f"location = {path} {{ proxy_pass {url}; }}\n" for path, url in functions.items()]
        routes += [f"location {path}/ {{ proxy_pass {url}; }}\n" for path, url in functions.items()]
        routes += [f"location / {{ proxy_pass {web}; }}\n"]
        port = free_port()
        lines = "".join(" " * 8 + route for route in routes)
        configuration = INGRESS.format(here=directory.resolve(), host=LOOPBACK, port=port, routes=lines)
        super().__init__("nginx-ingress", directory, configuration, port)


def image_configuration(here: Path, port: int) -> str:
    """web/nginx.conf, but for the port, and with its files and the page in the folder `here`."""
    text = (WEB / "nginx.conf").read_text()
    for old, new in ((LISTEN, f"listen {LOOPBACK}:{port};"), (" /tmp/", f" {here}/"), (ROOT, f"{here}/page")):
        assert old in text, f"web/nginx.conf has no {old!r} any more"
        text = text.replace(old, new)
    return text


def _as_whom() -> list[str]:
    # Workers of root's would be nobody's, who can't read the tests' folders. In the image nobody is root.
    return ["-g", "user root;"] if os.getuid() == 0 else []
