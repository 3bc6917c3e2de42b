"""The HPA's half: from one to many and back. Pure; the clock is the caller's.

After kubernetes v1.35, `pkg/controller/podautoscaler/horizontal.go` (`reconcileAutoscaler` and what it calls) and
`replica_calculator.go` (`GetExternalPerPodMetricReplicas`), for the external metrics with an AverageValue that KEDA
makes of its triggers (`controllers/keda/hpa.go`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from tests.scaling.keda import Readings
from tests.scaling.scaled_object import DOWNSCALE_STABILIZATION_SECONDS, Behavior, Rules, ScaledObject

#: Seconds between two syncs: kube-controller-manager's `--horizontal-pod-autoscaler-sync-period`.
SYNC_SECONDS = 15.0

#: By how much a metric may be off its target without any change: `--horizontal-pod-autoscaler-tolerance`.
TOLERANCE = 0.1

#: Without `behavior`: at most twice as many pods at a sync, or this many (`scaleUpLimitFactor`, `…Minimum`).
UP_FACTOR, UP_LEAST = 2.0, 4.0

#: (when, how much): a recommendation, or by how many replicas the target was changed.
Event = tuple[float, int]


class Hpa:
    """What the HPA controller remembers of one HPA between two syncs. Times are seconds of the caller's clock.
    `speed` divides those of its times that are not in the ScaledObject."""

    def __init__(self, scaled: ScaledObject, speed: float = 1.0) -> None:
        self._scaled = scaled
        self._downscale_window = DOWNSCALE_STABILIZATION_SECONDS / speed
        self._recommendations: list[Event] = []
        self._ups: list[Event] = []
        self._downs: list[Event] = []

    def sync(self, now: float, replicas: int, created: int, readings: Readings) -> int:
        """How many replicas the target should have. It wants `replicas` now, and has `created` pods that are not being
        deleted (`status.replicas`)."""
        if not self._recommendations:
            self._recommendations.append((now, replicas))
        desired = self._desired(now, replicas, created, readings)
        if desired > replicas:
            self._ups.append((now, desired - replicas))
        elif desired < replicas:
            self._downs.append((now, replicas - desired))
        return desired

    def _desired(self, now: float, replicas: int, created: int, readings: Readings) -> int:
        least, most = self._scaled.hpa_min_replicas, self._scaled.max_replicas
        if replicas == 0:
            return 0  # "ScalingDisabled": it does not act on a target that is at zero
        if replicas > most:
            return most
        if replicas < least:
            return least
        proposal = self._proposal(replicas, created, readings)
        if proposal is None:
            return replicas
        behavior = self._scaled.behavior
        if behavior is None:
            stable = stabilize_down(self._recommendations, now, proposal, self._downscale_window)
            desired = limit(replicas, stable, least, most)
        else:
            stable = stabilize(self._recommendations, now, replicas, proposal, behavior)
            desired = limit_rate(now, replicas, stable, (least, most), behavior, self._ups, self._downs)
        # What is kept is what the metrics said, before it was stabilized.
        self._recommendations.append((now, proposal))
        return desired

    def _proposal(self, replicas: int, created: int, readings: Readings) -> int | None:
        """The most that any metric asks for. None where a metric has failed and the others ask for less than there is
        (`computeReplicasForMetrics`), and where all have."""
        if readings is None:
            return None
        pairs = zip(self._scaled.triggers, readings, strict=True)
        asked = [replicas_for(metric, trigger.value, created) for trigger, metric in pairs if metric is not None]
        if not asked or (len(asked) < len(readings) and max(asked) < replicas):
            return None
        return max(asked)


def replicas_for(metric: float, target: float, created: int, tolerance: float = TOLERANCE) -> int:
    """The pods that bring `metric` down to `target` for each; `created` when it is near enough to that already
    (`GetExternalPerPodMetricReplicas`)."""
    if created > 0 and 1 - tolerance <= metric / (target * created) <= 1 + tolerance:
        return created
    return math.ceil(metric / target)


def stabilize_down(recommendations: list[Event], now: float, proposal: int, window: float) -> int:
    """Without `behavior`: the highest recommendation of the window (`stabilizeRecommendation`)."""
    return max([proposal, *(count for when, count in recommendations if when >= now - window)])


def stabilize(recommendations: list[Event], now: float, replicas: int, proposal: int, behavior: Behavior) -> int:
    """With `behavior`: no more than the lowest of the window upwards, no less than the highest of the window downwards
    (`stabilizeRecommendationWithBehaviors`)."""
    up = min([proposal, *(count for when, count in recommendations if when > now - behavior.up.window)])
    down = max([proposal, *(count for when, count in recommendations if when > now - behavior.down.window)])
    return min(max(replicas, up), down)


def limit(replicas: int, desired: int, least: int, most: int) -> int:
    """Without `behavior` (`convertDesiredReplicasWithRules`)."""
    return max(least, min(desired, most, int(max(UP_FACTOR * replicas, UP_LEAST))))


def limit_rate(
    now: float,
    replicas: int,
    desired: int,
    bounds: tuple[int, int],
    behavior: Behavior,
    ups: list[Event],
    downs: list[Event],
) -> int:
    """With `behavior`: no faster than the policies allow (`convertDesiredReplicasWithBehaviorRate`). `bounds` are the
    least and the most replicas; `ups` and `downs` the changes so far."""
    least, most = bounds
    if desired > replicas:
        return min(desired, most, max(replicas, up_limit(now, replicas, behavior.up, ups, downs)))
    if desired < replicas:
        return max(desired, least, min(replicas, down_limit(now, replicas, behavior.down, ups, downs)))
    return desired


def up_limit(now: float, replicas: int, rules: Rules, ups: list[Event], downs: list[Event]) -> int:
    """`calculateScaleUpLimitWithScalingRules`: percents are rounded up, or one pod would stay alone for ever."""
    if rules.select == "Disabled":
        return replicas
    choose: Callable[[Iterable[int]], int] = min if rules.select == "Min" else max
    return choose(
        start + policy.value if policy.type == "Pods" else math.ceil(start * (1 + policy.value / 100))
        for policy in rules.policies
        for start in [_at_start(now, replicas, policy.period, ups, downs)]
    )


def down_limit(now: float, replicas: int, rules: Rules, ups: list[Event], downs: list[Event]) -> int:
    """`calculateScaleDownLimitWithBehaviors`: here `Max`, the largest change, is the lowest count."""
    if rules.select == "Disabled":
        return replicas
    choose: Callable[[Iterable[int]], int] = max if rules.select == "Min" else min
    return choose(
        start - policy.value if policy.type == "Pods" else int(start * (1 - policy.value / 100))
        for policy in rules.policies
        for start in [_at_start(now, replicas, policy.period, ups, downs)]
    )


def _at_start(now: float, replicas: int, period: float, ups: list[Event], downs: list[Event]) -> int:
    """How many replicas there were when this period began."""
    added = sum(count for when, count in ups if when > now - period)
    removed = sum(count for when, count in downs if when > now - period)
    return replicas - added + removed
