"""What many restarts of a server cost, and many tasks at once, with processes as in production. This takes minutes:
it belongs to `make long-tests`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.stack import Stack
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


@pytest.mark.timeout(180)
def test_two_hundred_tasks_of_one_second_run_ten_at_a_time(stack: Stack) -> None:
    stack.start_functions("add", "get")
    stack.start_engine()
    stack.wait_until_done([stack.add()])  # the engine has loaded what it needs
    stack.model.clear()
    stack.model.script([{"seconds": 1.0}])
    ids = [stack.add() for _ in range(200)]
    tasks = stack.wait_until_done(ids, 60)
    assert {task["status"] for task in tasks} == {"completed"}
    first, last = min(task["started_at"] for task in tasks), max(task["completed_at"] for task in tasks)
    seconds = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    assert 20 <= seconds <= 32, "ten at a time: 20 s, and what a busy machine adds"
    assert stack.model.calls() == dict.fromkeys(ids, 1), "one call to the model for each task"
    assert stack.ended() == []
