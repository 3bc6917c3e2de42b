"""What KEDA is told agrees with the code. What it understands: https://keda.sh/docs/2.20/scalers/rabbitmq-queue/"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sluice.broker import Topology
from tests.manifests.fetch_schemas import SCHEMAS
from tests.manifests.rules import rule
from tests.manifests.system import System

#: A shorter cooldown stops engines at a gap in the counts: after a restart of RabbitMQ they read as 0 for up to 10 s.
MIN_COOLDOWN_SECONDS = 30

#: What KEDA still takes, and its documentation says not to use.
DEPRECATED = {"queueLength"}

NUMBERS = {"value", "activationValue", "queueLength", "pageSize", "timeout"}
WORDS = {
    "protocol": {"amqp", "http"},
    "mode": {"QueueLength"},
    "excludeUnacknowledged": {"true", "false"},
    "useRegex": {"true", "false"},
    "unsafeSsl": {"false"},
}


def topology_of(system: System) -> Topology:
    settings = system.settings("engine")
    return Topology(settings.task_queue, settings.task_ttl_seconds)


@rule
def keda_scales_a_deployment_that_is_there(system: System) -> Iterator[str]:
    if system.named("ScaledObject", "engine") is None:
        yield "KEDA does not scale the engine"
    for found in system.of("ScaledObject"):
        name, reference = found["metadata"]["name"], found["spec"]["scaleTargetRef"]
        if (reference.get("apiVersion", "apps/v1"), reference.get("kind", "Deployment")) != ("apps/v1", "Deployment"):
            yield f"ScaledObject/{name} scales no Deployment"
        if reference["name"] != name or system.named("Deployment", name) is None:
            yield f"ScaledObject/{name} scales {reference['name']}"
        for trigger in found["spec"]["triggers"]:
            if trigger["type"] != {"engine": "rabbitmq"}.get(name, "external-push"):
                yield f"ScaledObject/{name} has a trigger of the type {trigger['type']}"


@rule
def every_way_through_the_interceptor_scales_what_it_leads_to(system: System) -> Iterator[str]:
    """Where KEDA's HTTP add-on is used: https://kedacore.github.io/http-add-on/"""
    for route in system.of("InterceptorRoute"):
        name, target = route["metadata"]["name"], route["spec"]["target"]
        service = system.named("Service", target["service"])
        if service is None or target.get("portName") not in {port.get("name") for port in service["spec"]["ports"]}:
            yield f"InterceptorRoute/{name} leads to {target}, which is not there"
        if system.named("ScaledObject", name) is None:
            yield f"InterceptorRoute/{name} wakes nobody"
    ways = {route["metadata"]["name"]: route["spec"]["target"]["service"] for route in system.of("InterceptorRoute")}
    for found in system.of("ScaledObject"):
        for trigger in found["spec"]["triggers"]:
            given, name = trigger["metadata"], found["metadata"]["name"]
            if trigger["type"] != "external-push":
                continue
            if given.keys() != {"scalerAddress", "interceptorRoute"} or ways.get(given["interceptorRoute"]) != name:
                yield f"ScaledObject/{name} is woken by {given.get('interceptorRoute')}"


@rule
def every_trigger_is_one_that_keda_understands(system: System) -> Iterator[str]:
    known = {
        parameter["name"]
        for parameter in json.loads((SCHEMAS / "rabbitmq-scaler.json").read_text())["parameters"]
        if parameter.get("metadataVariableReadable")
    }
    for found, trigger in triggers(system):
        name = f"ScaledObject/{found['metadata']['name']}: the trigger {trigger.get('name')}"
        for key, value in trigger["metadata"].items():
            if key not in known:
                yield f"{name} says {key}, which the scaler does not know"
            if key in DEPRECATED or key in ("host", "username", "password"):
                yield f"{name} says {key}, which does not belong here"
            if key in NUMBERS and not _is_number(value):
                yield f"{name}: {key} is no number"
            elif value not in WORDS.get(key, {value}):
                yield f"{name}: {key} is {value}"
        for key in ("queueName", "mode", "value", "protocol"):
            if key not in trigger["metadata"]:
                yield f"{name} does not say {key}"
        if trigger["metadata"].get("protocol") != "http" and {"excludeUnacknowledged", "useRegex"} & set(
            trigger["metadata"]
        ):
            yield f"{name} asks over AMQP for what only HTTP tells"
    names = [trigger.get("name") for _, trigger in triggers(system)]
    if len(set(names)) != len(names) or None in names:
        yield "not every trigger has a name of its own"


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


@rule
def keda_looks_at_the_queues_that_the_engine_empties(system: System) -> Iterator[str]:
    topology, concurrency = topology_of(system), system.settings("engine").engine_concurrency
    asked = {
        (trigger["metadata"].get("protocol"), trigger["metadata"].get("queueName")) for _, trigger in triggers(system)
    }
    known = {queue.name for queue in topology.queues}
    for _, queue in sorted(asked, key=str):
        if queue not in known:
            yield f"KEDA looks at the queue {queue}, which the code does not know"
    wanted = {("amqp", topology.tasks.name), ("http", topology.tasks.name)}
    for protocol, queue in sorted(wanted - asked):
        yield f"KEDA does not look at {queue} over {protocol}"
    if topology.dead.name not in {queue for _, queue in asked}:
        yield f"KEDA does not look at {topology.dead.name}"
    for _, trigger in triggers(system):
        given = trigger["metadata"].get("value")
        if trigger["metadata"].get("queueName") == topology.tasks.name and given != str(concurrency):
            yield f"the trigger {trigger.get('name')} gives an engine {given} tasks, which holds {concurrency}"
        if trigger["metadata"].get("excludeUnacknowledged") == "true":
            yield f"the trigger {trigger.get('name')} does not count what engines hold"


@rule
def scaling_goes_to_zero_and_not_too_soon(system: System) -> Iterator[str]:
    for found in system.of("ScaledObject"):
        name, spec = f"ScaledObject/{found['metadata']['name']}", found["spec"]
        if spec.get("minReplicaCount", 0) != 0:
            yield f"{name} keeps {spec['minReplicaCount']} engines while there is no task"
        if not 1 <= spec.get("maxReplicaCount", 100) <= 100:
            yield f"{name} goes up to {spec.get('maxReplicaCount')} engines"
        if spec.get("cooldownPeriod", 300) < MIN_COOLDOWN_SECONDS:
            yield f"{name} waits {spec['cooldownPeriod']} s before it stops the last engine"
        if spec["triggers"][0]["type"] != "external-push" and spec.get("pollingInterval", 30) > 5:
            yield f"{name} looks every {spec.get('pollingInterval', 30)} s only"
        if "fallback" in spec or "idleReplicaCount" in spec:
            yield f"{name} guesses a number of engines"
        if any("paused" in key for key in found["metadata"].get("annotations", {})):
            yield f"{name} is paused"
        down = (
            spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {}).get("scaleDown", {})
        )
        if down.get("stabilizationWindowSeconds", 300) < MIN_COOLDOWN_SECONDS:
            yield f"{name} takes engines away at each gap in a stream of tasks"


@rule
def keda_finds_its_credentials(system: System) -> Iterator[str]:
    known = {
        parameter["name"]
        for parameter in json.loads((SCHEMAS / "rabbitmq-scaler.json").read_text())["parameters"]
        if parameter.get("triggerAuthenticationVariableReadable")
    }
    used = set()
    for _, trigger in triggers(system):
        reference = trigger.get("authenticationRef", {})
        used.add(reference.get("name"))
        found = system.named(reference.get("kind", "TriggerAuthentication"), reference.get("name", ""))
        if found is None:
            yield f"the trigger {trigger.get('name')} wants TriggerAuthentication/{reference.get('name')}"
            continue
        given = {each["parameter"]: each for each in found["spec"].get("secretTargetRef", [])}
        for parameter in ("host", "username", "password"):
            if parameter not in given:
                yield f"TriggerAuthentication/{reference['name']} does not say {parameter}"
        for parameter in given.keys() - known:
            yield f"TriggerAuthentication/{reference['name']} says {parameter}, which the scaler does not know"
        host = system.secrets.get(given.get("host", {}).get("name", ""), {}).get(
            given.get("host", {}).get("key", ""), ""
        )
        if not host.startswith(str(trigger["metadata"].get("protocol"))):
            yield f"the trigger {trigger.get('name')} asks over {trigger['metadata'].get('protocol')} at {host!r}"
    for found in system.of("TriggerAuthentication"):
        if found["metadata"]["name"] not in used:
            yield f"nobody uses TriggerAuthentication/{found['metadata']['name']}"


def triggers(system: System) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The triggers that look at RabbitMQ, each with its ScaledObject."""
    return [
        (found, trigger)
        for found in system.of("ScaledObject")
        for trigger in found["spec"]["triggers"]
        if trigger["type"] == "rabbitmq"
    ]
