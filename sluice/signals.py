"""SIGTERM and SIGINT, as the main thread of a process waits for them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from queue import Empty, SimpleQueue

#: Python hears a signal in its main thread only, and the kernel may give it to another one, as it does after SIGCONT: a
#: main thread that just waits would sleep on.
HEAR_SECONDS = 0.5


class Signals:
    """Made by the main thread. `on_second` is called when a signal comes after the first one."""

    def __init__(self, on_second: Callable[[], object] = lambda: None) -> None:
        # Not an Event: a signal that comes while the main thread has its lock, to wait or to set, would wait for it for
        # ever. A SimpleQueue is made for that (docs.python.org/3/library/queue.html).
        self._heard: SimpleQueue[int] = SimpleQueue()
        self._on_second = on_second
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether a signal has come, at most so many seconds from now (None: it is waited for)."""
        while True:
            try:
                self._heard.put(self._heard.get(timeout=HEAR_SECONDS if seconds is None else seconds))
            except Empty:
                if seconds is not None:
                    return False
            else:
                return True

    def _hear(self, number: int, _frame: object) -> None:
        if not self._heard.empty():
            self._on_second()
        self._heard.put(number)
