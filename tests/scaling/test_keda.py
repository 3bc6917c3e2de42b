"""The cases of kedacore/keda v2.20.2, `pkg/scaling/executor/scale_scaledobjects_test.go`, and what its code says."""

from __future__ import annotations

import pytest

from tests.scaling.examples import document, scaled_object
from tests.scaling.keda import Keda
from tests.scaling.scaled_object import parse


def keda(*protocols: str, **spec: int) -> Keda:
    return Keda(scaled_object(*protocols or ("amqp",), **spec), created=1000)


def test_one_message_wakes_the_target_at_once() -> None:
    assert keda().poll(1001, 0, [1]) == 1


def test_an_empty_queue_wakes_nothing() -> None:
    assert keda().poll(1001, 0, [0]) == 0


def test_the_target_wakes_to_its_minimum() -> None:
    assert keda(minReplicaCount=5).poll(1001, 0, [1]) == 5
    assert keda(minReplicaCount=5).poll(1001, 2, [1]) == 2, "the HPA's business"
    assert keda(minReplicaCount=5).poll(1001, 2, [0]) == 5


def test_idle_replicas_come_before_the_minimum() -> None:
    # TestScaleToIdleReplicasWhenNotActive, TestScaleFromIdleToMinReplicasWhenActive
    assert keda(minReplicaCount=5, idleReplicaCount=1).poll(1001, 6, [0]) == 1
    assert keda(minReplicaCount=5, idleReplicaCount=1).poll(1001, 1, [1]) == 5


def test_active_is_above_the_activation_value_not_at_it() -> None:
    manifest = document("amqp")
    manifest["spec"]["triggers"][0]["metadata"]["activationValue"] = "3"
    assert Keda(parse(manifest), 0).poll(1, 0, [3]) == 0
    assert Keda(parse(manifest), 0).poll(1, 0, [4]) == 1


def test_one_active_trigger_is_enough() -> None:
    assert keda("amqp", "http").poll(1001, 0, [0, 1]) == 1


def test_it_goes_to_zero_when_the_cooldown_is_over_since_the_last_activity() -> None:
    scaler = keda(cooldownPeriod=60)
    scaler.poll(1010, 0, [1])
    assert scaler.poll(1020, 3, [1]) == 3
    assert scaler.poll(1080, 3, [0]) == 3, "not before it is over"
    assert scaler.poll(1082, 3, [0]) == 0


def test_only_seconds_are_kept_of_the_last_activity() -> None:
    scaler = keda(cooldownPeriod=60)
    scaler.poll(1010.9, 1, [1])
    assert scaler.poll(1070.5, 1, [0]) == 0


def test_what_was_never_active_has_the_initial_cooldown_only() -> None:
    assert keda().poll(1000.1, 2, [0]) == 0
    scaler = keda(initialCooldownPeriod=30)
    assert scaler.poll(1030, 2, [0]) == 2
    assert scaler.poll(1031, 2, [0]) == 0


def test_with_a_minimum_it_never_goes_to_zero() -> None:
    assert keda(minReplicaCount=1).poll(9999, 4, [0]) == 4


def test_a_trigger_error_freezes_the_way_down() -> None:
    scaler = keda("amqp", "http", cooldownPeriod=60)
    scaler.poll(1001, 1, [1, 1])
    assert scaler.poll(2000, 4, [0, None]) == 4
    assert scaler.poll(2000, 4, [None, None]) == 4
    assert scaler.poll(2000, 4, [0, 0]) == 0


def test_the_other_trigger_still_wakes_but_its_activity_is_not_noted() -> None:
    scaler = keda("amqp", "http", cooldownPeriod=60)
    assert scaler.poll(1001, 0, [None, 1]) == 1
    assert scaler.last_active == 1001, "waking is noted"
    scaler.poll(1500, 1, [None, 1])
    assert scaler.last_active == 1001


@pytest.mark.parametrize("replicas", [0, 3])
def test_triggers_that_cannot_be_connected_decide_nothing(replicas: int) -> None:
    assert keda("amqp", "http").poll(9999, replicas, None) == replicas
