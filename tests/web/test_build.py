"""The tree that nginx serves."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from web.build import PAGE, PageError, build

INDEX = """<!doctype html>
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="./style.css">
<link rel="modulepreload" href="app/form.js">
<script type="module" src="/app/main.js"></script>
<a href="app/form.js">a link</a> <img src="data:,"> <a href="#here">icon.svg</a>
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "page"
    files = {
        "index.html": INDEX,
        "icon.svg": "<svg/>",
        "style.css": "b { color: red }\n" * 50,
        "app/main.js": "import './form.js'\n" * 50,
        "app/form.js": "",
        "vendor/big.js": "export default 1",
        ".hidden": "",
    }
    for name, content in files.items():
        (page / name).parent.mkdir(parents=True, exist_ok=True)
        (page / name).write_text(content)
    return page


def tree(folder: Path) -> dict[str, tuple[bytes, float]]:
    """Every file, with its content and its time."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_index_names_files_that_are_there_under_the_releases_hash(page: Path, tmp_path: Path) -> None:
    release = build(tmp_path / "out", page)
    assert re.fullmatch("[0-9a-f]{16}", release)
    html = (tmp_path / "out/index.html").read_text()
    here = f"assets/{release}"
    assert re.findall('(?:href|src)="(.*?)"', html) == [
        *(f"{here}/icon.svg", f"{here}/style.css", f"{here}/app/form.js", f"/{here}/app/main.js"),
        *("app/form.js", "data:,", "#here"),
    ]
    names = {"icon.svg", "style.css", "style.css.gz", "app/main.js", "app/main.js.gz", "app/form.js", "vendor/big.js"}
    assert set(tree(tmp_path / "out")) == {"index.html", "index.html.gz"} | {f"{here}/{name}" for name in names}


@pytest.mark.parametrize("real", [False, True], ids=["small", "real"])
def test_two_builds_are_the_same_to_the_byte_and_the_second(page: Path, tmp_path: Path, real: bool) -> None:
    source = PAGE if real else page
    copy = shutil.copytree(source, tmp_path / "copy")
    build(tmp_path / "one", source)
    build(tmp_path / "two", copy)
    build(tmp_path / "two", copy)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_what_is_compressed_is_the_same_when_it_is_unpacked(tmp_path: Path) -> None:
    build(tmp_path / "out")
    packed = list((tmp_path / "out").rglob("*.gz"))
    assert tmp_path / "out/index.html.gz" in packed
    for path in packed:
        assert gzip.decompress(path.read_bytes()) == path.with_suffix("").read_bytes()
        assert path.stat().st_size < path.with_suffix("").stat().st_size


@pytest.mark.parametrize("name", ["style.css", "app/form.js", "vendor/big.js"])
def test_each_change_of_a_file_is_a_new_release_with_another_time(page: Path, tmp_path: Path, name: str) -> None:
    """The time, because nginx makes the ETag of that and the size, which is the same for each index.html."""
    before = build(tmp_path / "before", page)
    (page / name).write_text((page / name).read_text() + " ")
    after = build(tmp_path / "after", page)
    assert before != after
    old, new = (tmp_path / folder / "index.html" for folder in ("before", "after"))
    assert old.stat().st_size == new.stat().st_size
    assert old.stat().st_mtime != new.stat().st_mtime


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"./style.css"', '"stile.css"', "names stile.css, which is not there"),
        ('<link rel="modulepreload" href="app/form.js">', "", 'lacks <link rel="modulepreload" href="app/form.js">'),
        ('href="app/form.js"', 'href="vendor/big.js"', "preloads vendor/big.js, which is loaded on demand"),
        ('"icon.svg"', "'icon.svg'", "put icon.svg in double quotes"),
    ],
)
def test_a_page_that_would_not_work_is_not_built(page: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    index = page / "index.html"
    index.write_text(index.read_text().replace(old, new, 1))
    with pytest.raises(PageError, match=re.escape(words)):
        build(tmp_path / "out", page)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(page: Path, tmp_path: Path) -> None:
    with pytest.raises(PageError, match="holds something else"):
        build(tmp_path, page)
    assert page.exists()


def test_the_command_says_what_it_made_and_what_is_wrong(tmp_path: Path, root: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "web/build.py", *arguments]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    made = run(str(tmp_path / "out"))
    assert (made.returncode, made.stderr) == (0, "")
    assert re.fullmatch(r".*/out: release [0-9a-f]{16}\n", made.stdout)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    refused = run(str(tmp_path / "full"))
    assert (refused.returncode, "holds something else" in refused.stderr) == (1, True)
    assert "Traceback" not in refused.stderr
    assert run().returncode == 1
