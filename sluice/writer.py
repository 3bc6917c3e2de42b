"""Group commit: what many threads want to write at the same time goes to the database in one round trip."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from sluice.errors import SluiceError, StoreUnavailable
from sluice.task import Task

log = logging.getLogger(__name__)

#: Tasks, and bytes of them, that may wait for the database in one process. More means that it can't keep up.
MAX_WAITING, MAX_WAITING_BYTES = 10_000, 32 * 1024 * 1024

#: Tasks, and bytes of them, in one round trip: more would gain nothing and could take longer than its timeout.
MAX_GROUP, MAX_GROUP_BYTES = 200, 4 * 1024 * 1024

#: About how many bytes of a document are not its texts.
_FRAME_BYTES = 512

#: Seconds that `close` waits for the last group.
CLOSE_SECONDS = 10.0

#: Writes a group: for each task what became of it. Raises StoreUnavailable when that holds for all of them.
WriteGroup = Callable[[Sequence[Task]], Sequence[Task | SluiceError]]

_Entry = tuple[Task, int, Future[Task]]


class GroupWriter:
    """Writes tasks on a thread of its own, which starts on first use. While one group is on its way the next one
    forms, so groups are as large as the database is slow and nobody waits for a full one.

    When a group fails because the database is away, all that began to wait before that group was taken fail with it:
    none of them waits for a second failure. Who comes meanwhile waits for that failure, and for a try of their own.
    """

    def __init__(self, write: WriteGroup, name: str = "task writer") -> None:
        self._write = write
        self._name = name
        self._waiting: deque[_Entry] = deque()
        self._count = self._bytes = 0
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, task: Task) -> Future[Task]:
        """Have the task written soon. Raises StoreUnavailable at once when too much waits already. Cancelling the
        future takes a task back whose group has not been sent yet."""
        size = task.weight + _FRAME_BYTES
        future: Future[Task] = Future()
        with self._changed:
            if self._closed:
                raise StoreUnavailable("The database is no longer in use.")
            if self._count >= MAX_WAITING or self._bytes > MAX_WAITING_BYTES:
                raise StoreUnavailable("Too many tasks wait for the database.")
            if self._thread is None:  # not before: a thread does not survive a fork
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._count += 1
            self._bytes += size
            self._waiting.append((task, size, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Write what waits, and end. Takes at most CLOSE_SECONDS."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while entries := self._take():
            is_away = False
            while entries:
                group = self._next_group(entries)
                if is_away:
                    _fail(group)
                elif group:
                    is_away = not self._write_group(group)

    def _take(self) -> deque[_Entry]:
        """All that waits, once there is something; nothing at the end."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            taken, self._waiting = self._waiting, deque()
        return taken

    def _next_group(self, entries: deque[_Entry]) -> list[_Entry]:
        """Take the first of these that go in one round trip; what has been cancelled is left out."""
        group: list[_Entry] = []
        count = size = 0
        while entries and count < MAX_GROUP and (size == 0 or size + entries[0][1] <= MAX_GROUP_BYTES):
            entry = entries.popleft()
            count += 1
            size += entry[1]
            if entry[2].set_running_or_notify_cancel():
                group.append(entry)
        with self._changed:
            self._count -= count
            self._bytes -= size
        return group

    def _write_group(self, group: list[_Entry]) -> bool:
        """False when the database is away."""
        try:
            outcomes = self._write([task for task, _, _ in group])
        except StoreUnavailable:
            _fail(group)
            return False
        except Exception as error:
            log.exception("a group of %d tasks could not be written, in an unforeseen way", len(group))
            for _, _, future in group:
                future.set_exception(error)
            return True
        for (_, _, future), outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Task):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
        return True


def _fail(group: list[_Entry]) -> None:
    for _, _, future in group:
        future.set_exception(StoreUnavailable("The database does not answer."))
