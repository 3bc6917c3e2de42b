"""What a restart costs, of a server or of an engine, with processes as in production."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pytest

from tests.e2e.stack import Stack
from tests.servers.process import ServerProcess
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually

#: Restarts in a row, and those of them after which a process has all that it needs.
RESTARTS, WARM_UP = 10, 2

#: Seconds from a server's being up again to the end of the tasks that were added around that moment.
SECONDS_ALLOWED = 5.0

#: KiB that a process may grow by from the end of the warm-up to the last restart. It is 600 at most.
KIB_ALLOWED = 2048


@dataclass(frozen=True)
class Figures:
    """What a process has: threads, open files and sockets, KiB of memory."""

    threads: int
    descriptors: int
    kib: int

    @classmethod
    def of(cls, pid: int) -> Self:
        process = Path(f"/proc/{pid}")
        threads, descriptors = (len([*(process / folder).iterdir()]) for folder in ("task", "fd"))
        resident = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
        return cls(threads, descriptors, int(resident.split()[1]))

    @classmethod
    def settled(cls, pid: int) -> Self:
        """Once nothing has come or gone for two seconds: longer than any pause between two tries to connect."""

        def unchanged() -> Self | None:
            earlier = cls.of(pid)
            time.sleep(2)
            later = cls.of(pid)
            return later if (later.threads, later.descriptors) == (earlier.threads, earlier.descriptors) else None

        return eventually(unchanged, 30)  # type: ignore[arg-type]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["rabbit", "mongo"])
def test_after_each_of_ten_restarts_tasks_are_done_within_five_seconds_and_nothing_grows(
    name: str, stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    # With pools of one size, what grows is a leak.
    stack.settings |= {"THREADS": "1", "MONGODB_URI": f"{stack.mongo.uri}&minPoolSize=4&maxPoolSize=4"}
    stack.start_functions("add", "get")
    engine = stack.start_engine()
    stack.model.script([{"fault": "status", "status": 503, "times": 1}])
    (task,) = stack.wait_until_done([stack.add()])
    assert task["attempts"] == 2, "the engine has a connection to publish on, too"

    server: RabbitNode | WireMongo = getattr(stack, name)
    pids = {"engine": engine.pid, "add_task": stack.worker_of("add_task")}
    seconds = [_restart(stack, server, kill=number % 2 == 1) for number in range(WARM_UP)]
    before = {process: Figures.settled(pid) for process, pid in pids.items()}
    seconds += [_restart(stack, server, kill=number % 2 == 1) for number in range(WARM_UP, RESTARTS)]
    after = {process: Figures.settled(pid) for process, pid in pids.items()}

    report = {"seconds": " ".join(f"{each:.2f}" for each in seconds)}
    for process in pids:
        changes = zip(("threads", "descriptors", "KiB"), astuple(before[process]), astuple(after[process]), strict=True)
        report[process] = ", ".join(f"{what} {old} → {new}" for what, old, new in changes)
    print()
    for what, figures in report.items():
        print(f"{name}: {what}: {figures}")
        record_property(what, figures)
    for process in pids:
        assert after[process].threads <= before[process].threads
        assert after[process].descriptors <= before[process].descriptors
        assert after[process].kib <= before[process].kib + KIB_ALLOWED


def _restart(stack: Stack, server: RabbitNode | WireMongo, *, kill: bool) -> float:
    """Restart a server, and have two tasks done: one added while it is away, one as soon as it is back. Returns how
    many seconds after that both were."""
    if kill:
        server.kill()
    else:
        server.stop()
    ids = [stack.add(kind="message", text="while it is away")]
    server.start()
    up = time.monotonic()
    ids.append(stack.add(kind="message", text="as soon as it is back"))
    left = up + SECONDS_ALLOWED - time.monotonic()
    eventually(lambda: all(stack.completed(task_id) for task_id in ids), left, "both tasks are completed")
    return time.monotonic() - up


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
