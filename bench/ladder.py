"""Bars that lie, one for each contender, with their figures: names that are too long to stand under a bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.figures import Median, number
from bench.report import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def ladder(axes: Axes, figures: Mapping[str, Median], label: str) -> None:
    """The first contender on top, in the colour of ours; a thin line from the lowest to the highest of the rounds."""
    names = list(figures)
    places = list(range(len(names)))
    values = [figures[name].value for name in names]
    spread = [
        [figures[name].value - figures[name].low for name in names],
        [figures[name].high - figures[name].value for name in names],
    ]
    colours = [COLOURS[0] if name.startswith(("Sluice", "the same")) else COLOURS[-1] for name in names]
    drawn = axes.barh(places, values, 0.7, xerr=spread, color=colours, error_kw={"elinewidth": 0.8})
    axes.bar_label(drawn, labels=[number(value) for value in values], fontsize=8, padding=4)
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0.12)


def said(figures: Mapping[str, Median]) -> str:
    """The same in words, for those who do not see it."""
    return ", ".join(f"{name} {number(found.value)}" for name, found in figures.items())
