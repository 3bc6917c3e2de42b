"""A ScaledObject as KEDA and the HPA read it. What is not modelled here is refused, so that nothing in the file is
without effect.

The fields: kedacore/keda v2.20.2, `apis/keda/v1alpha1/scaledobject_types.go`, `scaletriggers_types.go`; a trigger's
metadata: `pkg/scalers/rabbitmq_scaler.go`; `behavior` and its defaults: kubernetes v1.35,
`pkg/apis/autoscaling/v2/defaults.go`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

#: Seconds, where the file does not say: KEDA's `defaultPollingInterval` and `defaultCooldownPeriod`.
POLLING_SECONDS, COOLDOWN_SECONDS = 30.0, 300.0

#: Replicas at most, where the file does not say: KEDA's `defaultHPAMaxReplicas`.
MAX_REPLICAS = 100

#: Seconds for which the HPA holds a scale-in back where nothing is said: kube-controller-manager's
#: `--horizontal-pod-autoscaler-downscale-stabilization`.
DOWNSCALE_STABILIZATION_SECONDS = 300.0


class NotModelled(ValueError):
    """The file says something that KEDA would refuse, or that this model does not know. The message names it."""


@dataclass(frozen=True)
class Policy:
    """At most so many pods, or percent of the pods, in so many seconds."""

    type: str
    value: int
    period: float


@dataclass(frozen=True)
class Rules:
    """How the HPA may scale in one direction. `select` is Max, Min or Disabled; `window` is in seconds."""

    window: float
    select: str
    policies: tuple[Policy, ...]


@dataclass(frozen=True)
class Behavior:
    up: Rules
    down: Rules


#: What the API server fills in for a direction of which nothing is said, once `behavior` is there.
UP_RULES = Rules(0.0, "Max", (Policy("Pods", 4, 15.0), Policy("Percent", 100, 15.0)))
DOWN_RULES = Rules(DOWNSCALE_STABILIZATION_SECONDS, "Max", (Policy("Percent", 100, 15.0),))


@dataclass(frozen=True)
class Trigger:
    """One rabbitmq trigger. `protocol` is amqp (ready messages, asked of the queue itself) or http (ready and
    unacknowledged, as the management API last counted them)."""

    protocol: str
    queue: str
    value: float
    activation: float
    name: str


@dataclass(frozen=True)
class ScaledObject:
    """Times are in seconds. `max_replicas` is of pods; `behavior` None means that the HPA's oldest rules hold."""

    name: str
    target: str
    polling: float
    cooldown: float
    initial_cooldown: float
    idle_replicas: int | None
    min_replicas: int
    max_replicas: int
    behavior: Behavior | None
    triggers: tuple[Trigger, ...]

    @property
    def hpa_min_replicas(self) -> int:
        """KEDA's HPA never has less than one (`GetHPAMinReplicas`): from and to zero is KEDA's own business."""
        return max(1, self.min_replicas)

    def faster(self, factor: float) -> ScaledObject:
        """The same object with every time divided by `factor`."""

        def rules(given: Rules) -> Rules:
            policies = tuple(replace(policy, period=policy.period / factor) for policy in given.policies)
            return replace(given, window=given.window / factor, policies=policies)

        return replace(
            self,
            polling=self.polling / factor,
            cooldown=self.cooldown / factor,
            initial_cooldown=self.initial_cooldown / factor,
            behavior=self.behavior and Behavior(rules(self.behavior.up), rules(self.behavior.down)),
        )


def read_scaled_object(path: Path) -> ScaledObject:
    """The one ScaledObject in a YAML file. Raises NotModelled."""
    found = [document for document in yaml.safe_load_all(path.read_text()) if document["kind"] == "ScaledObject"]
    if len(found) != 1:
        raise NotModelled(f"{path} holds {len(found)} ScaledObjects")
    return parse(found[0])


def parse(document: Mapping[str, Any]) -> ScaledObject:
    """The ScaledObject of a manifest. Raises NotModelled."""
    _only(document, "the object", "apiVersion", "kind", "metadata", "spec")
    metadata, spec = document["metadata"], document["spec"]
    for name in metadata.get("annotations", {}):
        if name.startswith("autoscaling.keda.sh/"):
            raise NotModelled(f"the annotation {name}")
    _only(
        spec,
        "spec",
        *("scaleTargetRef", "pollingInterval", "cooldownPeriod", "initialCooldownPeriod", "idleReplicaCount"),
        *("minReplicaCount", "maxReplicaCount", "advanced", "triggers"),
    )
    target = spec["scaleTargetRef"]
    _only(target, "scaleTargetRef", "name", "kind", "apiVersion", "envSourceContainerName")
    if target.get("kind", "Deployment") != "Deployment":
        raise NotModelled(f"a scale target of kind {target['kind']}")
    scaled = ScaledObject(
        name=metadata["name"],
        target=target["name"],
        polling=_whole(spec, "pollingInterval", POLLING_SECONDS, at_least=1),
        cooldown=_whole(spec, "cooldownPeriod", COOLDOWN_SECONDS),
        initial_cooldown=_whole(spec, "initialCooldownPeriod", 0),
        idle_replicas=int(_whole(spec, "idleReplicaCount", 0)) if "idleReplicaCount" in spec else None,
        min_replicas=int(_whole(spec, "minReplicaCount", 0)),
        max_replicas=int(_whole(spec, "maxReplicaCount", MAX_REPLICAS, at_least=1)),
        behavior=_behavior(spec.get("advanced", {})),
        triggers=tuple(_trigger(index, trigger) for index, trigger in enumerate(spec["triggers"])),
    )
    if scaled.min_replicas > scaled.max_replicas:
        raise NotModelled("minReplicaCount above maxReplicaCount")
    if scaled.idle_replicas is not None and scaled.idle_replicas >= scaled.min_replicas:
        raise NotModelled("idleReplicaCount must be below minReplicaCount")
    if not scaled.triggers:
        raise NotModelled("a ScaledObject without triggers")
    return scaled


def _trigger(index: int, given: Mapping[str, Any]) -> Trigger:
    where = f"trigger {index}"
    _only(given, where, "type", "name", "metadata", "authenticationRef", "metricType")
    if given["type"] != "rabbitmq":
        raise NotModelled(f"{where}: type {given['type']}")
    if given.get("metricType", "AverageValue") != "AverageValue":
        raise NotModelled(f"{where}: metricType {given['metricType']}")
    metadata = given["metadata"]
    # Of these, `hostFromEnv` and `vhostName` say only where the broker is.
    _only(
        metadata,
        f"{where}: metadata",
        *("protocol", "queueName", "mode", "value", "activationValue", "vhostName", "hostFromEnv"),
    )
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise NotModelled(f"{where}: {name} must be a string, not {value!r}")
    if metadata.get("mode") != "QueueLength":
        raise NotModelled(f"{where}: mode {metadata.get('mode')}")
    if metadata.get("protocol") not in ("amqp", "http"):
        raise NotModelled(f"{where}: protocol {metadata.get('protocol')}")
    value = float(metadata["value"])
    if value <= 0:
        raise NotModelled(f"{where}: value {value:g}")
    name = given.get("name", f"s{index}-rabbitmq-{metadata['queueName']}")
    return Trigger(
        metadata["protocol"], metadata["queueName"], value, float(metadata.get("activationValue", "0")), name
    )


def _behavior(advanced: Mapping[str, Any]) -> Behavior | None:
    _only(advanced, "advanced", "horizontalPodAutoscalerConfig", "restoreToOriginalReplicaCount")
    config = advanced.get("horizontalPodAutoscalerConfig", {})
    _only(config, "horizontalPodAutoscalerConfig", "name", "behavior")
    if "behavior" not in config:
        return None
    _only(config["behavior"], "behavior", "scaleUp", "scaleDown")
    return Behavior(
        _rules(config["behavior"].get("scaleUp", {}), "scaleUp", UP_RULES),
        _rules(config["behavior"].get("scaleDown", {}), "scaleDown", DOWN_RULES),
    )


def _rules(given: Mapping[str, Any], where: str, default: Rules) -> Rules:
    _only(given, where, "stabilizationWindowSeconds", "selectPolicy", "policies")
    select = given.get("selectPolicy", default.select)
    if select not in ("Max", "Min", "Disabled"):
        raise NotModelled(f"{where}: selectPolicy {select}")
    policies = default.policies
    if "policies" in given:
        policies = tuple(_policy(policy, where) for policy in given["policies"])
    return Rules(_whole(given, "stabilizationWindowSeconds", default.window), select, policies)


def _policy(given: Mapping[str, Any], where: str) -> Policy:
    _only(given, f"a policy of {where}", "type", "value", "periodSeconds")
    if given["type"] not in ("Pods", "Percent"):
        raise NotModelled(f"{where}: a policy of type {given['type']}")
    return Policy(
        given["type"], int(_whole(given, "value", 0, at_least=1)), _whole(given, "periodSeconds", 0, at_least=1)
    )


def _only(given: Mapping[str, Any], where: str, *known: str) -> None:
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise NotModelled(f"{where}: {', '.join(unknown)}")


def _whole(given: Mapping[str, Any], name: str, default: float, at_least: int = 0) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or (not isinstance(value, int) and value is not default) or value < at_least:
        raise NotModelled(f"{name}: {value!r}")
    return float(value)
