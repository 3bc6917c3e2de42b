"""Where the CPU goes: the time of each process of a measurement, and in Sluice's own that of each thread."""

from __future__ import annotations

from collections.abc import Mapping

from bench.figures import CPU_OF, Median, Sample, Table, number
from bench.lab import cpu_seconds, thread_seconds

#: Parts with a smaller share than this are shown together.
SMALL = 0.02

NOTE = (
    "Microseconds of user and system time for each task, median of the rounds, and their share of all. By thread in "
    "Sluice's own processes, as far as the thread still lived when the measurement ended."
)


class Spending:
    """What processes spend from now on, by their names; those in `by_thread` thread by thread."""

    def __init__(self, by_thread: Mapping[str, int], whole: Mapping[str, int | None]) -> None:
        self._by_thread = by_thread
        self._whole = {name: pid for name, pid in whole.items() if pid is not None}
        self._before = self._look()

    def per(self, tasks: int) -> Sample:
        """Microseconds of each part for each of so many tasks."""
        return {
            f"{CPU_OF}{part}": (seconds - self._before.get(part, 0.0)) / tasks * 1e6
            for part, seconds in self._look().items()
        }

    def _look(self) -> dict[str, float]:
        found = {
            f"{name}: {thread}": seconds
            for name, pid in self._by_thread.items()
            for thread, seconds in thread_seconds(pid).items()
        }
        return found | {name: cpu_seconds(pid) for name, pid in self._whole.items()}


def parts(figures: Mapping[str, Median], prefix: str = "") -> dict[str, float]:
    """What each part spent, of one variant's figures; `prefix` goes before its measures' names."""
    start = f"{prefix}{CPU_OF}"
    return {name.removeprefix(start): found.value for name, found in figures.items() if name.startswith(start)}


def cpu_table(slug: str, title: str, spent: Mapping[str, Mapping[str, float]]) -> Table:
    """A row for each part and a column for each of these measurements, by its heading. Parts that are small in every
    column are one row."""
    totals = {heading: sum(found.values()) for heading, found in spent.items()}
    names = dict.fromkeys(name for found in spent.values() for name in found)
    large = [
        name for name in names if any(found.get(name, 0.0) > SMALL * totals[where] for where, found in spent.items())
    ]
    rows = [[name, *(_cell(found.get(name, 0.0), totals[where]) for where, found in spent.items())] for name in large]
    rest = {where: sum(found[name] for name in found.keys() - large) for where, found in spent.items()}
    rows.append(["the rest", *(_cell(rest[where], totals[where]) for where in spent)])
    rows.append(["all", *(number(total) for total in totals.values())])
    return Table(slug, title, ["CPU µs/task", *spent], rows, [NOTE])


def _cell(value: float, total: float) -> str:
    return f"{number(value)} ({value / total:.0%})" if value else "-"
