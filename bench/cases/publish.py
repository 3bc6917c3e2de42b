"""Publishing alone: threads of one process that each send a message and wait until it is sent."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes

from bench import doors
from bench.confirms import full_queue
from bench.figures import (
    CPU_OF,
    Figures,
    Plot,
    Result,
    Sample,
    Table,
    Variant,
    Verdict,
    Wrong,
    interleave,
    number,
    wrong_rows,
)
from bench.lab import ROOT, Lab, cpu_seconds
from bench.report import bars
from bench.spent import cpu_table, parts

TITLE = "Publish: 400-byte persistent messages to a quorum queue, one process"

THREADS = (1, 16, 64)

#: A connection for each message: measured shortly, because each leaves a socket behind for a minute.
SHORT_SECONDS = 1.0

ARRIVAL_SECONDS = 5.0


@dataclass(frozen=True)
class Publisher:
    """One of `bench.publishers`, and how many threads it is tried with."""

    name: str
    program: str
    threads: tuple[int, ...] = THREADS
    confirm: bool = True
    seconds: float | None = None


OURS = Publisher("Sluice", "sluice")
CELERY = Publisher("Celery .delay", "celery")
PUBLISHERS = (
    OURS,
    CELERY,
    Publisher("Celery .delay, its default -", "celery", confirm=False),
    Publisher("dramatiq .send", "dramatiq"),
    Publisher("pika, a connection per thread", "connection_per_thread"),
    Publisher("pika, a connection per message", "connection_per_message", threads=(1, 16), seconds=SHORT_SECONDS),
)


def run(lab: Lab) -> Result:
    proved: set[str] = set()
    figures = interleave(
        [
            Variant(publisher.name, partial(_measure, lab, publisher, proved), publisher is OURS)
            for publisher in PUBLISHERS
        ],
        lab.rounds,
    )
    spent = {f"{threads} threads": parts(figures.get(OURS.name, {}), f"{threads} ") for threads in THREADS[1:]}
    cpu = cpu_table("publish-cpu", "Where the CPU of a message goes that Sluice publishes", spent)
    return Result([_table(figures), cpu], [_plot(figures)], _verdicts(figures))


def _program(lab: Lab, publisher: Publisher, queue: str, *arguments: str) -> dict[str, float]:
    """Raises Wrong when a send fails."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "RABBITMQ_URL": lab.rabbit.url,
        "TASK_QUEUE": queue,
        "CONFIRM": "1" if publisher.confirm else "0",
    }
    command = [sys.executable, "-m", "bench.publishers", publisher.program, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False)
    if done.returncode:
        raise Wrong(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _prove(lab: Lab, publisher: Publisher) -> None:
    """Raises Wrong unless it learns from a full queue what it should: all of it with confirms, nothing without."""
    queue = full_queue(lab)
    told = bool(_program(lab, publisher, queue, "1", "0", "--until-refused")["refused"])
    doors.delete_queues(lab, queue)
    if told != publisher.confirm:
        raise Wrong(f"it was {'' if told else 'not '}told that a full queue refuses its messages")


def _measure(lab: Lab, publisher: Publisher, proved: set[str]) -> Sample:
    """Each number of threads in turn, in a process and with a queue of its own; the first time, with the proof."""
    if publisher.name not in proved:
        _prove(lab, publisher)
        proved.add(publisher.name)
    sample: Sample = {}
    for threads in publisher.threads:
        queue = lab.queue()
        seconds = publisher.seconds or lab.seconds / 2
        rabbit = cpu_seconds(lab.rabbit.pid)
        found = _program(lab, publisher, queue, str(threads), str(seconds))
        rabbit = cpu_seconds(lab.rabbit.pid) - rabbit
        _check(lab, queue, int(found["messages"]))
        doors.delete_queues(lab, queue)
        found["rabbit cpu"] = rabbit / found["messages"] * 1e6
        if publisher is OURS:
            found[f"{CPU_OF}RabbitMQ"] = found["rabbit cpu"]
        else:  # its threads have no names
            found = {measure: value for measure, value in found.items() if not measure.startswith(CPU_OF)}
        sample |= {f"{threads} {measure}": value for measure, value in found.items()}
    return sample


def _check(lab: Lab, queue: str, expected: int) -> None:
    deadline = time.monotonic() + ARRIVAL_SECONDS
    with lab.channel() as channel:
        while (there := doors.waiting(channel, queue)) < expected and time.monotonic() < deadline:
            time.sleep(0.02)
    if there != expected:
        raise Wrong(f"{expected:,} messages were sent, and {there:,} are in the queue")


def _table(figures: Figures) -> Table:
    peer = _best_peer(figures)
    columns = ["messages/s (p99 ms)", "1 thread", "16 threads", "64 threads", "16: to the best peer"]
    columns += ["CPU µs/message, 16 threads", "RabbitMQ's"]
    rows = []
    for name, found in figures.items():
        rates = [
            f"{number(found[f'{threads} /s'].value)} ({number(found[f'{threads} p99'].value)})"
            if f"{threads} /s" in found
            else "not tried"
            for threads in THREADS
        ]
        ratio = "" if peer is None else f"{found['16 /s'].value / peer:.2f} times"
        rows.append([name, *rates, ratio, number(found["16 cpu"].value), number(found["16 rabbit cpu"].value)])
    notes = [
        "`-`: its default, without publisher confirms. All others wait for each message's confirm, and are told when a "
        "queue refuses it: tried before the measurement, with a queue that is full.",
        "RabbitMQ's CPU: of the whole program, its start and connections among it.",
    ]
    return Table("publish", "Publish, 400-byte messages, one process", columns, rows + wrong_rows(figures), notes)


def _best_peer(figures: Figures) -> float | None:
    """Messages/s at 16 threads of the fastest peer with confirms."""
    peers = [publisher.name for publisher in PUBLISHERS if publisher is not OURS and publisher.confirm]
    return max((figures[name]["16 /s"].value for name in peers if name in figures), default=None)


def _plot(figures: Figures) -> Plot:
    def draw(axes: Axes) -> None:
        series = {
            name: [found[f"{threads} /s"].value if f"{threads} /s" in found else None for threads in THREADS]
            for name, found in figures.items()
        }
        bars(axes, ["1 thread", "16 threads", "64 threads"], series, "messages/s")
        axes.set_title("Publish, quorum queue, one process: messages per second (more is better)", fontsize=10)

    return Plot("publish", draw, "Messages per second of each publisher with 1, 16 and 64 threads")


def _verdicts(figures: Figures) -> list[Verdict]:
    claim = "Publish with 16 threads, messages/s against Celery with confirms"
    if OURS.name not in figures or CELERY.name not in figures:
        return [Verdict(claim, "≥ 3 times", "not measured", False)]
    ratio = figures[OURS.name]["16 /s"].value / figures[CELERY.name]["16 /s"].value
    return [Verdict(claim, "≥ 3 times", f"{ratio:.1f} times", ratio >= 3)]
