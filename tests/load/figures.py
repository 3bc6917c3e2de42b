"""Arithmetic on what was recorded."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from tests.load.record import Record


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The least value that at least `percent` of all do not exceed (nearest rank); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def clock_offset(records: Iterable[Record]) -> float:
    """By how many seconds the server's clock is ahead of this machine's.

    A task is created between the sending of its post and the answer; each post that needed one try narrows it down.
    """
    least, most = -math.inf, math.inf
    for record in records:
        if record.tries == 1 and record.created_at is not None and record.answered is not None:
            least = max(least, record.created_at - record.answered)
            most = min(most, record.created_at - record.sent)
    return (least + most) / 2 if math.isfinite(least) else 0.0


def counts_over_time(moments: Sequence[float], entries: Iterable[float], exits: Iterable[float]) -> list[int]:
    """How many were inside at each moment, by when each of them came in and went out."""
    came, went = sorted(entries), sorted(exits)
    return [bisect_right(came, moment) - bisect_right(went, moment) for moment in moments]


def running_at(moments: Sequence[float], records: Sequence[Record]) -> list[int]:
    """How many tasks were in their last attempt at each moment of the server's clock."""
    started = [record for record in records if record.started_at is not None]
    entries = [record.started_at for record in started if record.started_at is not None]
    exits = [record.completed_at for record in started if record.completed_at is not None]
    return counts_over_time(moments, entries, exits)


def waiting_at(moments: Sequence[float], records: Sequence[Record]) -> list[int]:
    """How many tasks were created and not in their last attempt yet, at each moment of the server's clock."""
    entries = [record.created_at for record in records if record.created_at is not None]
    exits = [
        moment
        for record in records
        if record.created_at is not None and (moment := record.started_at or record.completed_at) is not None
    ]
    return counts_over_time(moments, entries, exits)
