"""The contenders that do tasks, each started as its own documentation says, and one measurement of one of them."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika.exceptions
import pymongo

from bench import tasks
from bench.figures import Sample, Wrong, percentile
from bench.lab import BIN, ROOT, Lab, Started, cpu_seconds, resident_mb
from bench.marks import Mark, Marks, faults, gaps
from bench.spent import Spending
from sluice.broker import Topology

#: A worker that uses less CPU than this in a third of a second has started and stands still.
CALM_SECONDS = 0.02

#: Seconds after the last handler for what comes after it: the acknowledgement, the result.
SETTLE_SECONDS = 0.5

#: Seconds in which what was sent must be in the queue.
ARRIVAL_SECONDS = 5.0

#: How much longer than expected a worker may take before it counts as one that does not work.
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Job:
    """What a worker is to do: `count` tasks of so many seconds and bytes, while `backlog` more wait behind them."""

    count: int
    seconds: float = 0.0
    text_bytes: int = 0
    backlog: int = 0

    @property
    def sent(self) -> int:
        return self.count + self.backlog


@dataclass(frozen=True)
class Contender:
    """A worker program, and how its tasks get into its queue."""

    name: str
    command: Sequence[str]
    fill: Callable[[Lab, str, Job], None]
    #: The queues that it makes for one name.
    queues: Callable[[str], list[str]]
    environment: dict[str, str] = field(default_factory=dict)
    #: Tasks at once; 0 where that depends on the machine.
    places: int = 10
    uses_mongo: bool = False
    is_ours: bool = False


# --- Sluice ----------------------------------------------------------------------------------------------------------


def _fill_sluice(lab: Lab, queue: str, job: Job) -> None:
    tasks.send(lab.rabbit.url, queue, (tasks.sluice_task(number, job.text_bytes) for number in range(job.sent)))


def _fill_sluice_and_store(lab: Lab, queue: str, job: Job) -> None:
    stored = (tasks.sluice_task(number, job.text_bytes) for number in range(job.sent))
    tasks.store(lab.mongo().uri, queue, stored)
    _fill_sluice(lab, queue, job)


def _sluice_queues(queue: str) -> list[str]:
    return [found.name for found in Topology(queue).queues]


def sluice(name: str, *, store: bool, **environment: str) -> Contender:
    return Contender(
        name,
        [sys.executable, "-m", "bench.engine"],
        _fill_sluice_and_store if store else _fill_sluice,
        _sluice_queues,
        {"STORE": "mongodb" if store else "free", "LOG_LEVEL": "WARNING", **environment},
        uses_mongo=store,
        is_ours=True,
    )


# --- the peers -------------------------------------------------------------------------------------------------------


def _send_as(module: str) -> Callable[[Lab, str, Job], None]:
    def fill(lab: Lab, queue: str, job: Job) -> None:
        numbers = [str(job.sent), str(job.seconds), str(job.text_bytes)]
        environment = {**os.environ, "RABBITMQ_URL": lab.rabbit.url, "TASK_QUEUE": queue, "CONFIRM": "0"}
        subprocess.run([sys.executable, "-m", module, *numbers], cwd=ROOT, env=environment, check=True)

    return fill


def celery(name: str, *flags: str, places: int = 10) -> Contender:
    return Contender(
        name,
        [str(BIN / "celery"), "-A", "bench.peers.celery_marks", "worker", *flags],
        _send_as("bench.peers.celery_marks"),
        lambda queue: [queue],
        places=places,
    )


def dramatiq(name: str, *flags: str, places: int = 10, **environment: str) -> Contender:
    return Contender(
        name,
        [str(BIN / "dramatiq"), "bench.peers.dramatiq_app", *flags],
        _send_as("bench.peers.dramatiq_app"),
        lambda queue: [queue, f"{queue}.DQ", f"{queue}.XQ"],
        environment,
        places=places,
    )


CELERY_THREADS = ("--pool=threads", "--concurrency=10", "--prefetch-multiplier=1")
PIKA = Contender(
    "pika", [sys.executable, "-m", "bench.peers.pika_worker"], lambda *_: None, lambda queue: [queue], places=1
)
DRAMATIQ_TEN = ("--processes", "1", "--threads", "10")


#: No peer: what Sluice's engine takes beyond this is about what there is to gain.
BARE = Contender(
    "bare pika and pymongo",
    [sys.executable, "-m", "bench.peers.bare"],
    _fill_sluice_and_store,
    _sluice_queues,
    uses_mongo=True,
)


# --- a measurement ---------------------------------------------------------------------------------------------------


def look(lab: Lab, queue: str) -> tuple[int, int]:
    """How many messages wait in a queue, and how many consumers it has; none where there is no such queue."""
    with contextlib.suppress(pika.exceptions.ChannelClosedByBroker), lab.channel() as channel:
        found = channel.queue_declare(queue, passive=True).method
        return int(found.message_count), int(found.consumer_count)
    return 0, 0


def depth(lab: Lab, queues: Sequence[str]) -> int:
    """How many messages wait in these queues together."""
    return sum(look(lab, queue)[0] for queue in queues)


@contextlib.contextmanager
def fresh_queue(lab: Lab, contender: Contender) -> Iterator[str]:
    """A queue for one measurement. A quorum queue costs the broker something also while nobody uses it."""
    queue = lab.queue()
    try:
        yield queue
    finally:
        with lab.channel() as channel:
            for name in contender.queues(queue):
                channel.queue_delete(name)  # one that does not exist is fine too
        if contender.uses_mongo:
            with pymongo.MongoClient[Any](lab.mongo().uri) as client:
                client.drop_database(queue)


def start(
    lab: Lab, contender: Contender, queue: str, marks: Path, job: Job, *, wait: bool = True, consumers: int = 1
) -> Started:
    """The worker as a process; with `wait`, once its queue has so many consumers."""
    environment = {
        "RABBITMQ_URL": lab.rabbit.url,
        "MONGODB_URI": lab.mongo().uri if contender.uses_mongo else "mongodb://127.0.0.1:9/",
        "MONGODB_DATABASE": queue,
        "TASK_QUEUE": queue,
        "TASK_TTL_SECONDS": str(tasks.TTL_SECONDS),
        "HANDLER_SECONDS": str(job.seconds),
        "TEXT_BYTES": str(job.text_bytes),
        "MARKS": str(marks),
        **contender.environment,
    }
    ready = (lambda: look(lab, queue)[1] >= consumers) if wait else (lambda: True)
    return lab.start("worker", contender.command, environment, ready)


def calm_down(*pids: int, seconds: float = 20.0) -> None:
    """Wait until none of these processes has anything more to start."""
    deadline = time.monotonic() + seconds
    used = sum(map(cpu_seconds, pids))
    while time.monotonic() < deadline:
        time.sleep(0.33)
        before, used = used, sum(map(cpu_seconds, pids))
        if used - before <= CALM_SECONDS * len(pids):
            return


def measure(lab: Lab, contender: Contender, job: Job, *, engines: int = 1) -> Sample:
    """Have the tasks done that wait in a queue, by workers that have started and hold their first ones at a gate.
    Raises Wrong when anything was lost, doubled or left over."""
    with fresh_queue(lab, contender) as queue, contextlib.ExitStack() as workers:
        contender.fill(lab, queue, job)
        _wait_until_filled(lab, queue, job.sent)
        marks = workers.enter_context(Marks(lab.directory / queue))
        running = _start_all(lab, contender, queue, marks.directory, job, engines)
        for process in running:
            workers.enter_context(process)
        database = lab.mongo().pid if contender.uses_mongo else None
        calm_down(*(process.pid for process in running), *([] if database is None else [database]))
        cpu, database_cpu = _cpu(running), 0.0 if database is None else cpu_seconds(database)
        spending = Spending({"engine": running[0].pid}, {"RabbitMQ": lab.rabbit.pid, "the database": database})
        marks.open_gate()
        _wait_for(marks, job.count, PATIENCE_SECONDS + job.count * max(job.seconds, 0.01))
        if not job.backlog:
            time.sleep(SETTLE_SECONDS)
        done = marks.count()
        cpu = _cpu(running) - cpu
        database_cpu = 0.0 if database is None else cpu_seconds(database) - database_cpu
        spent = spending.per(done) if contender.is_ours and engines == 1 else {}
        resident = sum(resident_mb(process.pid) for process in running)
        for process in running:
            process.terminate()
        for process in running:  # a second SIGTERM, in its last moments, would not be like Kubernetes
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(process.stop_seconds)
        workers.close()
        if contender.is_ours and (codes := [process.exit_code for process in running if process.exit_code]):
            raise Wrong(f"it ended with {', '.join(map(str, codes))} when it was stopped")
        found = marks.read()
        again = _check(lab, contender, queue, job, found)
        sample = _times(found[: job.count], job, contender.places * engines)
        sample["CPU s/1,000"] = cpu / done * 1000
        if database is not None:
            sample["database's CPU s/1,000"] = database_cpu / done * 1000
        if job.backlog:
            sample["to be done again"] = again
        return {**sample, "MB": resident, **spent}


def _start_all(lab: Lab, contender: Contender, queue: str, marks: Path, job: Job, engines: int) -> list[Started]:
    """So many workers, side by side, once each has its consumer."""
    first = [start(lab, contender, queue, marks, job, wait=False) for _ in range(engines - 1)]
    return [*first, start(lab, contender, queue, marks, job, consumers=engines)]


def _wait_until_filled(lab: Lab, queue: str, count: int) -> None:
    """What was sent without confirms may still be on its way."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while (waiting := depth(lab, [queue])) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    if waiting != count:
        raise Wrong(f"{waiting} of {count} messages are in the queue")


def _cpu(running: Sequence[Started]) -> float:
    return sum(cpu_seconds(process.pid) for process in running)


def _wait_for(marks: Marks, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while marks.count() < count:
        if time.monotonic() > deadline:
            raise Wrong(f"{marks.count()} of {count} tasks were done in {seconds:.0f} s")
        time.sleep(0.02)


def _check(lab: Lab, contender: Contender, queue: str, job: Job, marks: Sequence[Mark]) -> int:
    """Raises Wrong unless each task was done once and the others still wait. Returns how many were done and will be
    done again: a worker that was stopped in the middle of its work may not have acknowledged all that it had done
    (no fault of a measurement; but Sluice's engine promises that it has)."""
    expected = {mark.task_id for mark in marks} if job.backlog else {tasks.task_id(n) for n in range(job.count)}
    if problem := faults(marks, expected):
        raise Wrong(problem)
    left, should = depth(lab, contender.queues(queue)), job.sent - len(marks)
    if left < should or (left > should and (contender.is_ours or not job.backlog)):
        raise Wrong(f"{left} messages are left where {should} should be")
    if contender.uses_mongo:
        with pymongo.MongoClient[Any](lab.mongo().uri) as client:
            completed = client[queue]["tasks"].count_documents({"status": "completed"})
        if completed != len(marks):
            raise Wrong(f"{completed} of {len(marks)} tasks are stored as completed")
    return left - should


def _times(marks: Sequence[Mark], job: Job, places: int) -> Sample:
    """From the first start to the last end."""
    seconds = max(mark.ended for mark in marks) - min(mark.started for mark in marks)
    sample = {"tasks/s": len(marks) / seconds}
    if job.seconds:
        lost = gaps(marks)
        sample["share of the ideal"] = sample["tasks/s"] * job.seconds / places
        sample["lost ms p50"] = statistics.median(lost) * 1000
        sample["lost ms p99"] = percentile(lost, 0.99) * 1000
    return sample
