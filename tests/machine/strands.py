"""Threads that take turns: one runs at a time, until it waits for something or its turn is over.

What runs on a strand is the real code, calls and all. Which strand goes on next, how far it gets, and how much time has
passed is for the test to say; so every run can be repeated.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from queue import Empty
from typing import Any

from tests.engine.doubles import Clock

#: Rounds after which strands that still have something to do, at the same time, count as going in circles.
TOO_MANY_ROUNDS = 1_000

_threads = ThreadPoolExecutor(max_workers=256, thread_name_prefix="strand")


class Killed(BaseException):
    """The process that this strand belongs to is gone."""


class Time(Clock):
    """The clock of a stage; stands in for the module `time` as well."""

    def __init__(self) -> None:
        super().__init__()
        self._start = self.now

    def monotonic(self) -> float:
        return (self.now - self._start).total_seconds()

    perf_counter = monotonic


class Stage:
    """Where strands take turns, and what time it is there."""

    def __init__(self) -> None:
        self.time = Time()
        #: The strand whose turn it is; None while it is the test's.
        self.current: Strand | None = None
        self._strands: list[Strand] = []

    def start(self, name: str, run: Callable[[], object], process: Process | None = None) -> Strand:
        """A strand for a thread of a process. Its first turn is yet to come."""
        strand = Strand(self, name, run, process)
        self._strands.append(strand)
        return strand

    def checkpoint(self) -> None:
        """What runs is about to do something that others can see: its turn may be over before that."""
        if self.current is not None:
            self.current.checkpoint()

    def wait(self, ready: Callable[[], bool], seconds: float | None = None) -> bool:
        """Let others go on until something is ready, or the time is over. Returns whether it is."""
        assert self.current is not None, "only strands wait"
        if not ready():
            self.current.pause(ready, None if seconds is None else self.time.now + timedelta(seconds=seconds))
        return ready()

    def waiting(self) -> list[Strand]:
        """The strands that could go on."""
        self._strands = [strand for strand in self._strands if not strand.is_done]
        return [strand for strand in self._strands if strand.can_go_on]

    def run(self, first: int = 0) -> None:
        """Turn after turn, until nobody can go on before something happens."""
        for _ in range(TOO_MANY_ROUNDS):
            waiting = self.waiting()
            if not waiting:
                return
            start = first % len(waiting)
            for strand in waiting[start:] + waiting[:start]:
                if strand.can_go_on:
                    strand.go_on()
        raise AssertionError("they go round in circles")

    def close(self) -> None:
        for strand in self._strands:
            strand.kill()


class Process:
    """What can be frozen, and killed, as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.strands: list[Strand] = []
        self.is_frozen = False


class Strand:
    """A thread that runs only when it is its turn. Has what the engine asks of a thread: a name, and its end."""

    def __init__(self, stage: Stage, name: str, run: Callable[[], object], process: Process | None) -> None:
        self.name = name
        self.process = process
        self.is_done = False
        #: When it was started.
        self.since = stage.time.now
        self._stage = stage
        self._run: Callable[[], object] | None = run
        self._error: BaseException | None = None
        self._is_killed = False
        self._left: int | None = None
        self._ready: Callable[[], bool] = lambda: True
        self._due: datetime | None = None
        self._turn, self._end_of_turn = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._end_of_turn.acquire()
        if process is not None:
            process.strands.append(self)

    def __str__(self) -> str:
        return f"{self.process.name} {self.name}" if self.process else self.name

    # --- the test's side ---------------------------------------------------------------------------------------------

    @property
    def can_go_on(self) -> bool:
        if self.is_done or (self.process is not None and self.process.is_frozen):
            return False
        return self._ready() or (self._due is not None and self._due <= self._stage.time.now)

    def go_on(self, operations: int | None = None) -> None:
        """Its turn: until it waits for something, ends, or has done so many operations. Raises what it raised."""
        self._left = operations
        before, self._stage.current = self._stage.current, self
        run, self._run = self._run, None
        if run is not None:
            _threads.submit(self._main, run)
        else:
            self._turn.release()
        self._end_of_turn.acquire()
        self._stage.current = before
        error, self._error = self._error, None
        if error is not None:
            raise error

    def kill(self) -> None:
        """Its process is gone: it does nothing more."""
        self._is_killed = True
        if self._run is not None:
            self.is_done = True
        elif not self.is_done:
            self.go_on()

    # --- its own side ------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        if self._is_killed:
            raise Killed
        if self._left == 0:
            self.pause(lambda: True)
        if self._left is not None:
            self._left -= 1

    def pause(self, ready: Callable[[], bool], due: datetime | None = None) -> None:
        if not self._is_killed:
            self._ready, self._due = ready, due
            self._end_of_turn.release()
            self._turn.acquire()
        if self._is_killed:
            raise Killed

    def _main(self, run: Callable[[], object]) -> None:
        try:
            run()
        except Killed:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.is_done = True
            self._end_of_turn.release()

    # --- as the engine sees it ---------------------------------------------------------------------------------------

    def is_alive(self) -> bool:
        return not self.is_done

    def join(self, timeout: float | None = None) -> None:
        self._stage.wait(lambda: self.is_done, timeout)


class Signal(threading.Event):
    """An event for strands to wait for."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def wait(self, timeout: float | None = None) -> bool:
        return self._stage.wait(self.is_set, timeout)


class Inbox:
    """A queue between strands."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._items: deque[Any] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        self._stage.wait(lambda: bool(self._items))
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise Empty
        return self._items.popleft()
