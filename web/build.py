"""`python web/build.py OUT`: makes the tree that nginx serves from page/.

    OUT/index.html                 asked for each time; names what it needs by assets/HASH/…
    OUT/assets/HASH/…              every other file, kept by browsers for ever: HASH is over all of them
    ….gz                           beside each file that gets smaller, for gzip_static

One hash for the whole release, so that modules import each other by the same relative paths as in development.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "page"
COMPRESSIBLE = {".css", ".html", ".ico", ".js", ".json", ".svg", ".txt", ".webmanifest"}
REFERENCE = {"link": "href", "script": "src", "img": "src"}


class PageError(Exception):
    """The page can't be built as it is. The message says what to mend."""


class References(HTMLParser):
    """The local files that a page names: as (tag as it is written, path as it is written), and which it preloads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.preloaded: set[str] = set()
        self.scripts: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get(REFERENCE.get(tag, "")) or ""
        if not name or re.match(r"[a-z]+:|//|#", name):
            return
        self.found.append((self.get_starttag_text() or "", name))
        if tag == "script":
            self.scripts.add(_path(name))
        if given.get("rel") == "modulepreload":
            self.preloaded.add(_path(name))


def build(out: Path, page: Path = PAGE) -> str:
    """Makes `out` anew and returns the release's hash. Raises PageError."""
    files = {name: (page / name).read_bytes() for name in _names(page)}
    if "index.html" not in files:
        raise PageError(f"there is no {page}/index.html")
    html = files.pop("index.html").decode()
    references = References(html)
    _check(references, set(files))
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    release = digest.hexdigest()[:16]
    for tag, name in references.found:
        path = f"assets/{release}/{_path(name)}"
        moved = tag.replace(f'"{name}"', f'"{"/" if name.startswith("/") else ""}{path}"')
        if moved == tag:
            raise PageError(f"index.html: put {name} in double quotes: {tag}")
        html = html.replace(tag, moved)
    if out.exists() and any(out.iterdir()) and not (out / "index.html").exists():
        raise PageError(f"{out} holds something else; it would be deleted")
    shutil.rmtree(out, ignore_errors=True)
    _write(out / "index.html", html.encode())
    for name, content in files.items():
        _write(out / "assets" / release / name, content)
    return release


def _names(page: Path) -> list[str]:
    paths = (path.relative_to(page) for path in page.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def _path(name: str) -> str:
    return re.split("[?#]", name)[0].removeprefix("./").removeprefix("/")


def _check(references: References, files: set[str]) -> None:
    named = sorted({_path(name) for _, name in references.found})
    wrong = [f"names {name}, which is not there" for name in named if name not in files]
    modules = {name for name in files if name.startswith("app/") and name.endswith(".js")}
    unnamed = sorted(modules - references.preloaded - references.scripts)
    wrong += [f'lacks <link rel="modulepreload" href="{name}">' for name in unnamed]
    early = sorted(name for name in references.preloaded if name.startswith("vendor/"))
    wrong += [f"preloads {name}, which is loaded on demand" for name in early]
    if wrong:
        raise PageError("index.html " + "; ".join(wrong))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    compressed = gzip.compress(content, mtime=0) if path.suffix in COMPRESSIBLE else content
    # nginx makes the ETag of the time and the size of a file. Two releases of index.html are of one size, and of one
    # time too where an image is built reproducibly: so the time says what the content is.
    seconds = 946_684_800 + int(hashlib.sha256(content).hexdigest()[:7], 16)
    for target, data in ((path, content), (path.with_name(f"{path.name}.gz"), compressed)):
        if target == path or len(data) < len(content):
            target.write_bytes(data)
            os.utime(target, (seconds, seconds))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python web/build.py OUT")
    try:
        print(f"{sys.argv[1]}: release {build(Path(sys.argv[1]))}")  # noqa: T201
    except PageError as error:
        sys.exit(f"web/build.py: {error}")
