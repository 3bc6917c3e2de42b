"""Whether this process is fast enough for what it is asked to do: what it noticed, and the verdict."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.load.figures import percentile

#: Pause between two looks at how late the event loop is, in seconds.
LOOK_SECONDS = 0.02

#: Share of one core from which a process of one thread counts as busy: asyncio does not use a second one.
BUSY_SHARE = 0.85

#: From when on an answer is slow, in seconds: connections that wait for it are not to blame.
SLOW_SECONDS = 0.25

#: How late the event loop may be (p95) before latencies are this process's own, in seconds.
LATE_SECONDS = 0.05


@dataclass
class ClientLoad:
    """What posting cost this process. Seconds."""

    wall: float = 0.0
    cpu: float = 0.0
    #: How long it could have gone on, but others had the processor. 0 where the system does not say.
    starved: float = 0.0
    #: How late the event loop woke up, each time it was asked to.
    lags: list[float] = field(default_factory=list)
    #: How long posts that were due waited until they were sent, and how long they held their connections then.
    waits: list[float] = field(default_factory=list)
    holds: list[float] = field(default_factory=list)

    @property
    def cpu_share(self) -> float:
        """Of one core."""
        return self.cpu / self.wall if self.wall else 0.0

    @property
    def slow_share(self) -> float:
        """How much of the time that connections were held they were held by slow answers."""
        slow = sum(hold for hold in self.holds if hold >= SLOW_SECONDS)
        return slow / sum(self.holds) if slow else 0.0

    @property
    def starved_share(self) -> float:
        return self.starved / self.wall if self.wall else 0.0


@dataclass(frozen=True)
class Verdict:
    """Whether the figures are the client's rather than the server's, and the figure that says so."""

    is_bottleneck: bool
    reason: str


def judge(load: ClientLoad) -> Verdict:
    """What the figures of a run are worth."""
    lag = percentile(load.lags, 95) or 0.0
    wait = percentile(load.waits, 95) or 0.0
    used = f"it used {load.cpu_share:.0%} of a core"
    if load.cpu_share >= BUSY_SHARE:
        return Verdict(True, f"{used} while posting, and can use no second one")
    if load.cpu_share + load.starved_share >= BUSY_SHARE:
        starved = f"and waited for a free one {load.starved_share:.0%} of the time"
        return Verdict(True, f"{used} while posting, {starved}: this machine is busy")
    if lag >= LATE_SECONDS:
        return Verdict(True, f"its event loop was {lag * 1000:.0f} ms late (p95), though {used}: this machine is busy")
    late = f"posts waited {wait * 1000:.0f} ms (p95) for a free connection"
    if wait >= LATE_SECONDS and load.slow_share < 0.5:
        held = f"although answers took {(percentile(load.holds, 50) or 0) * 1000:.0f} ms (p50)"
        return Verdict(True, f"{late}, {held}: give it more --connections")
    if wait >= LATE_SECONDS:
        return Verdict(False, f"{used}; {late}, because answers were slow or missing")
    return Verdict(False, f"{used} while posting, and its event loop was {lag * 1000:.0f} ms late (p95)")


class Meter:
    """Measures this process from `start` to `stop`."""

    def __init__(self) -> None:
        self.load = ClientLoad()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time(), starved_seconds()
        self._task = asyncio.create_task(self._look())

    def posted(self, wait: float, hold: float) -> None:
        """A post was answered or given up: how long it waited for a connection, and had it, in seconds."""
        self.load.waits.append(wait)
        self.load.holds.append(hold)

    def stop(self) -> None:
        if self._task is not None and not self._task.done():
            now = time.perf_counter(), time.process_time(), starved_seconds()
            self.load.wall, self.load.cpu, self.load.starved = (
                after - before for after, before in zip(now, self._began, strict=True)
            )
            self._task.cancel()

    async def _look(self) -> None:
        while True:
            until = time.perf_counter() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self.load.lags.append(max(0.0, time.perf_counter() - until))


def starved_seconds() -> float:
    """How long this thread was ready to run and did not (Linux, `run_delay` of proc(5)); 0 where nothing says so."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
