"""What the bench's figures of workers rest on: marks, their faults, the time between them, and the store that costs
nothing."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from bench import marks, tasks
from bench.engine import FreeStore, find
from bench.marks import GATE, Mark, Marks, faults, gaps, mark
from bench.workers import Job, _times
from functions.engine.handler import Step
from sluice.settings import Settings
from sluice.task import Task

ROOT = Path(__file__).resolve().parents[2]
ONE, TWO, THREE = (tasks.task_id(number) for number in (1, 2, 3))
HERE, THERE = (1, 1), (1, 2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARKS", str(tmp_path))
    monkeypatch.setattr(marks, "_writer", None)
    return tmp_path


def test_marks_tell_which_task_ran_where_and_when(folder: Path) -> None:
    mark(ONE, 0.01)
    mark(TWO)
    first, second = Marks(folder).read()
    assert (first.task_id, second.task_id) == (ONE, TWO)
    assert first.place == second.place == (os.getpid(), threading.get_ident())
    assert first.started + 0.01 <= first.ended <= second.started <= second.ended
    assert Marks(folder).count() == 2


def test_marks_of_many_threads_are_all_kept(folder: Path) -> None:
    def many(first: int) -> None:
        for number in range(first, first + 200):
            mark(tasks.task_id(number))

    threads = [threading.Thread(target=many, args=[first]) for first in range(0, 1_000, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults(Marks(folder).read(), {tasks.task_id(number) for number in range(1_000)}) is None
    assert Marks(folder).count() == 1_000


def test_a_file_that_is_just_being_made_holds_no_marks(folder: Path) -> None:
    (folder / "1.marks").touch()
    assert Marks(folder).count() == 0
    assert Marks(folder).read() == []


FORKING = f"""
import os
from bench.marks import mark
mark("{ONE}")
if os.fork() == 0:
    mark("{TWO}")
    os._exit(0)
os.wait()
"""


def test_a_forked_worker_has_its_own_file(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKING], check=True, cwd=ROOT, env={**os.environ, "MARKS": str(folder)})
    found = Marks(folder).read()
    assert sorted(mark.task_id for mark in found) == [ONE, TWO]
    assert len({mark.place[0] for mark in found}) == 2


def test_handlers_wait_at_a_gate_that_is_shut(folder: Path) -> None:
    done = threading.Event()
    with Marks(folder) as gate:
        thread = threading.Thread(target=lambda: (mark(ONE), done.set()))
        thread.start()
        assert not done.wait(0.2)
        assert gate.count() == 0
        with (folder / GATE).open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        gate.open_gate()
        assert done.wait(5)
    thread.join()
    assert gate.count() == 1


def _mark(task_id: str, started: float, ended: float, place: tuple[int, int] = HERE) -> Mark:
    return Mark(task_id, place, started, ended)


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ([ONE, TWO], None),
        ([ONE], "1 of 2 tasks were not done"),
        ([ONE, TWO, TWO], "1 tasks were done more than once"),
        ([ONE, TWO, THREE], "1 tasks were done that nobody had sent"),
        ([ONE, ONE], "1 of 2 tasks were not done; 1 tasks were done more than once"),
    ],
)
def test_each_task_must_be_done_once(done: list[str], said: str | None) -> None:
    assert faults([_mark(task_id, 0, 1) for task_id in done], {ONE, TWO}) == said


def test_what_a_place_loses_is_between_its_own_tasks() -> None:
    found = [_mark(ONE, 0, 1), _mark(TWO, 0.5, 2, THERE), _mark(THREE, 1.25, 2)]
    assert gaps(found) == [0.25]


def test_the_share_of_the_ideal_counts_from_the_first_start_to_the_last_end() -> None:
    found = [_mark(ONE, 10, 11), _mark(TWO, 10, 11, THERE), _mark(THREE, 11.5, 12.5), _mark(ONE, 11.5, 12.5, THERE)]
    sample = _times(found, Job(count=4, seconds=1), places=2)
    assert sample["tasks/s"] == 4 / 2.5
    assert sample["share of the ideal"] == pytest.approx(0.8)
    assert sample["lost ms p50"] == 500


def test_a_task_of_the_bench_is_a_message_as_add_makes_it() -> None:
    task = Task.from_message(tasks.sluice_task(7, 1_024).to_message())
    assert task.id == tasks.task_id(7)
    assert task.status == "pending"
    assert len(task.document["text"]) == 1_024
    assert Task.from_message(tasks.sluice_code_task(7).to_message()).kind == "code"


def test_the_free_store_gives_every_task_to_its_handler() -> None:
    claimed = FreeStore().claim(ONE, engine="e", lease=timedelta(seconds=1), token="t")
    assert (claimed.id, claimed.status, claimed.attempts) == (ONE, "running", 1)


def test_the_free_store_has_whatever_the_engine_asks_of_a_store() -> None:
    sources = [*(ROOT / "functions" / "engine").glob("*.py"), ROOT / "sluice" / "sweep.py"]
    asked = {name for path in sources for name in re.findall(r"\bstore\.(\w+)", path.read_text())}
    asked |= {name for path in sources for name in re.findall(r"\b_store\.(\w+)", path.read_text())}
    asked -= {"MongoTaskStore", "import", "py"}
    assert {"claim", "finish", "hold", "overdue"} <= asked
    assert sorted(name for name in asked if not hasattr(FreeStore(), name)) == []


def test_the_handler_of_the_bench_gives_each_kind_its_own_outputs(folder: Path) -> None:
    step = Step(ONE, Settings())
    assert find("message")(None, step).model_dump() == {"message": ""}
    assert find("code")(None, step).code == ""
    assert [found.task_id for found in Marks(folder).read()] == [ONE, ONE]
