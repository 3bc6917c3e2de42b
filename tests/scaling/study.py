"""What each number of the ScaledObject costs: reaction against churn, over simulated hours.

`python -m tests.scaling.study` draws docs/pictures/scaling-costs.svg, and takes about a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.e2e.stack import ROOT
from tests.load.picture import BLUE, GREY, INK, ORANGE, STYLE
from tests.scaling.cluster import SCALED_OBJECT
from tests.scaling.scaled_object import ScaledObject, read_scaled_object
from tests.scaling.simulation import Result, Simulation, mixed_hour

PICTURE = ROOT / "docs" / "pictures" / "scaling-costs.svg"

#: Hours that each figure is the mean of; each has its own tasks.
HOURS = 8


@dataclass(frozen=True)
class Knob:
    """One number: its name, the values tried in words, the one that it has, and how to set it."""

    name: str
    values: Sequence[str]
    chosen: Callable[[ScaledObject], str]
    turn: Callable[[ScaledObject, str], ScaledObject]


def turn_value(scaled: ScaledObject, value: str) -> ScaledObject:
    """For the triggers on the tasks; the dead letters have their own."""
    triggers = tuple(replace(one, value=float(value)) if one.queue == "tasks" else one for one in scaled.triggers)
    return replace(scaled, triggers=triggers)


def turn_window(scaled: ScaledObject, window: str) -> ScaledObject:
    assert scaled.behavior is not None
    return replace(scaled, behavior=replace(scaled.behavior, down=replace(scaled.behavior.down, window=float(window))))


def turn_triggers(scaled: ScaledObject, protocol: str) -> ScaledObject:
    return replace(scaled, triggers=tuple(one for one in scaled.triggers if protocol in (one.protocol, "both")))


KNOBS = [
    Knob(
        "pollingInterval, s",
        ("1", "2", "5", "10", "15", "30"),
        lambda scaled: f"{scaled.polling:g}",
        lambda scaled, value: replace(scaled, polling=float(value)),
    ),
    Knob(
        "value, tasks to an engine",
        ("2", "5", "10", "15", "20", "40"),
        lambda scaled: f"{scaled.triggers[0].value:g}",
        turn_value,
    ),
    Knob(
        "cooldownPeriod, s",
        ("10", "30", "60", "120", "300", "600"),
        lambda scaled: f"{scaled.cooldown:g}",
        lambda scaled, value: replace(scaled, cooldown=float(value)),
    ),
    Knob(
        "scaleDown window, s",
        ("0", "60", "120", "180", "300", "600"),
        lambda scaled: f"{scaled.behavior.down.window:g}" if scaled.behavior else "",
        turn_window,
    ),
    Knob("triggers", ("amqp", "http", "both"), lambda _: "both", turn_triggers),
]


@dataclass(frozen=True)
class Figures:
    """The mean of some hours. Seconds, or counts of an hour."""

    wake: float
    p95: float
    wakes: float
    starts: float
    stopped: float
    idle_minutes: float


def figures(scaled: ScaledObject, hours: int = HOURS) -> Figures:
    results = [Simulation(scaled, mixed_hour(seed), seed).run() for seed in range(hours)]

    def of(ask: Callable[[Result], float]) -> float:
        return mean(ask(result) for result in results)

    return Figures(
        of(lambda result: result.cold_wait),
        of(lambda result: result.wait(0.95)),
        of(lambda result: len(result.cold_waits)),
        of(lambda result: result.starts),
        of(lambda result: result.stopped_in_mid_work),
        of(lambda result: result.idle_seconds / 60),
    )


def draw(scaled: ScaledObject, path: Path) -> None:
    """Two rows of panels, a column for each number: what a task waits, and what an hour costs."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 4.8), layout="constrained")
        widths = [len(knob.values) + 1 for knob in KNOBS]
        panels = figure.subplots(2, len(KNOBS), sharey="row", gridspec_kw={"width_ratios": widths})
        for column, knob in enumerate(KNOBS):
            found = [figures(knob.turn(scaled, value)) for value in knob.values]
            for value, one in zip(knob.values, found, strict=True):
                print(f"{knob.name} {value}: {one}", flush=True)
            above, below = panels[0, column], panels[1, column]
            line(above, [one.p95 for one in found], BLUE, "95 % of all tasks")
            line(above, [one.wake for one in found], ORANGE, "the task that wakes the first engine")
            line(below, [one.idle_minutes for one in found], GREY, "minutes of idle engines")
            line(below, [one.starts for one in found], BLUE, "engines started")
            line(below, [one.stopped for one in found], ORANGE, "engines stopped in mid-work")
            below.set_xlabel(knob.name)
            for axes in (above, below):
                dress(axes, knob, knob.chosen(scaled))
        panels[0, 0].set_ylabel("seconds until it starts")
        panels[1, 0].set_ylabel("in an hour")
        for axes in panels[:, 0]:
            axes.set_ylim(bottom=0)
            legend = axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
            legend.set_in_layout(False)  # it reaches over the panels beside this one
        figure.get_layout_engine().set(rect=(0, 0, 1, 0.96), hspace=0.1)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def line(axes: Axes, values: list[float], colour: str, label: str) -> None:
    axes.plot(range(len(values)), values, color=colour, marker="o", markersize=3, linewidth=1.2, label=label)


def dress(axes: Axes, knob: Knob, chosen: str) -> None:
    """The values stand side by side, whatever lies between them; the chosen one is marked."""
    axes.set_xticks(range(len(knob.values)), knob.values)
    axes.set_xlim(-0.5, len(knob.values) - 0.5)
    axes.axvline(knob.values.index(chosen), color=INK, alpha=0.12, linewidth=9, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)


def main() -> int:
    draw(read_scaled_object(SCALED_OBJECT), PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
