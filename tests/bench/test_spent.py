"""Where the CPU goes, by process and by thread."""

from __future__ import annotations

import os
import threading

import bench.threads  # noqa: F401 - it acts by its import
from bench.figures import Median
from bench.lab import cpu_seconds, thread_seconds
from bench.spent import Spending, cpu_table, parts
from tests.waiting import eventually


def test_the_time_of_a_thread_is_under_its_name_without_its_number() -> None:
    ended = threading.Event()

    def spin() -> None:
        while not ended.is_set():
            pass

    threads = [threading.Thread(target=spin, name=name) for name in ("busy 1", "busy-2", "busy_3 (spin)")]
    spending = Spending({"here": os.getpid()}, {"whole": os.getpid(), "nobody": None})
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: thread_seconds(os.getpid()).get("busy", 0.0) > 0.2)
        found = spending.per(1_000)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert found["CPU of here: busy"] >= 200
    assert found["CPU of whole"] >= found["CPU of here: busy"]
    assert "CPU of here: main thread" in found
    assert not [name for name in found if "nobody" in name]
    assert cpu_seconds(os.getpid()) > 0.2


def _median(value: float) -> Median:
    return Median(value, value, value)


def test_parts_are_shown_with_their_shares_and_the_small_ones_together() -> None:
    figures = {"32 CPU of a": _median(900), "32 CPU of b": _median(90), "32 CPU of c": _median(10), "32 /s": _median(1)}
    assert parts(figures, "32 ") == {"a": 900, "b": 90, "c": 10}
    assert parts(figures, "1 ") == {}

    table = cpu_table("submit-cpu", "Where", {"with": parts(figures, "32 "), "without": {"a": 50.0}, "wrong": {}})

    assert table.columns == ["CPU µs/task", "with", "without", "wrong"]
    assert table.rows == [
        ["a", "900 (90%)", "50.0 (100%)", "-"],
        ["b", "90.0 (9%)", "-", "-"],
        ["the rest", "10.0 (1%)", "-", "-"],
        ["all", "1,000", "50.0", "0.00"],
    ]
