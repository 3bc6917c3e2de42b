"""What the page has taken from others is what npm brings, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.servers import require
from tests.servers.npm import WEB, modules_missing
from web.vendor import vendored


def test_the_vendored_files_are_those_that_npm_brings() -> None:
    require(modules_missing())
    vendor = WEB / "page" / "vendor"
    there = {path.relative_to(vendor).as_posix(): path.read_bytes() for path in vendor.rglob("*") if path.is_file()}
    brought = vendored()
    assert sorted(there) == sorted(brought)
    assert [name for name, content in brought.items() if there[name] != content] == [], "make vendor"


def test_no_file_of_ours_names_a_registry(root: Path) -> None:
    locks = [*root.glob("web/package-lock.json"), *root.glob("bench/*/package-lock.json")]
    assert locks
    for lock in locks:
        assert '"resolved"' not in lock.read_text(), lock
