"""The cases of kubernetes v1.35, `pkg/controller/podautoscaler/horizontal_test.go` and `replica_calculator_test.go`,
and of the examples at kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.scaling.examples import scaled_object
from tests.scaling.hpa import (
    Event,
    Hpa,
    down_limit,
    limit,
    limit_rate,
    replicas_for,
    stabilize,
    stabilize_down,
    up_limit,
)
from tests.scaling.scaled_object import DOWN_RULES, UP_RULES, Behavior, Policy, Rules

#: What the cases below call now; a case names its past in seconds before it.
NOW = 10_000.0


def rules(pods: int = 0, pods_period: int = 0, percent: int = 0, percent_period: int = 0, window: int = 0) -> Rules:
    """`generateScalingRules`."""
    policies = [Policy("Pods", pods, pods_period)] if pods else []
    policies += [Policy("Percent", percent, percent_period)] if percent else []
    return Rules(window, "Max", tuple(policies))


def spread(*counts: int) -> list[Event]:
    """`generateEventsUniformDistribution`: each in the middle of its share of the last 120 seconds."""
    share = 120 / len(counts)
    return [(NOW - int(120 - share * (index + 1) + share / 2), count) for index, count in enumerate(counts)]


@pytest.mark.parametrize(
    ("created", "metric", "target", "wanted"),
    [
        (3, 8.6, 2.15, 4),  # TestReplicaCalcScaleUpPerPodCMExternal
        (5, 8.6, 2.867, 3),  # TestReplicaCalcScaleDownPerPodCMExternal
        (3, 8.6, 2.9, 3),  # TestReplicaCalcTolerancePerPodCMExternal
        (3, 8.6, 2.222, 4),  # TestScaleUpPerPodCMExternal
        (10, 110, 10, 10),  # at the tolerance
        (10, 111, 10, 12),  # above it
        (10, 89, 10, 9),
        (0, 25, 10, 3),  # wanted, but not created yet
        (0, 0, 10, 0),
    ],
)
def test_the_metric_is_divided_among_the_pods(created: int, metric: float, target: float, wanted: int) -> None:
    assert replicas_for(metric, target, created) == wanted


# TestScalingWithRules: current, desired, (least, most), up, down, ups, downs, expected
RATES: list[tuple[int, int, tuple[int, int], Rules | None, Rules | None, list[Event], list[Event], int]] = [
    (5, 7, (3, 8), None, None, [], [], 7),
    (3, 1, (2, 8), None, None, [], [], 2),
    (1, 0, (0, 10), None, None, [], [], 0),
    (100, 1000, (100, 150), None, None, [], [], 150),
    (3, 1000, (1, 2000), rules(percent=1, percent_period=60), None, [], [], 4),
    (1000, 3, (3, 2000), None, rules(20, 60), [], [], 980),
    (10, 50, (1, 1000), None, None, [], [], 20),
    (10, 500, (1, 1000), rules(100, 60, 100, 60), None, [], [], 110),
    (10, 500, (1, 1000), rules(2, 60, 100, 60), None, [], [], 20),
    (10, 50, (1, 1000), rules(100, 60), None, [], [], 50),
    (10, 50, (1, 1000), rules(30, 60), None, [], [], 40),
    (10, 50, (1, 1000), rules(percent=200, percent_period=60), None, [], [], 30),
    (100, 2, (1, 1000), None, rules(20, 60, 1, 60, 300), [], [], 80),
    (100, 2, (1, 1000), None, rules(2, 60, 1, 60, 300), [], [], 98),
    (10, 0, (1, 1000), None, rules(100, 60, window=300), [], [], 1),
    (10, 2, (5, 1000), None, rules(percent=100, percent_period=60, window=300), [], [], 5),
    (10, 2, (1, 1000), None, rules(5, 60, window=300), [], [], 5),
    (10, 5, (1, 1000), None, rules(percent=50, percent_period=60, window=300), [], [], 5),
    (100, 500, (1, 200), rules(300, 60), None, spread(1, 5, 9), [], 200),
    (100, 500, (1, 1000), rules(5, 120), None, spread(1, 5, 9), [], 100),
    (100, 500, (1, 1000), rules(150, 120), None, spread(1, 5, 9), [], 235),
    (100, 500, (1, 1000), rules(percent=200, percent_period=120), None, spread(1, 5, 9), [], 255),
    (6, 24, (1, 1000), rules(percent=300, percent_period=300), None, spread(4), spread(2), 16),
    (10, 5, (1, 1000), None, None, [], spread(1, 5, 9), 5),
    (100, 0, (1, 1000), None, rules(115, 120, window=300), [], spread(1, 5, 9), 1),
    (100, 2, (1, 1000), None, rules(5, 120, window=300), [], spread(1, 5, 9), 100),
    (100, 0, (1, 1000), None, rules(percent=50, percent_period=120, window=300), [], spread(2, 4, 6), 56),
    (10, 1, (1, 1000), None, rules(percent=50, percent_period=180), spread(2), spread(4), 6),
    (100, 0, (1, 1000), None, rules(percent=10, percent_period=120, window=300), [], spread(10, 10, 10), 100),
    (10, 5, (1, 1000), None, rules(percent=1000, percent_period=120, window=300), [], spread(10, 10, 10), 5),
]


@pytest.mark.parametrize(("replicas", "desired", "bounds", "up", "down", "ups", "downs", "expected"), RATES)
def test_no_faster_than_the_policies_allow(
    replicas: int,
    desired: int,
    bounds: tuple[int, int],
    up: Rules | None,
    down: Rules | None,
    ups: list[Event],
    downs: list[Event],
    expected: int,
) -> None:
    behavior = Behavior(up or UP_RULES, down or DOWN_RULES)
    assert limit_rate(NOW, replicas, desired, bounds, behavior, ups, downs) == expected


def test_the_smallest_change_can_be_chosen_and_none() -> None:
    # TestCalculateScaleUpLimitWithScalingRules, TestCalculateScaleDownLimitWithBehaviors
    slow = replace(rules(2, 60, 50, 60, 300), select="Min")
    assert up_limit(NOW, 1, slow, [], []) == 2
    assert down_limit(NOW, 5, slow, [], []) == 3
    never = replace(slow, select="Disabled")
    assert up_limit(NOW, 7, never, [], []) == 7
    assert down_limit(NOW, 7, never, [], []) == 7


def test_a_quick_way_down_in_two_steps_of_the_documentation() -> None:
    """80 replicas, 10 percent or 4 pods a minute, the larger: 10 percent of 72 is 7.2, and 8 go."""
    behavior = Behavior(UP_RULES, rules(4, 60, 10, 60))
    replicas, gone, downs = 80, [], []
    for minute in range(1, 4):
        now = NOW + 61 * minute
        left = limit_rate(now, replicas, 10, (1, 100), behavior, [], downs)
        downs.append((now, replicas - left))
        gone.append(replicas - left)
        replicas = left
    assert gone == [8, 8, 7]


@pytest.mark.parametrize(
    ("past", "replicas", "proposal", "up", "down", "expected"),
    [
        # TestNormalizeDesiredReplicasWithBehavior
        ([], 100, 5, 0, 0, 5),
        ([(120, 4), (60, 5)], 100, 3, 0, 180, 5),
        ([(120, 4), (60, 5)], 1, 7, 300, 0, 4),
        ([(120, 1), (60, 2)], 100, 3, 300, 0, 3),
        ([(120, 4), (60, 5)], 1, 3, 0, 300, 3),
        ([(600, 10), (540, 9)], 100, 3, 0, 0, 3),
        ([(600, 10), (540, 9)], 1, 100, 0, 0, 100),
        ([(600, 10), (60, 4), (120, 5), (540, 9)], 100, 3, 0, 180, 5),
        ([(6000, 10), (60, 6), (120, 5), (180, 9)], 1, 100, 300, 0, 5),
        ([(6000, 2), (180, 3)], 2, 1, 300, 300, 2),
        ([(6000, 2), (180, 1)], 2, 3, 300, 300, 2),
    ],
)
def test_the_past_of_the_window_steadies_the_present(
    past: list[Event], replicas: int, proposal: int, up: int, down: int, expected: int
) -> None:
    behavior = Behavior(replace(UP_RULES, window=up), replace(DOWN_RULES, window=down))
    recommendations = [(NOW - ago, count) for ago, count in past]
    assert stabilize(recommendations, NOW, replicas, proposal, behavior) == expected


@pytest.mark.parametrize(
    ("past", "expected"),
    [  # TestNormalizeDesiredReplicas, with 3 proposed
        ([], 3),
        ([(120, 4), (60, 5)], 5),
        ([(120, 1), (60, 2)], 3),
        ([(600, 10), (540, 9)], 3),
        ([(600, 10), (60, 4), (120, 5), (540, 9)], 5),
    ],
)
def test_without_a_behavior_the_highest_of_five_minutes_holds(past: list[Event], expected: int) -> None:
    assert stabilize_down([(NOW - ago, count) for ago, count in past], NOW, 3, 300) == expected


def test_without_a_behavior_pods_are_doubled_at_most_or_four() -> None:
    # TestConvertDesiredReplicasWithRules
    assert limit(10, 50, 1, 100) == 20
    assert limit(1, 50, 1, 100) == 4
    assert limit(15, 50, 1, 20) == 20
    assert limit(3, 0, 2, 20) == 2


def hpa(*protocols: str, **more: Any) -> Hpa:
    return Hpa(scaled_object(*protocols or ("amqp",), **more))


def test_it_leaves_a_target_at_zero_alone() -> None:
    assert hpa().sync(NOW, 0, 0, None) == 0


def test_it_never_goes_to_zero_by_itself() -> None:
    scaler = hpa(behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})
    assert scaler.sync(NOW, 1, 1, [0]) == 1


def test_the_greatest_of_several_metrics_counts() -> None:
    assert hpa("amqp", "http", behavior={}).sync(NOW, 1, 1, [5, 38]) == 4


def test_a_metric_that_fails_stops_the_way_down_but_not_up() -> None:
    assert hpa("amqp", "http", behavior={}).sync(NOW, 3, 3, [None, 10]) == 3
    assert hpa("amqp", "http", behavior={}).sync(NOW, 3, 3, [None, 50]) == 5
    assert hpa("amqp", "http", behavior={}).sync(NOW, 3, 3, [None, None]) == 3
    assert hpa("amqp", "http", behavior={}).sync(NOW, 3, 3, None) == 3


def test_more_than_the_maximum_is_taken_back_at_once() -> None:
    assert hpa(maxReplicaCount=5).sync(NOW, 9, 9, [1000]) == 5


def test_by_default_one_becomes_five_within_one_sync() -> None:
    scaler = hpa(behavior={})
    assert scaler.sync(NOW, 1, 1, [500]) == 5
    assert scaler.sync(NOW + 15, 5, 5, [500]) == 10
    assert scaler.sync(NOW + 30, 10, 10, [500]) == 20


def test_an_empty_queue_takes_the_pods_away_only_after_the_window() -> None:
    scaler = hpa(behavior={"scaleDown": {"stabilizationWindowSeconds": 60}})
    assert scaler.sync(NOW, 5, 5, [50]) == 5
    assert [scaler.sync(NOW + 15 * turn, 5, 5, [0]) for turn in (1, 2, 3)] == [5, 5, 5]
    assert scaler.sync(NOW + 61, 5, 5, [0]) == 1
