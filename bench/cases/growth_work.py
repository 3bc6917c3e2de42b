"""Work as things grow: messages that wait behind the ones being done, the size of a task, the number of engines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from bench.figures import Figures, Plot, Result, Table, Variant, interleave, number
from bench.lab import Lab
from bench.workers import DRAMATIQ_TEN, Contender, Job, dramatiq, measure, sluice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Growth of the work: messages waiting, size of a task, number of engines"

FREE = sluice("Sluice's engine, free store", store=False)
REAL = sluice("Sluice's engine, wire database", store=True)
PEER = dramatiq("dramatiq, 1 process x 10 threads, prefetch 10", *DRAMATIQ_TEN, dramatiq_queue_prefetch="10")

SLEEP_SECONDS = 0.1


def run(lab: Lab) -> Result:
    rounds = 1 if lab.quick else 2
    count = 500 if lab.quick else 2_000
    depths = [0, 10_000] if lab.quick else [0, 10_000, 100_000]
    sizes = [1, 64] if lab.quick else [1, 16, 64]
    engines = [1, 2] if lab.quick else [1, 2, 4, 8]

    print(" work, while messages wait", flush=True)
    waiting = _grow(lab, [FREE, REAL, PEER], {depth: Job(count, backlog=depth) for depth in depths}, rounds)
    print(" work, by size", flush=True)
    large = _grow(lab, [FREE, REAL, PEER], {size: Job(count // 2, text_bytes=size * 1024) for size in sizes}, rounds)
    print(" work, by engines", flush=True)
    no_ops = _more_engines(lab, [FREE, REAL], engines, Job(count // 2), rounds)
    sleeps = _more_engines(lab, [REAL], engines, Job(100 if lab.quick else 200, seconds=SLEEP_SECONDS), rounds)
    return Result(
        tables=[
            _table("growth-work-waiting", "No-op tasks/s while more messages wait", waiting, depths, "{:,} waiting"),
            _table("growth-work-size", "No-op tasks/s by the size of a task's text", large, sizes, "{} KiB"),
            _engines_table(no_ops, sleeps, engines),
        ],
        plots=[_plot(no_ops, sleeps, engines)],
    )


def _grow(lab: Lab, contenders: Sequence[Contender], jobs: dict[int, Job], rounds: int) -> Figures:
    variants = [
        Variant(_name(contender, size), partial(measure, lab, contender, job), contender.is_ours)
        for size, job in jobs.items()
        for contender in contenders
    ]
    return interleave(variants, rounds)


def _more_engines(lab: Lab, contenders: Sequence[Contender], engines: Sequence[int], job: Job, rounds: int) -> Figures:
    """The same work for each engine, so that the more there are, the more there is to do."""
    variants = [
        Variant(
            _name(contender, many),
            partial(measure, lab, contender, Job(job.count * many, job.seconds), engines=many),
            contender.is_ours,
        )
        for many in engines
        for contender in contenders
    ]
    return interleave(variants, rounds)


def _name(contender: Contender, size: int) -> str:
    return f"{contender.name}, {size:,}"


def _cells(figures: Figures, contender: Contender, sizes: Sequence[int]) -> list[str]:
    cells = []
    for size in sizes:
        name = _name(contender, size)
        found = figures.get(name)
        cells.append(
            f"wrong: {figures.wrong.get(name, 'not measured')}"
            if found is None
            else f"{number(found['tasks/s'].value)} · {number(found['CPU s/1,000'].value)}"
        )
    return cells


def _table(slug: str, title: str, figures: Figures, sizes: Sequence[int], heading: str) -> Table:
    return Table(
        slug=slug,
        title=title,
        columns=["worker", *(heading.format(size) for size in sizes)],
        rows=[[contender.name, *_cells(figures, contender, sizes)] for contender in (FREE, REAL, PEER)],
        notes=["Tasks a second · CPU seconds of the worker per 1,000 tasks.", *_again(figures)],
    )


def _again(figures: Figures) -> list[str]:
    """Who leaves done tasks unacknowledged when it is stopped (SIGTERM) while more of them wait."""
    most = {name: found["to be done again"].high for name, found in figures.items() if "to be done again" in found}
    return [
        f"{name}: stopped while more waited, it left up to {count:.0f} done tasks to be done again."
        for name, count in most.items()
        if count
    ]


def _engines_table(no_ops: Figures, sleeps: Figures, engines: Sequence[int]) -> Table:
    rows = [[f"{contender.name}, no-op", *_cells(no_ops, contender, engines)] for contender in (FREE, REAL)]
    rows.append([f"{REAL.name}, 100 ms", *_cells(sleeps, REAL, engines)])
    return Table(
        slug="growth-work-engines",
        title="Tasks/s of several engines on one queue, on this machine's cores",
        columns=["work", *(f"{many} engine{'s' * (many > 1)}" for many in engines)],
        rows=rows,
        notes=[
            "Tasks a second of all together · CPU seconds of all of them per 1,000 tasks. RabbitMQ and the database's "
            "stand-in share the cores with them; the ideal of the 100 ms tasks is 100 a second for each engine.",
        ],
    )


def _plot(no_ops: Figures, sleeps: Figures, engines: Sequence[int]) -> Plot:
    lines = {
        "no-op, free store": (no_ops, FREE),
        "no-op, wire database": (no_ops, REAL),
        "100 ms, wire database": (sleeps, REAL),
    }

    def points(figures: Figures, contender: Contender) -> tuple[list[int], list[float]]:
        known = [many for many in engines if _name(contender, many) in figures]
        return known, [figures[_name(contender, many)]["tasks/s"].value for many in known]

    def draw(axes: Axes) -> None:
        for label, line in lines.items():
            axes.plot(*points(*line), marker="o", label=label)
        axes.plot(engines, [many * 10 / SLEEP_SECONDS for many in engines], ":", label="100 ms, ideal")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xticks(engines, [str(many) for many in engines])
        axes.set_xlabel("engines")
        axes.set_ylabel("tasks a second")
        axes.legend()

    known, rates = points(sleeps, REAL)
    said = ", ".join(f"{number(rate)} with {many}" for many, rate in zip(known, rates, strict=True))
    return Plot("growth-work-engines", draw, f"Lines of tasks a second by the number of engines; 100 ms tasks: {said}.")
