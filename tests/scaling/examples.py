"""ScaledObjects to try the arithmetic on."""

from __future__ import annotations

from typing import Any

from tests.scaling.scaled_object import ScaledObject, parse


def document(*protocols: str, behavior: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A manifest with one trigger for each of these protocols, on the queue `tasks`, ten messages to an engine."""
    metadata = {"queueName": "tasks", "mode": "QueueLength", "value": "10"}
    triggers = [{"type": "rabbitmq", "metadata": {"protocol": protocol, **metadata}} for protocol in protocols]
    advanced = {"advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}}} if behavior is not None else {}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "engine", "namespace": "sluice"},
        "spec": {"scaleTargetRef": {"name": "engine"}, "triggers": triggers, **advanced, **spec},
    }


def scaled_object(*protocols: str, behavior: dict[str, Any] | None = None, **spec: Any) -> ScaledObject:
    return parse(document(*protocols, behavior=behavior, **spec))
