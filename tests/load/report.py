"""What a run found out: figures, the table that shows them, and the files."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.load.client import ClientLoad, judge
from tests.load.figures import clock_offset, percentile, running_at, waiting_at
from tests.load.observers import COLUMNS
from tests.load.options import Options
from tests.load.record import Record, Run
from tests.load.run import is_zero

Figures = dict[str, Any]

#: Tasks that are named when they did not finish.
NAMED = 5


def figures_of(options: Options, run: Run, client: ClientLoad) -> Figures:
    """All figures, as `summary.json` has them. Times are in seconds."""
    accepted = [record for record in run.records if record.id]
    completed = [record for record in accepted if record.status == "completed"]
    ended = [record.completed_at for record in accepted if record.completed_at is not None]
    started = [record.started_at for record in accepted if record.started_at is not None]
    created = [record.created_at for record in accepted if record.created_at is not None]
    verdict = judge(client)
    took = max(ended) - min(created) if completed else None
    return {
        "url": options.url,
        "kind": options.kind,
        "tasks": options.tasks,
        "users": options.users,
        "rate": options.rate,
        "connections": options.connections,
        "seed": options.seed,
        "run": options.run,
        "started": _utc(run.started),
        "stopped": run.stopped,
        "posted": len(run.records),
        "accepted": len(accepted),
        "not_accepted": _counts(record.refused for record in run.records if record.refused),
        "repeated": dict(sorted(run.repeats.items())),
        "completed": len(completed),
        "failed": _counts(record.error for record in accepted if record.status == "failed"),
        "cancelled": sum(record.status == "cancelled" for record in accepted),
        "not_finished": _counts(record.status for record in accepted if not record.is_terminal),
        "attempts_beyond_the_first": sum(max(0, record.attempts - 1) for record in accepted),
        "submit_seconds": _percentiles([record.submit_seconds for record in accepted]),
        "seconds_to_start": _percentiles([record.seconds_to_start for record in accepted]),
        "seconds_to_finish": _percentiles([record.seconds_to_finish for record in completed]),
        "posts_per_second": _ratio(len(accepted), (run.posting_ended or run.clock()) - run.started),
        "tasks_per_second": _ratio(len(completed), took),
        "seconds_to_first_start": min(started) - min(created) if started else None,
        "peak_queue_ready": _peak(run, "queue_ready"),
        "peak_queue_unacked": _peak(run, "queue_unacked"),
        "peak_replicas_wanted": _peak(run, "replicas_wanted"),
        "peak_replicas_ready": _peak(run, "replicas_ready"),
        "seconds_back_to_zero": back_to_zero(run),
        "missing_observations": run.gaps,
        "clock_offset_seconds": clock_offset(run.records),
        "client": {
            "is_bottleneck": verdict.is_bottleneck,
            "reason": verdict.reason,
            "cpu_share": client.cpu_share,
            "starved_share": client.starved_share,
            "loop_lag_p95_seconds": percentile(client.lags, 95),
            "send_delay_p95_seconds": percentile(client.waits, 95),
            "slow_answers_share": client.slow_share,
        },
    }


def back_to_zero(run: Run) -> float | None:
    """Seconds from the end of the last task until no replica was wanted or there any more; None if that was not
    seen."""
    ended = [record.completed_at for record in run.records if record.completed_at is not None]
    observed = [sample for sample in run.samples if "replicas_ready" in sample.observed]
    zeros = [sample.at for sample in takewhile(lambda sample: is_zero(sample.observed), reversed(observed))]
    if not ended or not zeros:
        return None
    return max(0.0, zeros[-1] - (max(ended) - clock_offset(run.records)))


def exit_status(run: Run) -> int:
    """0; 1 when an accepted task did not reach a final status; 2 when none was accepted; 130 after Ctrl+C."""
    if run.interrupted:
        return 130
    if not run.accepted:
        return 2
    return 1 if any(record.id and not record.is_terminal for record in run.records) else 0


def complaints(options: Options, run: Run) -> list[str]:
    """What went wrong, in sentences."""
    said = []
    if run.stopped:
        said.append(f"Posting was stopped after {len(run.records)} of {options.tasks} tasks: {run.stopped}.")
    left = [record for record in run.records if record.id and not record.is_terminal]
    if left:
        counts = ", ".join(f"{count} {status}" for status, count in _counts(record.status for record in left).items())
        within = "when it was interrupted" if run.interrupted else f"within {options.timeout:g} s after the last post"
        said.append(f"{len(left)} accepted tasks were not finished {within}: {counts}.")
        names = ", ".join(f"{record.id} of {record.user}" for record in left[:NAMED])
        said.append(f"These are {names}{', …' if len(left) > NAMED else ''}")
    if run.away is not None:
        when = max(0.0, run.last_answer - run.started)
        said.append(f"The server does not answer ({run.away}); its last answer came {when:.1f} s after the start.")
    if run.gaps:
        said.append(f"{run.gaps} observations are missing; the last reason: {run.gap_reason}.")
    return said


def table_of(options: Options, figures: Figures) -> Table:
    """The figures for people."""
    pace = f"{options.rate:g} tasks/s" if options.rate else f"as fast as it can, {options.connections} connections"
    table = Table(title=f"{options.tasks} {options.kind} tasks of {options.users} users, {pace}", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: object) -> None:
        table.add_row(name, str(value))

    row("accepted", f"{figures['accepted']} of {figures['posted']} posted")
    for reason, count in figures["not_accepted"].items():
        row("not accepted", f"{count}: {reason}")
    for reason, count in figures["repeated"].items():
        row("tries repeated", f"{count}: {reason}")
    row("completed", figures["completed"])
    for reason, count in figures["failed"].items():
        row("failed", f"{count}: {reason}")
    if not figures["failed"]:
        row("failed", 0)
    row("cancelled", figures["cancelled"])
    for status, count in figures["not_finished"].items():
        row("NOT FINISHED", f"{count}: {status}")
    row("attempts beyond the first", figures["attempts_beyond_the_first"])
    table.add_section()
    row("submit latency", _shown(figures["submit_seconds"]))
    row("time to start", _shown(figures["seconds_to_start"]))
    row("time to finish", _shown(figures["seconds_to_finish"]))
    row("first post to first start", seconds(figures["seconds_to_first_start"]))
    row("posts accepted", _per_second(figures["posts_per_second"]))
    row("tasks completed", _per_second(figures["tasks_per_second"]))
    table.add_section()
    if figures["peak_queue_ready"] is not None:
        row("peak of the queue", f"{figures['peak_queue_ready']} ready, {figures['peak_queue_unacked']} unacked")
    if figures["peak_replicas_ready"] is not None:
        row("peak replicas", f"{figures['peak_replicas_ready']} ready, {figures['peak_replicas_wanted']} wanted")
        row("back to zero replicas", seconds(figures["seconds_back_to_zero"], "not seen"))
    table.add_section()
    client = figures["client"]
    verdict = "THE CLIENT IS THE BOTTLENECK" if client["is_bottleneck"] else "not the bottleneck"
    row("this client", f"{verdict}: {client['reason']}")
    return table


def write_files(directory: Path, run: Run, figures: Figures) -> None:
    """`summary.json`, `tasks.csv` (a line a task), `samples.csv` (a line a second)."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "summary.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    with (directory / "tasks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(TASK_COLUMNS)
        writer.writerows(_task_line(run, record) for record in run.records)
    with (directory / "samples.csv").open("w", newline="") as file:
        lines = sample_lines(run)
        writer = csv.writer(file)
        writer.writerow(SAMPLE_COLUMNS)
        writer.writerows([["" if value is None else value for value in line.values()] for line in lines])


TASK_COLUMNS = (
    *("number", "user", "id", "due", "sent", "answered", "tries", "refused", "status", "error", "attempts"),
    *("created_at", "started_at", "completed_at", "submit_seconds", "seconds_to_start", "seconds_to_finish"),
)

SAMPLE_COLUMNS = ("seconds", "posted", "accepted", "finished", "waiting", "running", *COLUMNS)


def sample_lines(run: Run) -> list[dict[str, Any]]:
    """The samples, and how many tasks were waiting and running then by their own timestamps."""
    offset = clock_offset(run.records)
    moments = [sample.at + offset for sample in run.samples]
    accepted = [record for record in run.records if record.id]
    running, waiting = running_at(moments, accepted), waiting_at(moments, accepted)
    return [
        {
            "seconds": round(max(0.0, sample.at - run.started), 3),
            "posted": sample.posted,
            "accepted": sample.accepted,
            "finished": sample.finished,
            "waiting": waits,
            "running": runs,
            **{column: sample.observed.get(column) for column in COLUMNS},
        }
        for sample, waits, runs in zip(run.samples, waiting, running, strict=True)
    ]


def seconds(value: float | None, otherwise: str = "-") -> str:
    """A time for people."""
    if value is None:
        return otherwise
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def _task_line(run: Run, record: Record) -> list[object]:
    line = asdict(record)
    for name in ("due", "sent", "answered"):
        line[name] = None if line[name] is None else round(line[name] - run.started, 4)
    for name in ("created_at", "started_at", "completed_at"):
        line[name] = None if line[name] is None else _utc(line[name])
    for name in ("submit_seconds", "seconds_to_start", "seconds_to_finish"):
        value = getattr(record, name)
        line[name] = None if value is None else round(value, 4)
    return ["" if line[name] is None else line[name] for name in TASK_COLUMNS]


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(round(moment, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _counts(reasons: Any) -> dict[str, int]:
    """How often each occurs, the most frequent first."""
    return dict(Counter(str(reason) for reason in reasons).most_common())


def _percentiles(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    return {f"p{percent}": percentile(known, percent) for percent in (50, 95, 99)}


def _shown(percentiles: dict[str, float | None]) -> str:
    return "   ".join(f"{name} {seconds(value)}" for name, value in percentiles.items())


def _peak(run: Run, column: str) -> int | None:
    return max((sample.observed[column] for sample in run.samples if column in sample.observed), default=None)


def _ratio(count: int, duration: float | None) -> float | None:
    return count / duration if duration else None


def _per_second(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} /s"
