"""KEDA's loop and the HPA's, each at its own pace, over one Deployment. Pure; the clock is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.scaling.hpa import SYNC_SECONDS, Hpa
from tests.scaling.keda import Keda, Readings
from tests.scaling.scaled_object import ScaledObject


class Deployment(Protocol):
    @property
    def replicas(self) -> int:
        """How many it should have: `spec.replicas`."""

    @property
    def created(self) -> int:
        """How many pods there are that are not being deleted: `status.replicas`."""

    def scale(self, replicas: int) -> None: ...


@dataclass(frozen=True)
class Decision:
    """At `at`, `who` (KEDA or HPA) saw these readings and wanted `after` instead of `before`."""

    at: float
    who: str
    readings: Readings
    before: int
    after: int


class Autoscaler:
    """`read` asks all triggers; KEDA does at each poll, the HPA at each sync, always anew (`GetScaledObjectMetrics`,
    as long as no trigger has `useCachedMetrics`). `speed` divides the HPA's own times. The first poll is at `now`, the
    first sync `hpa_after` seconds later (a whole period, when it is not said)."""

    def __init__(
        self,
        scaled: ScaledObject,
        deployment: Deployment,
        read: Callable[[], Readings],
        now: float,
        *,
        speed: float = 1.0,
        hpa_after: float | None = None,
    ) -> None:
        self._keda = Keda(scaled, now)
        self._hpa = Hpa(scaled, speed)
        self._scaled = scaled
        self._deployment = deployment
        self._read = read
        self._sync = SYNC_SECONDS / speed
        self._poll_at = now
        self._sync_at = now + (self._sync if hpa_after is None else hpa_after)
        #: All decisions, also those for no change.
        self.decisions: list[Decision] = []

    @property
    def next_at(self) -> float:
        """When there is something to do again."""
        return min(self._poll_at, self._sync_at)

    def turn(self, now: float) -> None:
        """Do what is due."""
        deployment = self._deployment
        if now >= self._poll_at:
            self._poll_at = max(self._poll_at + self._scaled.polling, now)
            readings = self._read()
            self._decide(now, "KEDA", readings, self._keda.poll(now, deployment.replicas, readings))
        if now >= self._sync_at:
            self._sync_at = now + self._sync
            # One at zero is not asked about: the HPA does not act then.
            readings = self._read() if deployment.replicas else None
            self._decide(now, "HPA", readings, self._hpa.sync(now, deployment.replicas, deployment.created, readings))

    def _decide(self, now: float, who: str, readings: Readings, replicas: int) -> None:
        self.decisions.append(Decision(now, who, readings, self._deployment.replicas, replicas))
        if replicas != self._deployment.replicas:
            self._deployment.scale(replicas)
