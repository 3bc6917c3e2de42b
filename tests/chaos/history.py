"""What happened: every request and its answer, every fault, every version of every task, every run of a handler.

The versions come from the database's own journal, so that nothing that was ever stored, however short, is missed. All
times are seconds since the epoch, of one machine's one clock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.chaos.schedule import Fault

Document = dict[str, Any]

TERMINAL = frozenset({"completed", "failed", "cancelled"})


@dataclass(slots=True)
class Wish:
    """A task that a client wants, once: however often it has to ask. `mark` stands in the task's inputs."""

    mark: str
    user: str
    kind: str
    key: str | None
    #: What a handler made by the tests is asked to do: done, fail, retry.
    outcome: str = "done"


@dataclass(slots=True)
class Request:
    """One request over HTTP. `status` is None when no answer came back."""

    action: str  # add, get, cancel, retry
    user: str
    sent: float
    ended: float
    status: int | None
    body: Document
    mark: str | None = None
    task_id: str | None = None


@dataclass(slots=True)
class Interval:
    """A fault as it was really done: from when it was on to when all that it broke was up again."""

    fault: Fault
    began: float
    ended: float


@dataclass(slots=True)
class Run:
    """One run of a handler of the tests' kinds, as the handler noted it itself. `ended` is None if it never got
    there."""

    task_id: str
    attempt: int
    began: float
    ended: float | None = None


@dataclass(slots=True)
class Mend:
    at: float
    task_id: str
    what: str


@dataclass
class History:
    #: Seconds that a task has.
    ttl: float = 60.0
    wishes: dict[str, Wish] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: list[Interval] = field(default_factory=list)
    #: Every version of every task in the order of writing.
    versions: dict[str, list[Document]] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    mends: list[Mend] = field(default_factory=list)
    #: Calls to the model, by task.
    calls: dict[str, int] = field(default_factory=dict)
    #: Marks of the tasks of the time before the storm, when nothing was broken.
    healthy: list[str] = field(default_factory=list)
    #: When the last fault was over.
    calm: float = 0.0
    #: When the last task was at its end, and the queues were empty; None if that never came.
    settled: float | None = None
    #: Messages in each queue at the end, by the part of its name after the tasks' own.
    queues: dict[str, int] = field(default_factory=dict)
    #: Messages that are no tasks and that the broker confirmed, and those of which nobody knows.
    garbage: int = 0
    garbage_perhaps: int = 0
    #: Tasks one of whose messages was taken away.
    stolen: set[str] = field(default_factory=set)
    #: Processes that ended, or would not end, in a way that nobody asked for.
    misconduct: list[str] = field(default_factory=list)
    #: Messages that the broker handed out again, and results that came too late.
    redelivered: int = 0
    too_late: int = 0

    @property
    def accepted(self) -> dict[str, str]:
        """The id that each accepted wish was answered with first, by mark."""
        ids: dict[str, str] = {}
        for request in self.requests:
            if request.action == "add" and request.status == 202 and request.mark is not None:
                ids.setdefault(request.mark, request.body["_id"])
        return ids

    def wish_of(self, task: Document) -> Wish | None:
        return self.wishes.get(mark_of(task))

    def asked(self, task_id: str, action: str) -> int:
        """How often somebody asked for this, answered or not."""
        return self._asked[task_id, action]

    @cached_property
    def _asked(self) -> Counter[tuple[str | None, str]]:
        return Counter((request.task_id, request.action) for request in self.requests)

    def faults_between(self, start: float, end: float) -> list[Interval]:
        return [one for one in self.faults if one.began < end and start < one.ended]

    def write(self, directory: Path) -> None:
        """Keep it for people, as JSON lines."""
        directory.mkdir(parents=True, exist_ok=True)
        parts: dict[str, list[Any]] = {
            "requests": [asdict(request) for request in self.requests],
            "faults": [asdict(interval) for interval in self.faults],
            "versions": [version for versions in self.versions.values() for version in versions],
            "runs": [asdict(run) for run in self.runs],
            "mends": [asdict(mend) for mend in self.mends],
        }
        for name, items in parts.items():
            (directory / f"{name}.jsonl").write_text("".join(json.dumps(item, default=str) + "\n" for item in items))


def mark_of(task: Document) -> str:
    """The mark in a task's inputs: the last word of its first text."""
    text = task.get("objective") or task.get("mark") or task.get("text") or ""
    return str(text).rpartition(" ")[2]


def seconds(moment: datetime) -> float:
    return moment.timestamp()


def read_runs(path: Path) -> list[Run]:
    """The notes of the handlers: one line at the start of a run, and one at its end."""
    runs: dict[tuple[str, int, int], Run] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        note = json.loads(line)
        identity = (note["task"], note["attempt"], note["pid"])
        if note["event"] == "start":
            runs[identity] = Run(note["task"], note["attempt"], note["at"])
        else:
            runs[identity].ended = note["at"]
    return list(runs.values())


def read_logs(paths: list[Path]) -> Iterator[Document]:
    """The lines of JSON logs; what is no JSON (the end of a line that a kill cut off, a server's own words) is left
    out."""
    for path in paths:
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry


def counted(faults: list[Interval]) -> Counter[str]:
    return Counter(f"{one.fault.lane}: {one.fault.sort}" for one in faults)
