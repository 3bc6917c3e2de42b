"""A run of the bench, to its end or to an early one: with made-up cases, in a lab without servers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]

#: The first case is done at once, the second one breaks, and the third one waits to be ended.
RUN = """
import sys, threading, types
from pathlib import Path
from bench import __main__ as bench, report
from bench.figures import Result, Table

folder = Path(sys.argv.pop(1))
report.PAGE, report.PICTURES = folder / "page.md", folder / "pictures"
report.machine = lambda lab, cases: "machine of " + ", ".join(cases)
bench.rabbitmq_missing = lambda: None
bench.CASES = {"one": (1, 1), "two": (2, 1), "three": (3, 1)}

class Lab:
    def __init__(self, quick):
        self.quick = quick
    def __enter__(self):
        (folder / "lab").touch()
        return self
    def __exit__(self, *_):
        (folder / "lab").unlink()

def one(lab):
    return Result([Table("one", "One", ["worker", "tasks/s"], [["ours", "111"]])])

def two(lab):
    raise OSError("no server")

def three(lab):
    (folder / "waits").touch()
    threading.Event().wait(60)

bench.Lab = Lab
for run in (one, two, three):
    sys.modules[f"bench.cases.{run.__name__}"] = types.SimpleNamespace(TITLE="", run=run)
sys.exit(bench.main())
"""

PAGE = "".join(f"<!-- bench:{slug} -->\n<!-- /bench -->\n" for slug in ("machine", "one-run", "one", "three-run"))


def _started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A run as a shell starts it in the background: SIGINT is ignored when it begins."""
    (folder / "page.md").write_text(PAGE)
    command = [sys.executable, "-c", RUN, str(folder), "--write", *arguments]
    shell = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    return subprocess.Popen(shell, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_early_keeps_the_cases_that_were_done_and_ends_its_lab(
    tmp_path: Path, number: signal.Signals
) -> None:
    with _started(tmp_path) as run:
        try:
            eventually((tmp_path / "waits").exists, seconds=30)
            page = (tmp_path / "page.md").read_text()
            assert "| ours | 111 |" in page, "a case is written when it is done"
            assert "machine of one\n" in page
            assert "<!-- bench:one-run -->\nMeasured on " in page
            assert (tmp_path / "lab").exists()
            run.send_signal(number)
            _, errors = run.communicate(timeout=30)
        finally:
            run.kill()
    assert run.returncode == 130
    assert errors.endswith("ended early\n")
    assert not (tmp_path / "lab").exists()
    assert (tmp_path / "page.md").read_text() == page


def test_a_case_that_breaks_leaves_the_others_and_fails_the_run(tmp_path: Path) -> None:
    with _started(tmp_path, "--only", "two,one") as run:
        output, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "OSError: no server" in errors
    assert errors.endswith("BROKEN: two\n")
    assert "about 3 min\n" in output
    assert "=== one, about 1 min\n" in output
    assert "| ours | 111 |" in (tmp_path / "page.md").read_text()
