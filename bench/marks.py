"""What handlers note about themselves: which task, in which thread, from when to when; and a gate that holds them.

The same few lines run in Sluice's engine and in the peers' workers, and cost each of them less than a microsecond. The
times are CLOCK_MONOTONIC, which all processes of a machine share. A task's id is 32 hexadecimal digits.

The gate is a lock file: while the bench holds it, every handler waits at it, so that a worker has started, imported and
taken its first tasks before anything is measured. MARKS names the folder; without a gate in it, nobody waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

#: Task's id, process, thread, start and end in monotonic seconds. A record is written at an index that nobody else has.
RECORD = struct.Struct("<16sqqdd")

#: Marks that one process can write. The file is sparse.
CAPACITY = 400_000

GATE = "gate"


class _Writer:
    """The file of this process."""

    def __init__(self, directory: Path) -> None:
        with (directory / f"{os.getpid()}.marks").open("w+b") as file:
            file.truncate(CAPACITY * RECORD.size)
            self._memory = mmap.mmap(file.fileno(), CAPACITY * RECORD.size)
        self._next = count().__next__
        self._pid = os.getpid()

    def write(self, task_id: str, started: float, ended: float) -> None:
        place = self._pid, threading.get_ident()
        RECORD.pack_into(self._memory, self._next() * RECORD.size, bytes.fromhex(task_id), *place, started, ended)


_writer: _Writer | None = None
_lock = threading.Lock()


def _forget() -> None:
    """Forked workers each have their own file."""
    global _writer, _lock
    _writer, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def _enter() -> _Writer:
    """Wait at the gate, each thread by itself, so that all start at the same moment."""
    global _writer
    directory = Path(os.environ["MARKS"])
    with contextlib.suppress(FileNotFoundError), (directory / GATE).open("rb") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
    with _lock:
        if _writer is None:
            _writer = _Writer(directory)
        return _writer


def mark(task_id: str, seconds: float = 0.0) -> None:
    """What every handler of the bench does: wait at the gate, sleep for so long, and note it."""
    writer = _writer or _enter()
    started = time.monotonic()
    if seconds:
        time.sleep(seconds)
    writer.write(task_id, started, time.monotonic())


@dataclass(frozen=True, slots=True)
class Mark:
    """One run of a handler."""

    task_id: str
    #: Process and thread: what has one task at a time.
    place: tuple[int, int]
    started: float
    ended: float


class Marks:
    """A folder in which handlers leave their marks. As a context manager it holds its gate shut until `open_gate`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._gate: int | None = None

    def __enter__(self) -> Self:
        self._gate = os.open(self.directory / GATE, os.O_CREAT | os.O_RDWR)
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open_gate()

    def open_gate(self) -> None:
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None

    def count(self) -> int:
        """How many there are, about: a record that is being written may count or not."""
        return sum(_count(path) for path in self.directory.glob("*.marks"))

    def read(self) -> list[Mark]:
        """All marks, by their start. Call it when nobody writes any more."""
        marks = []
        for path in self.directory.glob("*.marks"):
            with path.open("rb") as file:
                written = file.read((_count(path) + 1_000) * RECORD.size)  # some beyond a hole, if there is one
            for task_id, process, thread, started, ended in RECORD.iter_unpack(written):
                if ended:
                    marks.append(Mark(task_id.hex(), (process, thread), started, ended))
        return sorted(marks, key=lambda mark: mark.started)


def _count(path: Path) -> int:
    """The first index without an end: the records are written in order, but for those of the same moment."""
    with path.open("rb") as file:
        low, high = 0, CAPACITY
        while low < high:
            middle = (low + high) // 2
            file.seek(middle * RECORD.size)
            record = file.read(RECORD.size)  # shorter than that while the file is being made
            low, high = (
                (middle + 1, high) if len(record) == RECORD.size and RECORD.unpack(record)[-1] else (low, middle)
            )
    return low


def gaps(marks: Sequence[Mark]) -> list[float]:
    """The seconds that a place lost between the end of a task and the start of its next one."""
    lost, last = [], dict[tuple[int, int], float]()
    for mark in sorted(marks, key=lambda mark: mark.started):
        if mark.place in last:
            lost.append(mark.started - last[mark.place])
        last[mark.place] = mark.ended
    return lost


def faults(marks: Sequence[Mark], expected: set[str]) -> str | None:
    """What is wrong with these marks if each of the expected tasks should have been done once, or None."""
    ids = [mark.task_id for mark in marks]
    done = set(ids)
    problems = []
    if missing := len(expected - done):
        problems.append(f"{missing} of {len(expected)} tasks were not done")
    if doubled := len(ids) - len(done):
        problems.append(f"{doubled} tasks were done more than once")
    if strange := len(done - expected):
        problems.append(f"{strange} tasks were done that nobody had sent")
    return "; ".join(problems) or None
