"""KEDA's half: from zero and to zero. Pure; the clock is the caller's.

After kedacore/keda v2.20.2, `pkg/scaling/executor/scale_scaledobjects.go` (`RequestScale`, `scaleToZeroOrIdle`,
`scaleFromZeroOrIdle`) and `pkg/scaling/scale_handler.go` (`checkScalers`, `getScaledObjectState`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.scaling.scaled_object import ScaledObject

#: What one look at the triggers gave: the metric of each, or None for one that answered with an error. None in place of
#: all of them: one could not be connected, and then KEDA builds none (`buildScalers`) and decides nothing.
Readings = Sequence[float | None] | None


class Keda:
    """What KEDA remembers of one ScaledObject between two polls. Times are seconds of the caller's clock."""

    def __init__(self, scaled: ScaledObject, created: float) -> None:
        self._scaled = scaled
        self._created = created
        self.last_active: float | None = None

    def poll(self, now: float, replicas: int, readings: Readings) -> int:
        """How many replicas the target should have, of which it has `replicas` now."""
        if readings is None:
            return replicas
        is_error = None in readings
        # Active is what is above its activation value, not at it (`GetMetricsAndActivity`); one trigger is enough.
        is_active = any(
            reading is not None and reading > trigger.activation
            for trigger, reading in zip(self._scaled.triggers, readings, strict=True)
        )
        idle, least = self._scaled.idle_replicas, self._scaled.min_replicas
        if is_active:
            if replicas == 0 or (idle is not None and replicas < least):
                self._note_activity(now)
                return max(1, least)
            if not is_error:
                self._note_activity(now)
            return replicas
        if is_error:  # there is no fallback here: neither up nor down
            return replicas
        if (idle is not None and replicas > idle) or (replicas > 0 and least == 0):
            return self._to_zero_or_idle(now, replicas)
        if idle is None and replicas < least:
            return least
        return replicas

    def _to_zero_or_idle(self, now: float, replicas: int) -> int:
        if self.last_active is None:
            is_cool = self._created + self._scaled.initial_cooldown < now
        else:
            is_cool = self.last_active + self._scaled.cooldown < now
        if not is_cool:
            return replicas
        return self._scaled.min_replicas if self._scaled.idle_replicas is None else self._scaled.idle_replicas

    def _note_activity(self, now: float) -> None:
        # It is kept in the object's status, where times have whole seconds.
        self.last_active = math.floor(now)
