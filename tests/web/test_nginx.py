"""The nginx of the image, and the security headers that the page has wherever it is served."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from embedded.headers import read_headers
from sluice.errors import InvalidSettings
from tests.e2e.embedded import Embedded
from tests.servers import require
from tests.servers.nginx import WEB, Nginx, WebNginx, image_configuration, nginx_missing

HEADERS = dict(read_headers(WEB / "headers.conf"))

FILES = {
    "index.html": '<!doctype html><link rel="modulepreload" href="app/main.js">' + "<p>word</p>" * 200,
    "style.css": "b { color: red }\n" * 100,
    "app/main.js": "// è\n" * 500,
    "icon.svg": "<svg/>",
    "data.json": "{}",
    "app.webmanifest": "{}",
    "picture.png": "",
    "font.woff2": "",
    "LICENSE": "",
}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebNginx]:
    require(nginx_missing())
    page = tmp_path_factory.mktemp("source")
    for name, content in FILES.items():
        (page / name).parent.mkdir(parents=True, exist_ok=True)
        (page / name).write_text(content)
    with WebNginx(tmp_path_factory.mktemp("web"), page) as web:
        yield web


@pytest.fixture
def client(web: WebNginx) -> Iterator[httpx2.Client]:
    """It can't unpack anything, if a test does not say that it can."""
    with httpx2.Client(base_url=web.url, headers={"accept-encoding": "identity"}) as client:
        yield client


def asset(web: WebNginx, name: str) -> str:
    """The path of a file of the page."""
    return f"/assets/{web.release}/{name}"


def assert_secure(answer: httpx2.Response) -> None:
    for name, value in HEADERS.items():
        assert answer.headers.get_list(name) == [value], name


def test_the_headers_are_the_ones_that_were_decided_on() -> None:
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["frame-ancestors"] == policy["trusted-types"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["manifest-src"] == "'self'"
    assert policy["img-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert set(HEADERS) == {
        *("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Permissions-Policy"),
        *("Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy"),
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/index.html", 200),
        ("GET", "a:app/main.js", 200),
        ("GET", "/healthz", 200),
        ("GET", "/nowhere", 404),
        ("GET", "a:nowhere.js", 404),
        ("GET", "/assets/", 404),
        ("GET", "/.git/config", 404),
        ("POST", "/", 405),
        ("POST", "a:app/main.js", 405),
        ("DELETE", "/nowhere", 405),
        ("PUT", "/healthz", 405),
        ("GET", "/%00", 400),
        ("GET", f"/{'a' * 9000}", 414),
    ],
)
def test_every_answer_has_the_security_headers(
    web: WebNginx, client: httpx2.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, asset(web, path[2:]) if path.startswith("a:") else path)
    assert answer.status_code == status
    assert_secure(answer)
    assert answer.headers["server"] == "nginx"


@pytest.mark.parametrize("path", ["/", "/index.html"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_the_page_is_asked_for_each_time_and_not_sent_again(client: httpx2.Client, path: str, encoding: str) -> None:
    first = client.get(path, headers={"accept-encoding": encoding})
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    assert "last-modified" not in first.headers
    again = client.get(path, headers={"accept-encoding": encoding, "if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"
    assert_secure(again)
    assert client.get(path, headers={"if-none-match": '"another"'}).status_code == 200


def test_assets_are_kept_for_ever_but_not_that_one_is_missing(web: WebNginx, client: httpx2.Client) -> None:
    found = client.get(asset(web, "style.css"))
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    again = client.get(asset(web, "style.css"), headers={"if-none-match": found.headers["etag"]})
    assert again.status_code == 304
    assert_secure(again)
    for path in ("/assets/0123456789abcdef/style.css", asset(web, "nowhere.css"), asset(web, "app"), "/style.css"):
        missing = client.get(path)
        assert (missing.status_code, missing.headers["cache-control"]) == (404, "no-store")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("app/main.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("data.json", "application/json"),
        ("app.webmanifest", "application/manifest+json"),
        ("picture.png", "image/png"),
        ("font.woff2", "font/woff2"),
        ("LICENSE", "application/octet-stream"),
    ],
)
def test_each_file_has_its_type(web: WebNginx, client: httpx2.Client, name: str, content_type: str) -> None:
    assert client.get(asset(web, name)).headers["content-type"] == content_type


@pytest.mark.parametrize("name", ["index.html", "style.css", "app/main.js"])
def test_a_browser_that_can_unpack_gets_the_packed_file(web: WebNginx, client: httpx2.Client, name: str) -> None:
    path = "/" if name == "index.html" else asset(web, name)
    plain = client.get(path)
    packed = client.get(path, headers={"accept-encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.text == plain.text
    file = web.root / (path.lstrip("/") or "index.html")
    assert int(packed.headers["content-length"]) == file.with_name(f"{file.name}.gz").stat().st_size
    assert packed.headers["etag"] != plain.headers["etag"]


def test_only_get_and_head_are_taken_and_that_is_said(client: httpx2.Client) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        refused = client.request(method, "/", content=b"x" * 5000)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert client.head("/").content == b""


@pytest.mark.parametrize("path", ["/..%2fnginx.conf", "/assets/..%2f..%2fnginx.conf", "/assets/.hidden", "/tasks/add"])
def test_nothing_but_the_page_is_served(client: httpx2.Client, path: str) -> None:
    assert client.get(path).status_code in {400, 404}


def test_a_symbolic_link_leads_nowhere(web: WebNginx, client: httpx2.Client) -> None:
    link = web.root / "assets" / web.release / "link.txt"
    link.symlink_to("/etc/hostname")
    assert client.get(asset(web, "link.txt")).status_code == 404
    link.unlink()


def test_it_says_that_it_is_well_and_logs_a_line_of_json_for_the_rest(web: WebNginx, client: httpx2.Client) -> None:
    well = client.get("/healthz")
    assert (well.text, well.headers["cache-control"]) == ("ok\n", "no-store")
    client.get('/a"b')
    assert re.search(r'"message":"GET /a\\"b","status":404,', web.log_text())
    assert "GET /healthz" not in web.log_text()
    assert "[warn]" not in web.log_text()


def test_the_configuration_is_one_that_nginx_accepts(tmp_path: Path, web: WebNginx) -> None:
    """As it is written for the image, but for the folder that it writes to."""
    text = (WEB / "nginx.conf").read_text()
    for location in text.split("location ")[1:]:
        assert ("include headers.conf;" in location) == ("add_header" in location), "it would hide the server's"
    (tmp_path / "nginx.conf").write_text(text.replace(" /tmp/", f" {tmp_path}/"))
    (tmp_path / "headers.conf").write_text((WEB / "headers.conf").read_text())
    tested = Nginx("test", tmp_path / "other", image_configuration(tmp_path, 1), 1)
    command = [*tested.command[:1], "-t", "-e", "stderr", "-c", tmp_path / "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


def test_make_run_sends_the_same_headers(tmp_path: Path) -> None:
    paths: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/", {}),
        ("GET", "/nowhere", {}),
        ("POST", "/", {}),
        ("GET", "/.npmrc", {}),
        ("GET", "/icon.svg", {}),
    ]
    with Embedded(tmp_path) as sluice:
        answers = [sluice.client.request(method, path, **more) for method, path, more in paths]
        etag = {"if-none-match": answers[0].headers["etag"]}
        answers.append(sluice.client.get("/", headers=etag))
        script = sluice.client.get("/vendor/highlight/core.min.js")
    assert [answer.status_code for answer in answers] == [200, 404, 405, 404, 200, 304]
    for answer in answers:
        assert_secure(answer)
    assert answers[0].headers["cache-control"] == answers[5].headers["cache-control"] == "no-cache"
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answers[4].headers["content-type"].startswith("image/svg+xml")


@pytest.mark.parametrize(
    "line", ["add_header X y;", 'add_header X "y";', "expires max;", 'add_header X "$host" always;']
)
def test_a_line_that_only_nginx_can_read_is_an_error(tmp_path: Path, line: str) -> None:
    file = tmp_path / "headers.conf"
    file.write_text(f'# words\n\nadd_header A "b" always;\n{line}\n')
    with pytest.raises(InvalidSettings, match="line 4"):
        read_headers(file)
    with pytest.raises(InvalidSettings, match="can't be read"):
        read_headers(tmp_path / "nowhere.conf")
