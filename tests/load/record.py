"""What is known about each task and each second of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Document = dict[str, Any]

TERMINAL = ("completed", "failed", "cancelled")


@dataclass(slots=True)
class Record:
    """One task: how its post went (times on this machine's clock), and what the server said of it last (on its own)."""

    number: int
    user: str
    #: Unix times: when it was to be sent, when it was, and when the answer came that accepted it.
    due: float
    sent: float
    answered: float | None = None
    tries: int = 0
    #: Why it was not accepted; None if it was, or while nobody knows.
    refused: str | None = None
    #: Empty until it is accepted.
    id: str = ""
    #: As the tasks' own; at the end also "gone" (the server does not know it any more) or "unknown" (it does not say).
    status: str | None = None
    attempts: int = 0
    error: str | None = None
    created_at: float | None = None
    started_at: float | None = None
    completed_at: float | None = None

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def submit_seconds(self) -> float | None:
        """From when the post was due until its answer: what a caller would have waited."""
        return None if self.answered is None else self.answered - self.due

    @property
    def seconds_to_start(self) -> float | None:
        return _between(self.created_at, self.started_at)

    @property
    def seconds_to_finish(self) -> float | None:
        return _between(self.created_at, self.completed_at)

    def learn(self, document: Document) -> None:
        """Take over what an answer of the server says. What is terminal stays so."""
        if self.is_terminal:
            return
        self.status = document["status"]
        self.attempts = document["attempts"]
        self.error = (document.get("error") or {}).get("code")
        self.created_at = moment(document["created_at"])
        self.started_at = moment(document["started_at"])
        self.completed_at = moment(document["completed_at"])


def moment(text: str | None) -> float | None:
    """A time of the API as a Unix time."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def _between(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first


@dataclass(slots=True)
class Sample:
    """One second of the run. What was not observed, or could not be, is not in `observed`."""

    at: float
    posted: int
    accepted: int
    finished: int
    observed: dict[str, int]


@dataclass
class Run:
    """All of it. Changed from one event loop only."""

    clock: Callable[[], float] = time.time
    started: float = 0.0
    #: When the last post was answered or given up; None while posting.
    posting_ended: float | None = None
    records: list[Record] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    accepted: int = 0
    refused: int = 0
    finished: int = 0
    #: Tries that had to be repeated, by reason.
    repeats: dict[str, int] = field(default_factory=dict)
    #: Why the server can't be reached at the moment; None while it answers.
    away: str | None = None
    #: When the server answered last, whatever it said.
    last_answer: float = 0.0
    #: Samples that an observer could not take, and the last reason.
    gaps: int = 0
    gap_reason: str = ""
    interrupted: bool = False
    #: Why posting ended early.
    stopped: str | None = None

    def heard(self) -> None:
        """The server answered."""
        self.away = None
        self.last_answer = self.clock()

    @property
    def open(self) -> int:
        """Accepted tasks that are not known to be finished."""
        return self.accepted - self.finished
