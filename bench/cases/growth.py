"""What grows: submitting and working with more messages waiting, larger tasks, more engines. The work half is
`growth_work`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import pika
from matplotlib.axes import Axes

from bench import doors
from bench.cases import growth_work
from bench.cases.submit import GATEWAY, OURS, Open, opened
from bench.figures import Figures, Plot, Result, Sample, Table, Variant, interleave, number, wrong_rows
from bench.lab import Lab
from bench.report import lines

TITLE = "Growth: messages waiting, sizes of tasks, numbers of engines"

#: Messages that wait while tasks are submitted.
WAITING, QUICK_WAITING = (0, 10_000, 100_000), (0, 10_000)

#: KiB of a task's text; 64 is what Sluice takes at most, with the other fields in it.
SIZES, QUICK_SIZES = (1, 16, 64), (1, 64)
OTHER_FIELDS_BYTES = 100

#: Seconds in which the queue must have all of what was put there to wait.
FILL_SECONDS = 30.0

#: Bytes of a message that only waits.
WAITING_BYTES = 400


def run(lab: Lab) -> Result:
    contenders: dict[str, Open] = {OURS: partial(doors.sluice, lab), GATEWAY: partial(doors.fastapi_celery, lab)}
    counts, kibibytes = (QUICK_WAITING, QUICK_SIZES) if lab.quick else (WAITING, SIZES)

    def measured(measure: Callable[[Lab, Open, Sequence[int]], Sample], steps: Sequence[int]) -> Figures:
        variants = [
            Variant(name, partial(measure, lab, door, steps), name == OURS) for name, door in contenders.items()
        ]
        return interleave(variants, 1 if lab.quick else 2)

    print(" submit, while messages wait", flush=True)
    waiting = measured(_with_waiting, counts)
    print(" submit, by size", flush=True)
    sizes = measured(_with_sizes, kibibytes)
    steps = {"waiting": [f"{count:,}" for count in counts], "size": [f"{size} KiB" for size in kibibytes]}
    submit = Result(
        [
            _table("growth-waiting", "messages waiting", waiting, steps["waiting"]),
            _table("growth-size", "size of the task", sizes, steps["size"]),
        ],
        [
            _plot("growth-waiting", "by messages that wait in the queue", waiting, steps["waiting"]),
            _plot("growth-size", "by the size of the task", sizes, steps["size"]),
        ],
    )
    work = growth_work.run(lab)
    return Result(submit.tables + work.tables, submit.plots + work.plots, submit.verdicts + work.verdicts)


def _with_waiting(lab: Lab, open_door: Open, counts: Sequence[int]) -> Sample:
    sample: Sample = {}
    with opened(lab, open_door) as counted:
        for count in counts:
            before = _fill(lab, counted.door.queue, count)
            found = counted.measure("", 32, seconds=lab.seconds / 2, waiting=before)
            sample |= {f"{count:,} {measure}": value for measure, value in found.items()}
    return sample


def _with_sizes(lab: Lab, open_door: Open, sizes: Sequence[int]) -> Sample:
    sample: Sample = {}
    with opened(lab, open_door) as counted:
        for size in sizes:
            found = counted.measure("", 32, seconds=lab.seconds / 2, size=size * 1024 - OTHER_FIELDS_BYTES)
            sample |= {f"{size} KiB {measure}": value for measure, value in found.items()}
    return sample


def _fill(lab: Lab, queue: str, count: int) -> int:
    """Put messages into the queue until so many wait there. Returns how many do: a few more, if there were more."""
    persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    with lab.channel() as channel:
        if count == 0:
            channel.queue_purge(queue)
        missing = count - doors.waiting(channel, queue)
        for _ in range(missing):
            channel.basic_publish("", queue, b"x" * WAITING_BYTES, persistent)
        deadline = time.monotonic() + FILL_SECONDS
        while (there := doors.waiting(channel, queue)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{there:,} of {count:,} messages wait after {FILL_SECONDS:g} s")
            time.sleep(0.05)
    return there


def _table(slug: str, what: str, figures: Figures, groups: Sequence[str]) -> Table:
    rows = []
    for name, found in figures.items():
        cells = [f"{number(found[f'{group} /s'].value)} ({number(found[f'{group} p99'].value)})" for group in groups]
        last, first = (found[f"{group} /s"].value for group in (groups[-1], groups[0]))
        cpus = " / ".join(number(found[f"{group} cpu"].value) for group in groups)
        rows.append([name, *cells, f"{last / first:.2f} times", cpus])
    columns = ["requests/s (p99 ms)", *groups, f"{groups[-1]} to {groups[0]}", "CPU µs/request"]
    title = f"Submit by {what}: 32 connections, two processes, no store"
    return Table(slug, title, columns, rows + wrong_rows(figures))


def _plot(slug: str, what: str, figures: Figures, groups: Sequence[str]) -> Plot:
    def draw(axes: Axes) -> None:
        series = {name: [found[f"{group} /s"].value for group in groups] for name, found in figures.items()}
        lines(axes, groups, series, "requests/s")
        axes.set_title(f"Submit, 32 connections, {what} (more is better)", fontsize=10)

    return Plot(slug, draw, f"Requests per second {what}")
