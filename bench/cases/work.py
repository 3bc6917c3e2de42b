"""Doing tasks that wait in a quorum queue: how many a second, for how much CPU, and the time lost between two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.figures import Figures, Plot, Result, Table, Variant, Verdict, interleave, number, wrong_rows
from bench.lab import Lab
from bench.ladder import ladder, said
from bench.spent import cpu_table, parts
from bench.workers import BARE, CELERY_THREADS, DRAMATIQ_TEN, Contender, Job, celery, dramatiq, measure, sluice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Work: tasks a second, and the time between them"

FREE, LOGGING, REAL = "Sluice's engine, free store", "the same, logging each task", "Sluice's engine, wire database"
TEN_THREADS = "dramatiq, 1 process x 10 threads, prefetch 10"


def no_op_contenders() -> list[Contender]:
    return [
        sluice(FREE, store=False),
        sluice(LOGGING, store=False, LOG_LEVEL="INFO"),
        sluice(REAL, store=True),
        dramatiq(TEN_THREADS, *DRAMATIQ_TEN, dramatiq_queue_prefetch="10"),
        dramatiq("dramatiq, 1 process x 10 threads, its own prefetch (20)", *DRAMATIQ_TEN),
        dramatiq("dramatiq, its default (CPUs x 8 threads)", places=0),
        celery("Celery, threads x 10", *CELERY_THREADS),
        celery("Celery, its default (prefork, CPUs)", places=0),
    ]


def sleeping_contenders() -> list[Contender]:
    return [
        sluice(REAL, store=True),
        BARE,
        dramatiq(TEN_THREADS, *DRAMATIQ_TEN, dramatiq_queue_prefetch="10"),
        celery("Celery, threads x 10", *CELERY_THREADS),
    ]


def run(lab: Lab) -> Result:
    no_ops = _interleave(lab, no_op_contenders(), Job(count=1_500 if lab.quick else 4_000), lab.rounds)
    short = _interleave(lab, sleeping_contenders(), Job(count=200 if lab.quick else 400, seconds=0.1), lab.rounds)
    long = _interleave(lab, sleeping_contenders(), Job(count=20 if lab.quick else 30, seconds=2.0), lab.rounds)
    return Result(
        tables=[
            _no_op_table(no_ops),
            _sleep_table("100 ms", 100, short),
            _sleep_table("2 s", 5, long),
            cpu_table(
                "work-cpu",
                "Where the CPU of a task goes that Sluice does",
                {
                    "no-op, free store": parts(no_ops.get(FREE, {})),
                    "no-op, wire database": parts(no_ops.get(REAL, {})),
                    "100 ms, wire database": parts(short.get(REAL, {})),
                },
            ),
        ],
        plots=[_plot(no_ops)],
        verdicts=[*_no_op_verdicts(no_ops), _share(short, "100 ms", 0.97), _share(long, "2 s", 0.995)],
    )


def _interleave(lab: Lab, contenders: Sequence[Contender], job: Job, rounds: int) -> Figures:
    variants = [
        Variant(contender.name, lambda contender=contender: measure(lab, contender, job), contender.is_ours)
        for contender in contenders
    ]
    return interleave(variants, rounds)


def _no_op_table(figures: Figures) -> Table:
    rows = []
    for name, found in figures.items():
        database = found.get("database's CPU s/1,000")
        rows.append(
            [
                name,
                f"{number(found['tasks/s'].value)} ({number(found['tasks/s'].low)}-{number(found['tasks/s'].high)})",
                number(found["CPU s/1,000"].value),
                "-" if database is None else number(database.value),
                f"{found['MB'].value:.0f}",
            ]
        )
    return Table(
        slug="work-no-op",
        title="No-op tasks from a quorum queue, acknowledged one by one after the handler",
        columns=["worker", "tasks/s (lowest-highest)", "CPU s per 1,000", "the database's own", "MB"],
        rows=[*rows, *wrong_rows(figures)],
        notes=[
            "The free store is a class that answers at once and keeps nothing: the engine itself, with its queue.",
            "The wire database is the stand-in for MongoDB of the tests, in Python, on the same two cores: a real one "
            "costs less. Celery and dramatiq keep no record of a task.",
            "Every worker logs warnings only, but where it says so. Prefetch 10; where the default is measured, the "
            "default.",
        ],
    )


def _sleep_table(length: str, ideal: int, figures: Figures) -> Table:
    rows = [
        [
            name,
            number(found["tasks/s"].value),
            f"{found['share of the ideal'].value:.2%} ({found['share of the ideal'].low:.2%})",
            f"{number(found['lost ms p50'].value)} / {number(found['lost ms p99'].value)}",
            number(found["CPU s/1,000"].value),
        ]
        for name, found in figures.items()
    ]
    return Table(
        slug=f"work-{length.replace(' ', '-')}",
        title=f"Tasks of {length}, ten at once: the ideal is {ideal} a second",
        columns=[
            "worker",
            "tasks/s",
            "share of the ideal (lowest)",
            "lost between two, ms p50 / p99",
            "CPU s per 1,000",
        ],
        rows=[*rows, *wrong_rows(figures)],
        notes=[
            "From the first start to the last end. Lost: from the end of a handler to the start of the next one in the "
            "same thread: result, acknowledgement, delivery, claim.",
            "Bare pika and pymongo: a claim, the handler, a result and an acknowledgement, and nothing else; with the "
            "wire database too. dramatiq and Celery keep no record.",
        ],
    )


def _no_op_verdicts(figures: Figures) -> list[Verdict]:
    ours, theirs = figures.get(FREE), figures.get(TEN_THREADS)
    if ours is None or theirs is None:
        return [Verdict("No-op tasks with a free store against dramatiq", "both measured", "not measured", holds=False)]
    return [
        Verdict(
            f"No-op tasks/s, free store, against {TEN_THREADS}",
            "at least as many",
            f"{number(ours['tasks/s'].value)} against {number(theirs['tasks/s'].value)}",
            ours["tasks/s"].value >= theirs["tasks/s"].value,
        ),
        Verdict(
            "CPU seconds per 1,000 of them",
            "not more",
            f"{number(ours['CPU s/1,000'].value)} against {number(theirs['CPU s/1,000'].value)}",
            ours["CPU s/1,000"].value <= theirs["CPU s/1,000"].value,
        ),
    ]


def _share(figures: Figures, length: str, wanted: float) -> Verdict:
    claim = f"Tasks of {length}, ten at once, wire database: share of the ideal"
    if (found := figures.get(REAL)) is None:
        return Verdict(claim, f"at least {wanted:.1%}", "not measured", holds=False)
    share = found["share of the ideal"].value
    return Verdict(claim, f"at least {wanted:.1%}", f"{share:.2%}", share >= wanted)


def _plot(figures: Figures) -> Plot:
    rates = {name: found["tasks/s"] for name, found in figures.items()}

    def draw(axes: Axes) -> None:
        ladder(axes, rates, "no-op tasks a second, one worker")

    return Plot("work-no-op", draw, f"Bars of the no-op tasks a second: {said(rates)}.")
