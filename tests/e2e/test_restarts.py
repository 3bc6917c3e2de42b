"""What an engine's end costs, with processes as in production; what a server's restart may cost is in
test_endurance.py."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.e2e.stack import Stack
from tests.servers.process import ServerProcess
from tests.waiting import eventually


def test_a_stopping_engine_finishes_what_it_has_begun_and_leaves_the_rest_to_others(
    stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    """Two engines run ten tasks each and have room for more, and more come while one of the two is told to stop."""
    grace = 10
    stack.settings |= {"ENGINE_CONCURRENCY": "40", "ENGINE_GRACE_SECONDS": str(grace)}
    stack.start_functions("add", "get")
    stack.model.script([{"seconds": 3.0}])
    first, second = stack.start_engine(), stack.start_engine()
    running = [stack.add() for _ in range(20)]
    eventually(lambda: stack.model.open_calls() == 20)
    assert len(_begun_by(first)) == len(_begun_by(second)) == 10

    coming = [stack.add() for _ in range(10)]
    first.terminate()
    told = time.monotonic()
    coming += [stack.add() for _ in range(10)]
    eventually(lambda: "are being finished" in first.log_text())
    afterwards = [stack.add() for _ in range(5)]
    assert first.wait(grace) == 0
    stopped = time.monotonic()

    ids = running + coming + afterwards
    tasks = stack.wait_until_done(ids)
    assert {(task["status"], task["attempts"]) for task in tasks} == {("completed", 1)}
    assert stack.model.calls() == dict.fromkeys(ids, 1)
    assert sorted(_begun_by(first) + _begun_by(second)) == sorted(ids)
    assert set(afterwards) <= set(_begun_by(second))
    waited = max(_seconds_waited(task) for task in tasks if task["_id"] not in running)
    report = f"stopped within {stopped - told:.2f} s; what came meanwhile waited {waited:.2f} s at most"
    print(f"\n{report}")
    record_property("engine", report)
    assert waited < 1


def test_a_sigterm_that_comes_while_the_engine_is_frozen_is_heard(stack: Stack) -> None:
    """The kernel then gives it to any thread; Python hears it in the main one only."""
    engine = stack.start_engine()
    engine.freeze()
    os.kill(engine.pid, signal.SIGTERM)
    engine.thaw()
    assert engine.wait(10) == 0


def _begun_by(engine: ServerProcess) -> list[str]:
    """The tasks that an engine has started, by its log."""
    lines = [json.loads(line) for line in engine.log_text().splitlines()]
    return [line["task_id"] for line in lines if line["message"].startswith("started attempt")]


def _seconds_waited(task: dict[str, Any]) -> float:
    created, started = (datetime.fromisoformat(task[field]) for field in ("created_at", "started_at"))
    return (started - created).total_seconds()
