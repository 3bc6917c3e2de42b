from __future__ import annotations

from typing import Any

import pytest

from tests.scaling.examples import document, scaled_object
from tests.scaling.scaled_object import DOWN_RULES, UP_RULES, NotModelled, Policy, parse


def test_what_is_not_said_is_what_keda_and_kubernetes_take() -> None:
    scaled = scaled_object("amqp")
    assert (scaled.polling, scaled.cooldown, scaled.initial_cooldown) == (30, 300, 0)
    assert (scaled.min_replicas, scaled.max_replicas, scaled.idle_replicas) == (0, 100, None)
    assert scaled.hpa_min_replicas == 1
    assert scaled.behavior is None
    (trigger,) = scaled.triggers
    assert (trigger.protocol, trigger.queue, trigger.value, trigger.activation) == ("amqp", "tasks", 10, 0)


def test_a_direction_of_which_nothing_is_said_has_the_rules_of_the_api_server() -> None:
    behavior = scaled_object("amqp", behavior={}).behavior
    assert behavior is not None
    assert behavior.up == UP_RULES
    assert behavior.down == DOWN_RULES
    behavior = scaled_object("amqp", behavior={"scaleDown": {"stabilizationWindowSeconds": 0}}).behavior
    assert behavior is not None
    assert behavior.up == UP_RULES
    assert behavior.down.window == 0
    assert behavior.down.policies == DOWN_RULES.policies


def test_all_its_times_are_divided_together() -> None:
    scaled = scaled_object("amqp", behavior={"scaleDown": {}}, pollingInterval=2, cooldownPeriod=60).faster(2)
    assert (scaled.polling, scaled.cooldown) == (1, 30)
    assert scaled.behavior is not None
    assert scaled.behavior.down.window == 150
    assert scaled.behavior.down.policies == (Policy("Percent", 100, 7.5),)


def change(path: str, value: Any) -> dict[str, Any]:
    """The example with one field set, which a dotted path names."""
    manifest = document("amqp", behavior={"scaleUp": {}})
    *way, last = path.split(".")
    at: Any = manifest
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    return manifest


BEHAVIOR = "spec.advanced.horizontalPodAutoscalerConfig.behavior"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.poolingInterval", 2, "poolingInterval"),
        ("spec.pollingInterval", 0, "pollingInterval"),
        ("spec.pollingInterval", 2.5, "pollingInterval"),
        ("spec.cooldownPeriod", "60", "cooldownPeriod"),
        ("spec.fallback", {"replicas": 1}, "fallback"),
        ("spec.minReplicaCount", 101, "minReplicaCount above maxReplicaCount"),
        ("spec.idleReplicaCount", 0, "idleReplicaCount must be below"),
        ("spec.scaleTargetRef.kind", "StatefulSet", "StatefulSet"),
        ("spec.triggers", [], "without triggers"),
        ("spec.triggers.0.type", "kafka", "type kafka"),
        ("spec.triggers.0.metricType", "Value", "metricType Value"),
        ("spec.triggers.0.useCachedMetrics", True, "useCachedMetrics"),
        ("spec.triggers.0.metadata.queueLength", "5", "queueLength"),
        ("spec.triggers.0.metadata.mode", "MessageRate", "mode MessageRate"),
        ("spec.triggers.0.metadata.protocol", "auto", "protocol auto"),
        ("spec.triggers.0.metadata.value", 10, "value must be a string"),
        ("spec.triggers.0.metadata.value", "0", "value 0"),
        ("spec.advanced.scalingModifiers", {"formula": "a"}, "scalingModifiers"),
        (f"{BEHAVIOR}.scaleUp.stabilizationWindow", 0, "stabilizationWindow"),
        (f"{BEHAVIOR}.scaleUp.selectPolicy", "Most", "selectPolicy Most"),
        (f"{BEHAVIOR}.scaleUp.policies", [{"type": "Share", "value": 1, "periodSeconds": 1}], "type Share"),
        (f"{BEHAVIOR}.scaleUp.policies", [{"type": "Pods", "value": 1, "period": 1}], "period"),
        ("metadata.annotations", {"autoscaling.keda.sh/paused": "true"}, "autoscaling.keda.sh/paused"),
    ],
)
def test_what_keda_would_refuse_and_what_is_not_modelled_is_refused(path: str, value: Any, said: str) -> None:
    with pytest.raises(NotModelled, match=said):
        parse(change(path, value))
