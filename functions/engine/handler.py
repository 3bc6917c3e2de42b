"""What a handler sees: its inputs, its steps, and the ways to end. No queue, no database, no HTTP server.

    def run(task: Inputs, step: Step) -> Outputs:
        with step("make it"):
            ...
        return Outputs(...)

A handler returns its kind's outputs, or raises `Failed` (for good) or `Retry` (to be tried again after a pause). Any
other exception fails the task too, as a fault of the handler.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sluice.settings import Settings
from sluice.task import Document, format_time, utc_now

log = logging.getLogger(__name__)

#: Characters of a message or a name that are kept.
MAX_TEXT = 2_000

#: Steps kept of all attempts of a task together.
MAX_STEPS = 50


def presentable(text: str) -> str:
    """A handler's text, fit to be stored and read: no halves of characters, and not endless."""
    return text[:MAX_TEXT].encode(errors="replace").decode()


class Failed(Exception):
    """The task can't be done. `code` is for programs, `message` for the user: what went wrong and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = presentable(code)
        self.message = presentable(message)


class Retry(Exception):
    """It did not work this time. `after` is the least pause in seconds, where the other side has asked for one."""

    def __init__(self, code: str, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.code = presentable(code)
        self.message = presentable(message)
        self.after = after


class Stopped(Exception):
    """The engine wants the handler to stop: the task was cancelled, took too long, or the engine goes."""


class Step:
    """Reports what a handler is at, and tells it when to stop. Safe to use from several threads.

    Reports are written to the task at most every half second; a report that is overtaken is never written.
    """

    def __init__(
        self,
        task_id: str,
        settings: Settings,
        attempt: int = 1,
        earlier: list[Document] | None = None,
        outputs: Collection[str] | None = None,
    ) -> None:
        """`earlier` are the steps of the attempts before; `outputs` the names that may be shown (None: any)."""
        self.task_id = task_id
        self.settings = settings
        #: When the handler was started (monotonic seconds); waiting for a place to start in does not count.
        self.started = time.monotonic()
        #: Which try of the task this is, from 1.
        self.attempt = attempt
        self._outputs = outputs
        self._lock = threading.Lock()
        self._steps: list[Document] = [_ended(step) for step in earlier or []]
        self._changes: Document = {}
        self._stop_reason: str | None = None
        self._on_stop: list[Callable[[], object]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """One milestone: shown as running, then as completed with its time in milliseconds, or as failed and why."""
        self.check()
        started = time.perf_counter()
        entry: Document = {
            "name": presentable(name),
            "attempt": self.attempt,
            "status": "running",
            "started_at": format_time(utc_now()),
            "ms": None,
            "message": None,
        }
        with self._lock:
            self._set_steps([*self._steps, entry][-MAX_STEPS:])
        try:
            yield
        except BaseException as error:
            message = error.message if isinstance(error, Failed | Retry) else None
            if isinstance(error, Stopped):
                message = "stopped"
            self._end(entry, "failed", message, started)
            raise
        self._end(entry, "completed", None, started)

    def progress(self, percent: float) -> None:
        """How much of the whole task is done, 0 to 100."""
        with self._lock:
            self._changes["progress"] = int(min(100, max(0, percent)))

    def show(self, **outputs: Any) -> None:
        """Outputs as far as they are there, to be seen while the handler works on. Raises TypeError for a name that is
        no output of the kind."""
        unknown = set() if self._outputs is None else outputs.keys() - set(self._outputs)
        if unknown:
            raise TypeError(f"not an output of this kind: {', '.join(sorted(unknown))}")
        with self._lock:
            self._changes.update(outputs)

    def check(self) -> None:
        """Raise Stopped if the handler should stop. Call it between pieces of long work."""
        if self._stop_reason is not None:
            raise Stopped(self._stop_reason)

    @contextmanager
    def on_stop(self, callback: Callable[[], object]) -> Iterator[None]:
        """While inside, a stop calls this (on another thread): use it to break off what blocks."""
        with self._lock:
            self._on_stop.append(callback)
        try:
            if self._stop_reason is not None:
                callback()
            yield
        finally:
            with self._lock:
                self._on_stop.remove(callback)

    # --- the engine's side -------------------------------------------------------------------------------------------

    @property
    def stop_reason(self) -> str | None:
        return self._stop_reason

    @property
    def steps(self) -> list[Document]:
        with self._lock:
            return [dict(entry) for entry in self._steps]

    def stop(self, reason: str) -> None:
        """Tell the handler to stop. Only the first reason counts."""
        with self._lock:
            if self._stop_reason is not None:
                return
            self._stop_reason = reason
            callbacks = list(self._on_stop)
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("what should stop a handler failed")

    def take_changes(self) -> Document:
        """What has been reported since the last call."""
        with self._lock:
            changes, self._changes = self._changes, {}
            return changes

    def put_back(self, changes: Document) -> None:
        """The reverse of `take_changes`: they could not be written. What was reported since then wins."""
        with self._lock:
            self._changes = {**changes, **self._changes}

    def replay(self, changes: Document) -> None:
        """Report what another process has reported."""
        with self._lock:
            if "steps" in changes:
                self._steps = list(changes["steps"])
            self._changes.update(changes)

    def _end(self, entry: Document, status: str, message: str | None, started: float) -> None:
        ended = {**entry, "status": status, "ms": round((time.perf_counter() - started) * 1000), "message": message}
        with self._lock:
            self._set_steps([ended if step is entry else step for step in self._steps])

    def _set_steps(self, steps: list[Document]) -> None:
        self._steps = steps
        self._changes["steps"] = [dict(entry) for entry in steps]


def _ended(step: Document) -> Document:
    """A step of an earlier attempt. One that was still running was cut short by the end of its engine."""
    return step if step.get("status") != "running" else {**step, "status": "failed", "message": "its engine went away"}
