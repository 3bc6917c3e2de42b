"""What the bench shows: text on the terminal, and tables and plots in docs/performance.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Noise, Plot, Result, Table, Verdict, number
from bench.lab import ROOT, Lab
from bench.machine import bare_python_ms, round_trip_ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "pictures"

#: What the report names the version of.
PACKAGES = ("pika", "pymongo", "functions-framework", "gunicorn", "uvicorn", "celery", "dramatiq", "fastapi", "flask")

#: What the figures depend on.
MEASURED = ("sluice", "functions", "bench", "tests/servers", "offline_model", "constraints.txt")

#: A place in the page, and what a run has put there.
PLACE = re.compile(r"(<!-- bench:(?P<slug>[a-z0-9-]+) -->\n)(?P<filling>.*?)(<!-- /bench -->)", re.S)

#: matplotlib's own colours are hard to tell apart for some people; these are not (Okabe and Ito). Ours comes first.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")


# --- the terminal ----------------------------------------------------------------------------------------------------


def text_of(result: Result) -> str:
    """Tables, notes and verdicts as aligned plain text."""
    parts = [text_table(table) for table in result.tables]
    if result.verdicts:
        parts.append("\n".join(_verdict_line(verdict) for verdict in result.verdicts))
    return "\n\n".join(parts) + "\n"


def text_table(table: Table) -> str:
    rows = [table.columns, *table.rows]
    full = [row for row in rows if len(row) == len(table.columns)]
    widths = [max(len(row[column]) for row in full) for column in range(len(table.columns))]
    lines = [table.title]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join([*lines, *(f"  {note}" for note in table.notes)])


def _verdict_line(verdict: Verdict) -> str:
    return f"  {'holds ' if verdict.holds else 'FAILS '} {verdict.claim}: {verdict.found} (wanted: {verdict.wanted})"


# --- the page --------------------------------------------------------------------------------------------------------


def markdown_table(table: Table) -> str:
    """The title as a line in bold, the table, and the notes below."""
    lines = [
        f"**{table.title}**",
        "",
        _row(table.columns),
        "| --- |" + " ---: |" * (len(table.columns) - 1),
        *(_row([*row, *[""] * (len(table.columns) - len(row))]) for row in table.rows),
    ]
    for note in table.notes:
        lines += ["", note]
    return "\n".join(lines)


def markdown_verdicts(verdicts: Iterable[Verdict]) -> str:
    lines = ["| promise | wanted | found | |", "| --- | --- | --- | --- |"]
    for verdict in verdicts:
        mark = "holds" if verdict.holds else "**fails**"
        lines.append(_row([verdict.claim, verdict.wanted, verdict.found, mark]))
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def picture_name(slug: str) -> str:
    return f"bench-{slug}.svg"


def fillings(name: str, result: Result) -> dict[str, str]:
    """What belongs into which place of the page: each table and each plot under its slug, the verdicts of a case under
    `NAME-verdicts`. A table and a plot that share a slug share the place."""
    found: dict[str, list[str]] = {}
    for table in result.tables:
        found.setdefault(table.slug, []).append(markdown_table(table))
    for plot in result.plots:
        found.setdefault(plot.slug, []).append(f"![{plot.alt}](pictures/{picture_name(plot.slug)})")
    if result.verdicts:
        found[f"{name}-verdicts"] = [markdown_verdicts(result.verdicts)]
    return {slug: "\n\n".join(parts) for slug, parts in found.items()}


def fill(page: str, filling: dict[str, str]) -> tuple[str, list[str]]:
    """The page with these places filled anew, and the names of those that it does not have. Other places stay."""
    missing = sorted(filling.keys() - {place["slug"] for place in PLACE.finditer(page)})

    def put(place: re.Match[str]) -> str:
        new = filling.get(place["slug"])
        return place[0] if new is None else f"{place[1]}{new}\n{place[4]}"

    return PLACE.sub(put, page), missing


def write(
    name: str, result: Result, provenance: str, machine: str, page: Path = PAGE, pictures: Path = PICTURES
) -> list[str]:
    """Fill one case's places in the page and write its pictures; other cases keep theirs. `provenance` goes into
    `NAME-run`, `machine` into its own. Returns what the page has no place for, as `submit-verdicts`."""
    pictures.mkdir(parents=True, exist_ok=True)
    for plot in result.plots:
        draw(plot, pictures / picture_name(plot.slug))
    places = {"machine": machine, f"{name}-run": provenance, **fillings(name, result)}
    filled, missing = fill(page.read_text(), places)
    new = page.with_suffix(".new")
    new.write_text(filled)
    new.replace(page)  # whoever ends the bench here leaves one page or the other
    return missing


def draw(plot: Plot, path: Path) -> None:
    """A plot as a file; its name's ending chooses the format. White behind it, for light and dark pages alike."""
    import matplotlib as mpl

    mpl.use("agg")
    from cycler import cycler
    from matplotlib import pyplot

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": plot.slug,  # the same figures make the same file
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "legend.frameon": False,
    }
    with mpl.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
        plot.draw(axes)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, facecolor="white", dpi=110, metadata=metadata)
        pyplot.close(figure)


def bars(
    axes: Axes, groups: Sequence[str], series: dict[str, Sequence[float | None]], label: str, *, log: bool = False
) -> None:
    """Grouped bars with their figures above them: one group for each of `groups`, one colour for each of `series`."""
    width = 0.84 / max(1, len(series))
    for index, (name, values) in enumerate(series.items()):
        places = [place - 0.42 + width * (index + 0.5) for place in range(len(groups))]
        shown = [0.0 if value is None else value for value in values]
        drawn = axes.bar(places, shown, width * 0.92, label=name, color=COLOURS[index % len(COLOURS)])
        texts = ["" if value is None else number(value) for value in values]
        axes.bar_label(drawn, labels=texts, fontsize=7.5, padding=1)
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(label)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(y=0.08)
    axes.legend(fontsize=8.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08))


def lines(axes: Axes, groups: Sequence[str], series: dict[str, Sequence[float]], label: str) -> None:
    """A line for each of `series` over evenly spaced `groups`, from zero, with its figures at the points."""
    for name, values in series.items():
        axes.plot(range(len(groups)), values, marker="o", label=name)
        for place, value in enumerate(values):
            axes.annotate(number(value), (place, value), (0, 6), textcoords="offset points", fontsize=8, ha="center")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(label)
    axes.set_ylim(0, 1.15 * max((value for values in series.values() for value in values), default=1.0))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.12)
    axes.legend(fontsize=8.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08))


# --- the machine -----------------------------------------------------------------------------------------------------


def machine(lab: Lab, cases: Sequence[str]) -> str:
    """One paragraph: on what, and with which versions, these cases were measured."""
    rabbit = lab.rabbit.ctl("version").strip()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    cores = f"{len(os.sched_getaffinity(0))} cores ({_processor()}, {_memory_gb():.0f} GB)"
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}, RabbitMQ {rabbit}"
    return (
        f"The last run ({', '.join(cases) or 'nothing'}) was on {cores}, {system}, {packages}. Clients, servers, "
        "RabbitMQ and the database share these cores."
    )


def provenance(lab: Lab, commit: str, noise: Noise, seconds: float) -> str:
    """When one case was measured, at which commit, and how steady the machine was meanwhile."""
    length = "a quick run" if lab.quick else "a whole run"
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d, %H:%M} UTC at commit {commit}: {length} of this case, "
        f"{seconds / 60:.1f} minutes. Meanwhile the same loop of work took {noise.median * 1000:.0f} ms at the median "
        f"of {len(noise.seconds)} looks, between {noise.best:.2f} and {noise.worst:.2f} times that; afterwards bare "
        f"Python started in {bare_python_ms():.0f} ms, and a byte went to a sleeping process and back in "
        f"{round_trip_ms():.2f} ms."
    )


def commit() -> str:
    """The commit that is measured, as "3db1056", or "3db1056 + changes"."""
    git = ["git", "-C", str(ROOT)]
    try:
        name = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "--", *MEASURED], text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name} + changes" if changed else name


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
