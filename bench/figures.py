"""Samples, medians over interleaved rounds, and what a case shows: tables, plots, verdicts."""

from __future__ import annotations

import gc
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What one measurement found, by the name of the measure ("requests/s", "p99 ms").
Sample = dict[str, float]

#: What the measures of `bench.spent` are called, before the part's name: many, and only shown in its table.
CPU_OF = "CPU of "


#: So much of an error is shown in a table.
REASON_CHARACTERS = 120


class Wrong(Exception):
    """A measurement that must not count: messages were lost, doubled or refused. The text says what."""


@dataclass(frozen=True)
class Variant:
    """One contender. `measure` takes a few seconds, checks its own correctness, and raises Wrong."""

    name: str
    measure: Callable[[], Sample]
    is_ours: bool = False
    #: Shown beside the name: what differs from the others, as "no confirms".
    note: str = ""


@dataclass(frozen=True)
class Median:
    """The middle of the rounds, and the lowest and the highest of them."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Median:
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])


class Figures(dict[str, dict[str, Median]]):
    """The medians of each variant, by its name and the measure's. `wrong` says which variants' figures don't count,
    and why; they are not among the medians. `samples` holds each round's."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: dict[str, str] = {}
        self.samples: dict[str, list[Sample]] = {}


def interleave(variants: Sequence[Variant], rounds: int) -> Figures:
    """Measure A B C A B C …, so that the machine's slow minutes hit all of them, and take the medians.

    A variant that is Wrong once, or breaks, is wrong: it is not measured again, and the others are."""
    figures = Figures()
    for _ in range(rounds):
        NOISE.look()
        for variant in variants:
            if variant.name in figures.wrong:
                continue
            gc.collect()
            try:
                sample = variant.measure()
            except Wrong as error:
                figures.wrong[variant.name] = str(error)
                continue
            except Exception as error:
                traceback.print_exc()
                figures.wrong[variant.name] = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]
                continue
            figures.samples.setdefault(variant.name, []).append(sample)
            shown = ", ".join(f"{name} {number(value)}" for name, value in sample.items() if CPU_OF not in name)
            print(f"  {variant.name}: {shown}", file=sys.stderr, flush=True)
    for name, samples in figures.samples.items():
        if name not in figures.wrong:
            measures = dict.fromkeys(measure for sample in samples for measure in sample)
            figures[name] = {
                measure: Median.of(sample[measure] for sample in samples if measure in sample) for measure in measures
            }
    ALL_WRONG.update(figures.wrong)
    return figures


def wrong_rows(figures: Figures) -> list[list[str]]:
    """A row for each variant whose figures don't count, which says why."""
    return [[name, f"WRONG: {reason}"] for name, reason in figures.wrong.items()]


#: What went wrong in this run, by the variant's name: with anything in here it fails.
ALL_WRONG: dict[str, str] = {}


class Noise:
    """The machine's own noise: how long one fixed piece of work takes, again and again."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def forget(self) -> None:
        """Begin anew, with one look."""
        self.seconds.clear()
        self.look()

    def look(self) -> None:
        """About 50 ms of work that never changes."""
        started = time.perf_counter()
        total = 0
        for value in range(1_000_000):
            total += value
        self.seconds.append(time.perf_counter() - started)

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def worst(self) -> float:
        """The slowest look in terms of the median."""
        return max(self.seconds) / self.median

    @property
    def best(self) -> float:
        """The fastest look in terms of the median."""
        return min(self.seconds) / self.median


#: The looks of the case that runs.
NOISE = Noise()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0 to 1) of the values does not exceed. Raises ValueError without
    values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, -(-round(share * 1_000_000) * len(ordered) // 1_000_000) - 1)]


def number(value: float) -> str:
    """A figure in about three digits: 12,345 · 123 · 12.3 · 0.12."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names the variant. A row may end early: its last cell then has the rest to itself,
    as in `wrong_rows`."""

    slug: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plot:
    """`draw` gets axes to draw on; `alt` says in a sentence what one sees."""

    slug: str
    draw: Callable[[Axes], None]
    alt: str


@dataclass(frozen=True)
class Verdict:
    """A promise, held against what was found."""

    claim: str
    wanted: str
    found: str
    holds: bool


@dataclass(frozen=True)
class Result:
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
