"""One picture of a run: load, queue, running tasks and replicas over the same seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tests.load.figures import clock_offset
from tests.load.options import Options
from tests.load.record import Run
from tests.load.report import sample_lines

#: One colour for what is asked for, one for what is done, one for what is neither.
BLUE, ORANGE, GREY, INK = "#2c6fbb", "#d9722e", "#8a8f98", "#3b4048"

#: Inches: the width, and the height of one panel.
WIDTH, PANEL = 8.0, 1.55

STYLE: Any = {
    "font.size": 9,
    "font.family": "sans-serif",
    "svg.fonttype": "none",  # text stays text: it can be read, searched and scaled
    "svg.hashsalt": "sluice",  # the same run gives the same file
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
}


def draw(options: Options, run: Run, path: Path) -> None:
    """Write the picture; the format follows from the path's suffix. Draws nothing before the first sample."""
    lines = sample_lines(run)
    if not lines:
        return
    panels: list[Callable[[Axes], None]] = [
        lambda axes: _load(axes, run, lines),
        lambda axes: _queue(axes, lines),
        lambda axes: _running(axes, lines),
    ]
    if _has(lines, "replicas_ready"):
        panels.append(lambda axes: _replicas(axes, lines))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, PANEL * len(panels) + 0.7), layout="constrained")
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(rows, panels, strict=True):
            panel(axes)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            if len(axes.lines) > 1:
                axes.legend(
                    frameon=False, loc="lower right", bbox_to_anchor=(1, 0.96), borderpad=0, ncols=2, fontsize=8
                )
        rows[-1].set_xlim(0, max(1.0, lines[-1]["seconds"]))
        rows[-1].set_xlabel("seconds since the first post")
        pace = f"{options.rate:g} tasks/s" if options.rate else "as fast as it can"
        rows[0].set_title(
            f"{options.tasks} {options.kind} tasks, {pace}, {options.users} users", loc="left", fontsize=10
        )
        figure.align_ylabels(rows)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _load(axes: Axes, run: Run, lines: list[dict[str, Any]]) -> None:
    offset = clock_offset(run.records) + run.started
    posted = Counter(int(record.sent - run.started) for record in run.records)
    ended = Counter(int(record.completed_at - offset) for record in run.records if record.completed_at is not None)
    whole = list(range(int(lines[-1]["seconds"]) + 2))
    for counts, colour, label in ((posted, BLUE, "posted"), (ended, ORANGE, "finished")):
        axes.step(whole, [counts[second] for second in whole], where="post", color=colour, linewidth=1.2, label=label)
    axes.set_ylabel("tasks/s")


def _queue(axes: Axes, lines: list[dict[str, Any]]) -> None:
    if _has(lines, "queue_ready"):
        _line(axes, lines, "queue_ready", BLUE, "ready")
        _line(axes, lines, "queue_unacked", ORANGE, "unacked")
        axes.set_ylabel("queued messages")
    else:
        _line(axes, lines, "waiting", BLUE, "waiting")
        axes.set_ylabel("waiting tasks")


def _running(axes: Axes, lines: list[dict[str, Any]]) -> None:
    _line(axes, lines, "running", ORANGE, "running")
    axes.set_ylabel("running tasks")


def _replicas(axes: Axes, lines: list[dict[str, Any]]) -> None:
    _line(axes, lines, "replicas_wanted", GREY, "wanted", dashed=True)
    _line(axes, lines, "replicas_ready", INK, "ready")
    axes.set_ylabel("engines")


def _line(
    axes: Axes, lines: list[dict[str, Any]], column: str, colour: str, label: str, *, dashed: bool = False
) -> None:
    """What was seen stays so until the next look; what was not seen is a gap."""
    values = [float("nan") if line[column] is None else line[column] for line in lines]
    times = [line["seconds"] for line in lines]
    style = "--" if dashed else "-"
    axes.step(times, values, where="post", color=colour, linewidth=1.2, linestyle=style, label=label)


def _has(lines: list[dict[str, Any]], column: str) -> bool:
    return any(line[column] is not None for line in lines)
