"""From the answer to `add` until the handler starts, while the worker has nothing else to do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bench import doors
from bench.doors import Door
from bench.figures import (
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
    percentile,
    wrong_rows,
)
from bench.lab import Lab
from bench.ladder import ladder, said
from bench.marks import Marks, faults
from bench.paced import paced
from bench.spent import Spending, cpu_table, parts
from bench.workers import PIKA, Contender, Job, calm_down, celery, fresh_queue, sluice, start

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Latency: from `add` accepted to the handler started, at 200 adds a second"

RATE = 200.0

#: Seconds in which the last tasks must have been started.
ARRIVAL_SECONDS = 5.0

OURS, WITHOUT = "Sluice, with its record (wire database)", "Sluice, without"

#: What is promised, in milliseconds.
P50_MS, P99_MS = 3.0, 10.0


def run(lab: Lab) -> Result:
    def variant(name: str, open_door: Callable[..., Door], worker: Contender, *, store: bool = False) -> Variant:
        return Variant(name, lambda: _measure(lab, open_door, worker, store), worker.is_ours)

    prefork = celery("Celery, prefork")
    figures = interleave(
        [
            variant(OURS, doors.sluice, sluice("engine", store=True), store=True),
            variant(WITHOUT, doors.sluice, sluice("engine", store=False)),
            variant("FastAPI + Celery prefork, with a record", doors.fastapi_celery, prefork, store=True),
            variant("FastAPI + Celery prefork, without", doors.fastapi_celery, prefork),
            variant("Flask + pika per request, without", doors.flask_pika, PIKA),
        ],
        lab.rounds,
    )
    columns = {"with its record": parts(figures.get(OURS, {})), "without": parts(figures.get(WITHOUT, {}))}
    title = "Where the CPU of a task goes, from sent to done, at 200 adds a second, without the client"
    cpu = cpu_table("latency-cpu", title, columns)
    return Result(tables=[_table(figures), cpu], plots=[_plot(figures)], verdicts=_verdicts(figures))


def _measure(lab: Lab, open_door: Callable[..., Door], worker: Contender, store: bool) -> Sample:
    with fresh_queue(lab, worker) as queue:
        marks = Marks(lab.directory / queue)
        with start(lab, worker, queue, marks.directory, Job(count=0)) as process, contextlib.ExitStack() as exits:
            door = open_door(lab, queue, store=store)
            exits.callback(door.process.kill)
            calm_down(process.pid)
            warm = marks.count()
            spending = Spending(
                {"function": door.process.pid, "engine": process.pid},
                {"RabbitMQ": lab.rabbit.pid, "the database": lab.mongo_pid},
            )
            added = paced(door.url, RATE, lab.seconds, marks.directory / "answers")
            deadline = time.monotonic() + ARRIVAL_SECONDS
            while marks.count() < warm + len(added) and time.monotonic() < deadline:
                time.sleep(0.05)
            cpu_parts = spending.per(len(added)) if worker.is_ours else {}
        found = [mark for mark in marks.read() if mark.task_id in added]
        if problem := faults(found, set(added)):
            raise Wrong(problem)
        waits = [(mark.started - added[mark.task_id][1]) * 1000 for mark in found]
        whole = [(mark.started - added[mark.task_id][0]) * 1000 for mark in found]
        return {
            "p50 ms": percentile(waits, 0.5),
            "p99 ms": percentile(waits, 0.99),
            "worst ms": max(waits),
            "from sent p50 ms": percentile(whole, 0.5),
            "from sent p99 ms": percentile(whole, 0.99),
            "before the answer": sum(wait < 0 for wait in waits) / len(waits),
            **cpu_parts,
        }


def _table(figures: Figures) -> Table:
    rows = [
        [
            name,
            number(found["p50 ms"].value),
            number(found["p99 ms"].value),
            number(found["worst ms"].value),
            f"{number(found['from sent p50 ms'].value)} / {number(found['from sent p99 ms'].value)}",
            f"{found['before the answer'].value:.0%}",
        ]
        for name, found in figures.items()
    ]
    rows += wrong_rows(figures)
    return Table(
        slug="latency",
        title="From the answer's arrival at the client to the handler's first line, milliseconds",
        columns=["way", "p50", "p99", "worst", "from sent, p50 / p99", "started before the answer"],
        rows=rows,
        notes=[
            "One clock for all (CLOCK_MONOTONIC). 200 adds a second, whatever the answers do; two processes at the "
            "door, one worker, both idle otherwise. A task can be at work before its answer has arrived: its time is "
            "then below zero, and counts as it is; a slow answer makes this figure better. So the time from the moment "
            "the client sent it is beside it.",
            "A record: the task is in the database before it is accepted; Sluice's engine also claims it there before "
            "the handler starts, which the others don't. Confirmed publishing everywhere.",
        ],
    )


def _verdicts(figures: Figures) -> list[Verdict]:
    claim = "From accepted to handler started, with its record, 200 adds/s"
    wanted = f"p50 at most {P50_MS:g} ms, p99 at most {P99_MS:g} ms"
    if (found := figures.get(OURS)) is None:
        return [Verdict(claim, wanted, "not measured", holds=False)]
    p50, p99 = found["p50 ms"].value, found["p99 ms"].value
    return [Verdict(claim, wanted, f"{number(p50)} ms and {number(p99)} ms", p50 <= P50_MS and p99 <= P99_MS)]


def _plot(figures: Figures) -> Plot:
    medians = {name: found["from sent p50 ms"] for name, found in figures.items()}

    def draw(axes: Axes) -> None:
        ladder(axes, medians, "milliseconds from sent to started, median")

    return Plot("latency", draw, f"Bars of the median milliseconds from sent to started: {said(medians)}.")
