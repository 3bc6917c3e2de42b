"""The arithmetic of the load script, and the table, the files and the exit status that follow from it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.load.client import ClientLoad
from tests.load.figures import clock_offset, counts_over_time, percentile
from tests.load.options import Options
from tests.load.picture import draw
from tests.load.record import Record, Run, Sample
from tests.load.report import (
    SAMPLE_COLUMNS,
    back_to_zero,
    complaints,
    exit_status,
    figures_of,
    sample_lines,
    table_of,
    write_files,
)

OPTIONS = Options("http://localhost", tasks=4, rate=1, users=2)

#: When the run began, by the client's clock, and by how much the server's is ahead.
START, AHEAD = 1_800_000_000.0, 30.0


def record(number: int, status: str | None, *, started: float | None = None, ended: float | None = None) -> Record:
    """A task that was due after `number` seconds, sent 10 ms later and answered 40 ms later; times are the client's."""
    due = START + number
    made = Record(number, "load-0", due=due, sent=due + 0.01, tries=1)
    if status is None:
        made.refused = "503 Service Unavailable"
        return made
    made.answered, made.id, made.status, made.attempts = due + 0.05, f"{number:032x}", status, 1
    made.created_at = due + 0.03 + AHEAD
    made.started_at = None if started is None else START + started + AHEAD
    made.completed_at = None if ended is None else START + ended + AHEAD
    return made


def run_of(*records: Record, samples: tuple[Sample, ...] = ()) -> Run:
    run = Run(started=START, posting_ended=START + 4, records=list(records), samples=list(samples))
    run.accepted = sum(bool(each.id) for each in records)
    return run


def replicas(at: float, wanted: int, ready: int) -> Sample:
    return Sample(START + at, 0, 0, 0, {"replicas_wanted": wanted, "replicas_ready": ready})


# --- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (95, 95), (99, 99), (100, 100), (0.1, 1)])
def test_a_percentile_is_one_of_the_values(percent: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_percentiles_of_little() -> None:
    assert percentile([], 50) is None
    assert [percentile([7.0], percent) for percent in (50, 95, 99)] == [7, 7, 7]
    assert [percentile([1, 2], percent) for percent in (50, 51)] == [1, 2]


def test_the_servers_clock_is_found_between_sending_and_answer() -> None:
    assert clock_offset([record(0, "completed"), record(1, "completed")]) == pytest.approx(AHEAD, abs=0.02)
    repeated = record(2, "completed")
    repeated.tries, repeated.created_at = 2, START  # its first try created it, who knows when
    assert clock_offset([record(0, "completed"), repeated]) == pytest.approx(AHEAD, abs=0.02)
    assert clock_offset([]) == 0


def test_how_many_are_inside_follows_from_entries_and_exits() -> None:
    assert counts_over_time([0, 1, 2, 3, 4], entries=[1, 1, 3], exits=[2, 4]) == [0, 2, 1, 2, 1]


def test_latency_runs_from_when_a_post_was_due() -> None:
    late = Record(0, "load-0", due=START, sent=START + 5, answered=START + 5.01)
    assert late.submit_seconds == pytest.approx(5.01)


# --- figures ---------------------------------------------------------------------------------------------------------


def a_run() -> Run:
    failed = record(1, "failed", started=2, ended=3)
    failed.error, failed.attempts = "expired", 3
    return run_of(
        record(0, "completed", started=2, ended=4),
        failed,
        record(2, "running", started=5),
        record(3, None),
        samples=tuple(
            replicas(at, wanted, ready) for at, wanted, ready in ((0, 0, 0), (1, 2, 0), (2, 2, 1), (6, 0, 0))
        ),
    )


def test_the_figures_count_every_task_once() -> None:
    figures = figures_of(OPTIONS, a_run(), ClientLoad())
    assert (figures["posted"], figures["accepted"], figures["completed"]) == (4, 3, 1)
    assert figures["not_accepted"] == {"503 Service Unavailable": 1}
    assert (figures["failed"], figures["not_finished"]) == ({"expired": 1}, {"running": 1})
    assert figures["attempts_beyond_the_first"] == 2
    assert figures["submit_seconds"]["p99"] == pytest.approx(0.05)
    assert figures["seconds_to_finish"]["p50"] == pytest.approx(3.97), "of completed tasks only, by the server's clock"
    assert figures["seconds_to_first_start"] == pytest.approx(1.97)
    assert (figures["peak_replicas_wanted"], figures["peak_replicas_ready"]) == (2, 1)


def test_running_and_waiting_follow_from_the_tasks_own_times() -> None:
    lines = sample_lines(a_run())
    assert [(line["seconds"], line["waiting"], line["running"]) for line in lines] == [
        (0, 0, 0),
        (1, 1, 0),
        (2, 0, 2),
        (6, 0, 1),
    ]


def test_back_to_zero_counts_from_the_last_end_to_the_first_of_the_last_zeros() -> None:
    done = record(0, "completed", started=2, ended=4)
    ups = (replicas(0, 0, 0), replicas(2, 1, 1), replicas(9, 0, 1))
    assert back_to_zero(run_of(done, samples=ups)) is None, "one is still there"
    assert back_to_zero(run_of(done, samples=(*ups, replicas(10, 0, 0), replicas(11, 0, 0)))) == pytest.approx(
        6, abs=0.1
    )
    unseen = Sample(START + 10, 0, 0, 0, {})
    assert back_to_zero(run_of(done, samples=(*ups, unseen, replicas(11, 0, 0)))) == pytest.approx(7, abs=0.1)
    assert back_to_zero(run_of(done, samples=(*ups, replicas(11, 0, 0), unseen))) == pytest.approx(7, abs=0.1)
    assert back_to_zero(run_of(done, samples=(*ups, unseen))) is None, "one was still there when it was seen last"
    assert back_to_zero(run_of(done, samples=(unseen,))) is None


@pytest.mark.parametrize(
    ("records", "interrupted", "status"),
    [
        ([record(0, "completed"), record(1, "failed"), record(2, "cancelled"), record(3, None)], False, 0),
        ([record(0, "completed"), record(1, "running")], False, 1),
        ([record(0, "completed"), record(1, "gone")], False, 1),
        ([record(0, "completed"), record(1, "unknown")], False, 1),
        ([record(0, None)], False, 2),
        ([record(0, "completed"), record(1, "running")], True, 130),
    ],
)
def test_the_exit_status_says_whether_every_accepted_task_ended(
    records: list[Record], interrupted: bool, status: int
) -> None:
    run = run_of(*records)
    run.interrupted = interrupted
    assert exit_status(run) == status


def test_the_table_and_the_sentences_say_what_is_wrong() -> None:
    run = a_run()
    run.away, run.last_answer, run.stopped = "connection refused", START + 3, "interrupted"
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table_of(OPTIONS, figures_of(OPTIONS, run, ClientLoad(wall=10, cpu=9.5))))
    table = " ".join(capture.get().replace("│", " ").split())
    for words in (
        "accepted 3 of 4 posted",
        "not accepted 1: 503 Service Unavailable",
        "failed 1: expired",
        "NOT FINISHED 1: running",
        "attempts beyond the first 2",
        "submit latency p50 50 ms p95 50 ms p99 50 ms",
        "time to finish p50 3.97 s",
        "first post to first start 1.97 s",
        "peak replicas 1 ready, 2 wanted",
        "THE CLIENT IS THE BOTTLENECK: it used 95% of a core",
    ):
        assert words in table, table
    said = " ".join(complaints(OPTIONS, run))
    assert "1 accepted tasks were not finished within 480 s after the last post: 1 running." in said
    assert f"{2:032x} of load-0" in said
    assert "The server does not answer (connection refused); its last answer came 3.0 s after the start." in said


def test_the_files_hold_a_line_for_each_task_and_each_second(tmp_path: Path) -> None:
    run = a_run()
    write_files(tmp_path, run, figures_of(OPTIONS, run, ClientLoad()))
    tasks = list(csv.DictReader((tmp_path / "tasks.csv").read_text().splitlines()))
    assert [task["status"] for task in tasks] == ["completed", "failed", "running", ""]
    assert tasks[0]["seconds_to_finish"] == "3.97"
    assert tasks[3]["refused"] == "503 Service Unavailable"
    samples = list(csv.DictReader((tmp_path / "samples.csv").read_text().splitlines()))
    assert list(samples[0]) == list(SAMPLE_COLUMNS)
    assert [sample["replicas_ready"] for sample in samples] == ["0", "0", "1", "0"]
    assert {sample["queue_ready"] for sample in samples} == {""}, "not observed is not zero"
    assert json.loads((tmp_path / "summary.json").read_text())["accepted"] == 3


def test_the_picture_has_a_panel_for_each_thing_that_was_observed(tmp_path: Path) -> None:
    run = a_run()
    draw(OPTIONS, run, tmp_path / "load.svg")
    picture = (tmp_path / "load.svg").read_text()
    for words in ("tasks/s", "waiting tasks", "running tasks", "engines", "wanted", "seconds since the first post"):
        assert f">{words}<" in picture
    for sample in run.samples:
        sample.observed = {"queue_ready": 1, "queue_unacked": 2}
    draw(OPTIONS, run, tmp_path / "queue.svg")
    picture = (tmp_path / "queue.svg").read_text()
    assert ">queued messages<" in picture
    assert ">engines<" not in picture
