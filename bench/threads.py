"""Names of threads that the kernel knows: before Python 3.14 it does not get to know them by itself.

What the bench starts of Sluice imports this first, so that /proc tells where the CPU time goes (`bench.spent`). It
costs a write when a thread starts, and nothing afterwards.
"""

from __future__ import annotations

import threading
from pathlib import Path

_run = threading.Thread.run


def _named(self: threading.Thread) -> None:
    """A thread's run, once its name is in /proc; the kernel keeps the first fifteen bytes."""
    Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(self.name)
    _run(self)


threading.Thread.run = _named  # type: ignore[method-assign]
