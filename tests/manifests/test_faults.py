"""A rule that cannot fail is worth nothing: faults are planted in what the manifests make, and each must be found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.manifests.rules import RULES
from tests.manifests.rules.pods import quantity
from tests.manifests.system import System

Fault = Callable[[System], None]

POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"
CONTEXT = f"{CONTAINER}.securityContext"


def found(system: System, name: str) -> dict[str, Any]:
    kind, _, wanted = name.partition("/")
    [one] = [each for each in system.of(kind) if each["metadata"]["name"] == wanted]
    return one


def put(name: str, path: str, value: Any) -> Fault:
    """Gives a field of an object a value; one that is missing on the way is made."""

    def plant(system: System) -> None:
        *parents, last = path.split(".")
        inner: Any = found(system, name)
        for part in parents:
            inner = inner[int(part)] if isinstance(inner, list) else inner.setdefault(part.replace("~", "."), {})
        if isinstance(inner, list):
            inner[int(last) :] = [value, *inner[int(last) + 1 :]]
        else:
            inner[last.replace("~", ".")] = value

    return plant


def drop(name: str, path: str) -> Fault:
    """Takes a field, or the item of a list, away."""

    def plant(system: System) -> None:
        *parents, last = path.split(".")
        inner: Any = found(system, name)
        for part in parents:
            inner = inner[int(part) if isinstance(inner, list) else part.replace("~", ".")]
        del inner[int(last) if isinstance(inner, list) else last.replace("~", ".")]

    return plant


def remove(name: str) -> Fault:
    """Takes an object away."""
    return lambda system: system.objects.remove(found(system, name))


def add(name: str, **fields: Any) -> Fault:
    """Adds an object with the labels and the namespace of the house."""
    kind, _, named = name.partition("/")
    metadata = {"name": named, "namespace": "sluice", "labels": {"app.kubernetes.io/part-of": "sluice"}}
    return lambda system: system.objects.append({"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields})


def text(file: str, old: str, new: str) -> Fault:
    """Replaces a text in a file of a ConfigMap."""

    def plant(system: System) -> None:
        [data] = [each["data"] for each in system.of("ConfigMap") if file in each["data"]]
        assert old in data[file]
        data[file] = data[file].replace(old, new)

    return plant


def definition(change: Callable[[dict[str, Any]], object]) -> Fault:
    """Changes what RabbitMQ imports."""

    def plant(system: System) -> None:
        [data] = [each["data"] for each in system.of("ConfigMap") if "definitions.json" in each["data"]]
        definitions = json.loads(data["definitions.json"])
        change(definitions)
        data["definitions.json"] = json.dumps(definitions)

    return plant


def permission(user: str, right: str, pattern: str) -> Fault:
    def change(definitions: dict[str, Any]) -> None:
        [row] = [row for row in definitions["permissions"] if row["user"] == user]
        row[right] = pattern

    return definition(change)


def queue(name: str, argument: str, value: Any) -> Fault:
    def change(definitions: dict[str, Any]) -> None:
        [one] = [one for one in definitions["queues"] if one["name"] == name]
        one["arguments"][argument] = value

    return definition(change)


def secret(name: str, key: str, old: str, new: str) -> Fault:
    """Replaces a text in a Secret."""

    def plant(system: System) -> None:
        assert old in system.secrets[name][key]
        system.secrets[name][key] = system.secrets[name][key].replace(old, new)

    return plant


def trigger(number: int, key: str, value: Any) -> Fault:
    return put("ScaledObject/engine", f"spec.triggers.{number}.metadata.{key}", value)


def open_to(name: str, **rule: Any) -> Fault:
    """One more rule in a NetworkPolicy."""
    (direction,) = rule

    def plant(system: System) -> None:
        found(system, name)["spec"].setdefault(direction, []).append(rule[direction])

    return plant


def without_variable(name: str) -> Fault:
    """Takes a variable of the ConfigMaps away."""

    def plant(system: System) -> None:
        for config in system.of("ConfigMap"):
            config["data"].pop(name, None)

    return plant


ENGINE, WEB, ADD = "Deployment/engine", "Deployment/web", "Deployment/add-task"
RABBITMQ, SWEEP = "StatefulSet/rabbitmq", "CronJob/sweep"
POLICY_OF_DOOR = "NetworkPolicy/ingress-to-functions-and-web"

FAULTS: dict[str, list[Fault]] = {
    "all_is_in_the_namespace_that_enforces_the_restricted_profile": [
        put("Namespace/sluice", "metadata.labels.pod-security~kubernetes~io/enforce", "baseline"),
        put("Service/web", "metadata.namespace", "default"),
        remove("Namespace/sluice"),
    ],
    "no_two_objects_have_the_same_name": [add("Service/web")],
    "no_pod_shares_anything_with_its_node": [
        put(ENGINE, f"{POD}.hostNetwork", True),
        put(RABBITMQ, f"{POD}.hostPID", True),
        put(ENGINE, f"{POD}.volumes.0", {"name": "tmp", "hostPath": {"path": "/tmp"}}),
        put(WEB, f"{CONTAINER}.ports.0.hostPort", 80),
        put(WEB, f"{CONTAINER}.livenessProbe.httpGet.host", "10.0.0.1"),
    ],
    "no_container_has_privileges": [
        put(ENGINE, f"{CONTEXT}.privileged", True),
        put(ENGINE, f"{CONTEXT}.allowPrivilegeEscalation", True),
        drop(ENGINE, f"{CONTEXT}.allowPrivilegeEscalation"),
        drop(RABBITMQ, f"{POD}.initContainers.0.securityContext.capabilities"),
        put(WEB, f"{CONTEXT}.capabilities.add", ["NET_BIND_SERVICE"]),
        put(ENGINE, f"{CONTEXT}.runAsNonRoot", False),
        put(ENGINE, f"{POD}.securityContext.runAsUser", 0),
        drop(ENGINE, f"{POD}.securityContext.runAsUser"),
        drop(SWEEP, "spec.jobTemplate.spec.template.spec.securityContext.runAsNonRoot"),
        drop(ENGINE, f"{POD}.securityContext.seccompProfile"),
        put(ENGINE, f"{CONTEXT}.seccompProfile", {"type": "Unconfined"}),
        put(ENGINE, f"{CONTEXT}.procMount", "Unmasked"),
        put(ENGINE, f"{POD}.securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
        put(ENGINE, f"{POD}.securityContext.appArmorProfile", {"type": "Unconfined"}),
        put(ENGINE, f"{POD}.securityContext.seLinuxOptions", {"type": "spc_t"}),
        put(ENGINE, f"{CONTEXT}.windowsOptions", {"hostProcess": True}),
        put(ENGINE, f"{POD}.ephemeralContainers", [{"name": "look", "image": "busybox:1"}]),
    ],
    "no_container_writes_to_its_image": [
        drop(ADD, f"{CONTEXT}.readOnlyRootFilesystem"),
        put(RABBITMQ, f"{CONTEXT}.readOnlyRootFilesystem", False),
    ],
    "every_pod_has_an_account_of_its_own_and_no_token": [
        drop(ENGINE, f"{POD}.automountServiceAccountToken"),
        put(ENGINE, f"{POD}.serviceAccountName", "add-task"),
        drop(ENGINE, f"{POD}.serviceAccountName"),
        remove("ServiceAccount/sweep"),
        drop("ServiceAccount/web", "automountServiceAccountToken"),
        add("ServiceAccount/other", automountServiceAccountToken=False),
    ],
    "no_pod_is_told_of_services_through_its_environment": [
        drop(ENGINE, f"{POD}.enableServiceLinks"),
        put(RABBITMQ, f"{POD}.enableServiceLinks", True),
    ],
    "nothing_gives_rights_in_the_cluster": [
        add("RoleBinding/engine", apiVersion="rbac.authorization.k8s.io/v1"),
    ],
    "everything_carries_the_labels_of_the_house": [
        drop("Service/web", "metadata.labels.app~kubernetes~io/part-of"),
        drop(ENGINE, "spec.template.metadata.labels.app~kubernetes~io/component"),
        put(ENGINE, "spec.template.metadata.labels.app~kubernetes~io/name", "worker"),
    ],
    "every_selector_takes_the_pods_it_means": [
        put(ENGINE, "spec.selector.matchLabels", {"app.kubernetes.io/part-of": "sluice"}),
        put("Service/web", "spec.selector", {"app.kubernetes.io/name": "page"}),
        put("Service/web", "spec.selector", {"app.kubernetes.io/name": "get-tasks"}),
        put("Service/add-task", "spec.ports.0.targetPort", 8080),
        put("Service/add-task", "spec.ports.0.targetPort", "web"),
        drop("Service/add-task", "spec.ports.0.name"),
        put(RABBITMQ, "spec.serviceName", "queue"),
    ],
    "no_service_is_open_to_the_world": [
        put("Service/add-task", "spec.type", "LoadBalancer"),
        put("Service/rabbitmq", "spec.type", "NodePort"),
    ],
    "every_image_is_pinned": [
        put(ENGINE, f"{CONTAINER}.image", "sluice/engine"),
        put(ENGINE, f"{CONTAINER}.image", "sluice/engine:latest"),
        put(RABBITMQ, f"{CONTAINER}.image", "rabbitmq:management"),
        put(RABBITMQ, f"{CONTAINER}.image", "rabbitmq:4.2-management"),
        put(RABBITMQ, f"{CONTAINER}.image", "rabbitmq:4.1.0-management"),
        put(ENGINE, f"{CONTAINER}.imagePullPolicy", "Always"),
    ],
    "every_container_asks_for_what_it_needs_and_has_an_end": [
        drop(ENGINE, f"{CONTAINER}.resources"),
        drop(ENGINE, f"{CONTAINER}.resources.limits.memory"),
        drop(ENGINE, f"{CONTAINER}.resources.requests.cpu"),
        put(ENGINE, f"{CONTAINER}.resources.requests.memory", "2Gi"),
        put(ENGINE, f"{CONTAINER}.resources.requests.cpu", "100"),
        put(ENGINE, f"{CONTAINER}.resources.limits.memory", "512m"),
        drop(ADD, f"{POD}.volumes.0.emptyDir.sizeLimit"),
        drop(RABBITMQ, f"{POD}.initContainers.0.resources"),
    ],
    "every_container_is_probed_on_a_port_that_it_has": [
        drop(ENGINE, f"{CONTAINER}.readinessProbe"),
        drop(RABBITMQ, f"{CONTAINER}.livenessProbe"),
        put(ADD, f"{CONTAINER}.readinessProbe.httpGet.port", "web"),
        put(ADD, f"{CONTAINER}.readinessProbe.httpGet.port", 8080),
        drop(ADD, f"{CONTAINER}.startupProbe.httpGet"),
        put(ADD, f"{CONTAINER}.livenessProbe.failureThreshold", 1),
    ],
    "pods_of_one_kind_spread_over_nodes": [
        drop(ADD, f"{POD}.topologySpreadConstraints"),
        put(ADD, f"{POD}.topologySpreadConstraints.1.labelSelector.matchLabels", {"app.kubernetes.io/name": "web"}),
        put(ADD, f"{POD}.topologySpreadConstraints.1.whenUnsatisfiable", "DoNotSchedule"),
    ],
    "an_update_takes_no_pod_away_before_the_next_is_ready": [
        drop(ADD, "spec.strategy"),
        put(ADD, "spec.strategy", {"type": "Recreate"}),
        put(ENGINE, "spec.strategy.rollingUpdate.maxUnavailable", "25%"),
    ],
    "a_store_keeps_its_data": [
        drop(RABBITMQ, "spec.volumeClaimTemplates"),
        put(RABBITMQ, "spec.persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Delete"}),
        put("StatefulSet/mongodb", "spec.replicas", 3),
    ],
    "one_sweep_ends_before_the_next": [
        put(SWEEP, "spec.concurrencyPolicy", "Allow"),
        put(SWEEP, "spec.schedule", "0 * * * *"),
        put(SWEEP, "spec.suspend", True),
        drop(SWEEP, "spec.jobTemplate.spec.activeDeadlineSeconds"),
        drop(SWEEP, "spec.jobTemplate.spec.backoffLimit"),
        drop(SWEEP, "spec.startingDeadlineSeconds"),
    ],
    "old_revisions_are_few_and_a_roll_back_is_possible": [
        drop(ENGINE, "spec.revisionHistoryLimit"),
        put(ENGINE, "spec.revisionHistoryLimit", 0),
        put(ENGINE, "spec.revisionHistoryLimit", 50),
    ],
    "no_budget_blocks_a_drain": [
        put("PodDisruptionBudget/web", "spec.maxUnavailable", 0),
        put("PodDisruptionBudget/web", "spec.minAvailable", 1),
        put("PodDisruptionBudget/web", "spec.selector.matchLabels", {"app.kubernetes.io/name": "page"}),
        put("PodDisruptionBudget/web", "spec.selector.matchLabels", {"app.kubernetes.io/name": "engine"}),
        drop("PodDisruptionBudget/web", "spec.unhealthyPodEvictionPolicy"),
        remove("PodDisruptionBudget/add-task"),
    ],
    "nobody_is_killed_at_work": [
        put(ENGINE, f"{POD}.terminationGracePeriodSeconds", 140),
        drop(ENGINE, f"{POD}.terminationGracePeriodSeconds"),
        put(ENGINE, f"{CONTAINER}.env.0", {"name": "ENGINE_GRACE_SECONDS", "value": "200"}),
        put(WEB, f"{POD}.terminationGracePeriodSeconds", 5),
        put(ENGINE, f"{CONTAINER}.env.0", {"name": "ATTEMPT_TIMEOUT_SECONDS", "value": "300"}),
        drop(ADD, f"{CONTAINER}.lifecycle"),
        put(WEB, f"{CONTAINER}.lifecycle.preStop.sleep.seconds", 1),
        put(ADD, f"{POD}.terminationGracePeriodSeconds", 10),
    ],
    "what_an_autoscaler_owns_is_left_to_it": [
        put(ENGINE, "spec.replicas", 1),
        add("HorizontalPodAutoscaler/engine", spec={"scaleTargetRef": {"kind": "Deployment", "name": "engine"}}),
        add("HorizontalPodAutoscaler/gone", spec={"scaleTargetRef": {"kind": "Deployment", "name": "gone"}}),
    ],
    "every_secret_is_one_that_make_secrets_makes": [
        put(ENGINE, f"{CONTAINER}.env.0.valueFrom.secretKeyRef.name", "engines"),
        put(ENGINE, f"{CONTAINER}.env.0.valueFrom.secretKeyRef.key", "MONGO_URI"),
        put(ENGINE, f"{CONTAINER}.env.0.valueFrom.secretKeyRef.optional", True),
        put(ADD, f"{CONTAINER}.envFrom", [{"secretRef": {"name": "all"}}]),
        put(ADD, f"{POD}.imagePullSecrets", [{"name": "registry"}]),
        put("TriggerAuthentication/rabbitmq-amqp", "spec.secretTargetRef.0.key", "url"),
        put(RABBITMQ, f"{POD}.volumes.1.secret.items.0.key", "cookie"),
        remove(SWEEP),
    ],
    "each_workload_reads_its_own_secret_only": [
        put(ADD, f"{CONTAINER}.env.0.valueFrom.secretKeyRef.name", "engine"),
        put(WEB, f"{CONTAINER}.envFrom", [{"secretRef": {"name": "model"}}]),
    ],
    "no_secret_is_in_the_manifests": [
        add("Secret/engine", stringData={"a": "b"}),
        put(ENGINE, f"{CONTAINER}.env.0", {"name": "RABBITMQ_URL", "value": "amqp://engine:hunter2@rabbitmq/sluice"}),
        put(ENGINE, f"{CONTAINER}.env.0", {"name": "MONGODB_URI", "value": "mongodb://mongodb"}),
        add("ConfigMap/settings", data={"settings": "password=correct-horse"}),
        put(ENGINE, "metadata.annotations", {"key": "sk-proj-0123456789abcdef0123"}),
        put(ENGINE, "metadata.annotations", {"key": "-----BEGIN PRIVATE KEY-----"}),
    ],
    "every_config_map_is_there_and_is_used": [
        add("ConfigMap/other", data={"a": "b"}),
        put(ADD, f"{CONTAINER}.envFrom", [{"configMapRef": {"name": "gone"}}]),
        put(ADD, f"{CONTAINER}.env.0.valueFrom", {"configMapKeyRef": {"name": "gone", "key": "MONGODB_URI"}}),
        put(RABBITMQ, f"{POD}.volumes.0.projected.sources.0.configMap.items.0.key", "rabbit.conf"),
    ],
    "every_volume_is_mounted_and_every_mount_has_a_place": [
        put(ENGINE, f"{CONTAINER}.volumeMounts.0.name", "temporary"),
        drop(ENGINE, f"{CONTAINER}.volumeMounts"),
        put(ENGINE, f"{CONTAINER}.volumeMounts.1", {"name": "tmp", "mountPath": "/tmp"}),
        put(RABBITMQ, f"{CONTAINER}.volumeMounts.9", {"name": "tmp", "mountPath": "/etc/rabbitmq/conf.d"}),
        put(ENGINE, f"{POD}.volumes.0", {"name": "tmp", "persistentVolumeClaim": {"claimName": "engine"}}),
    ],
    "every_part_of_sluice_is_there": [remove(SWEEP), remove("Deployment/get-tasks"), remove("Service/retry-task")],
    "each_part_runs_its_own_image": [put(ADD, f"{CONTAINER}.image", "sluice/get-tasks:local")],
    "every_command_is_a_module_of_ours": [
        put(SWEEP, f"spec.jobTemplate.{CONTAINER}.command", ["python", "-m", "functions.engine.sweeper"]),
        put(SWEEP, f"spec.jobTemplate.{CONTAINER}.command", ["python", "-m", "functions.engine.main"]),
        put(ENGINE, f"{CONTAINER}.command", ["sh", "-c", "python -m functions.engine.main"]),
    ],
    "every_port_is_the_one_that_the_process_listens_on": [
        put(ADD, f"{CONTAINER}.ports.0.containerPort", 8081),
        put(ADD, f"{CONTAINER}.ports.0.name", "web"),
        put(ADD, f"{CONTAINER}.env.0", {"name": "PORT", "value": "9000"}),
        put(ENGINE, f"{CONTAINER}.ports", []),
    ],
    "every_probe_asks_for_a_path_that_is_served": [
        put(ADD, f"{CONTAINER}.readinessProbe.httpGet.path", "/healthz"),
        put(ADD, f"{CONTAINER}.livenessProbe.httpGet.path", "/readyz"),
        put(ENGINE, f"{CONTAINER}.livenessProbe.httpGet.path", "/health"),
        put(WEB, f"{CONTAINER}.readinessProbe.httpGet.path", "/readyz"),
        put("Deployment/offline-model", f"{CONTAINER}.readinessProbe.httpGet.path", "/readyz"),
    ],
    "what_is_outside_is_what_the_functions_serve": [
        remove("Ingress/sluice"),
        drop("Ingress/sluice", "spec.rules.0.http.paths.0"),
        put("Ingress/sluice", "spec.rules.0.http.paths.1.pathType", "Exact"),
        put("Ingress/sluice", "spec.rules.0.http.paths.0.path", "/"),
        put("Ingress/sluice", "spec.rules.0.http.paths.0.path", "/tasks"),
        put("Ingress/sluice", "spec.rules.0.http.paths.0.backend.service.name", "get-tasks"),
        put(
            "Ingress/sluice",
            "spec.rules.0.http.paths.5",
            {"path": "/metrics", "pathType": "Exact", "backend": {"service": {"name": "add-task", "port": {}}}},
        ),
        remove("Service/web"),
    ],
    "the_way_in_needs_no_special_controller": [
        put("Ingress/sluice", "metadata.annotations", {"nginx.ingress.kubernetes.io/rewrite-target": "/"}),
        put("Ingress/sluice", "spec.rules.0.http.paths.0.pathType", "ImplementationSpecific"),
        put("Ingress/sluice", "spec.rules.0.http.paths.0.backend.service.port", {"name": "web"}),
    ],
    "the_network_policies_allow_exactly_the_arrows": [
        remove("NetworkPolicy/deny-all"),
        remove("NetworkPolicy/all-to-dns"),
        drop("NetworkPolicy/all-to-dns", "spec.egress.0.to.0"),
        drop("NetworkPolicy/all-to-dns", "spec.egress.0.to.1"),
        put("NetworkPolicy/all-to-dns", "spec.egress.0.to.1.ipBlock.cidr", "169.254.20.10/31"),
        put("NetworkPolicy/all-to-dns", "spec.egress.0.to.1.ipBlock.cidr", "169.254.20.11/32"),
        drop("NetworkPolicy/all-to-dns", "spec.egress.0.ports"),
        remove("NetworkPolicy/rabbitmq-from-keda"),
        put("NetworkPolicy/deny-all", "spec.podSelector", {"matchLabels": {"app.kubernetes.io/part-of": "sluice"}}),
        put(POLICY_OF_DOOR, "spec.ingress.0.from.0.namespaceSelector", {}),
        drop(POLICY_OF_DOOR, "spec.ingress.0.from"),
        drop(POLICY_OF_DOOR, "spec.ingress.0.ports"),
        put(POLICY_OF_DOOR, "spec.podSelector", {}),
        put(POLICY_OF_DOOR, "spec.ingress.0.from.0.namespaceSelector.matchLabels", {"name": "traefik"}),
        put("NetworkPolicy/rabbitmq-from-clients", "spec.ingress.0.from", [{"podSelector": {}}]),
        open_to("NetworkPolicy/rabbitmq-from-clients", ingress={"ports": [{"port": 5672}]}),
        put("NetworkPolicy/rabbitmq-from-clients", "spec.ingress.0.ports.1", {"port": "management"}),
        put("NetworkPolicy/to-rabbitmq", "spec.egress.0.ports", [{"port": "amqp", "protocol": "UDP"}]),
        put("NetworkPolicy/to-mongodb", "spec.egress.0.to", [{"ipBlock": {"cidr": "0.0.0.0/0"}}]),
        open_to("NetworkPolicy/engine-to-model", egress={"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}]}),
        put("NetworkPolicy/rabbitmq-from-monitoring", "spec.ingress.0.ports", [{"port": 15672, "endPort": 15692}]),
        put(ENGINE, "spec.template.metadata.labels.app~kubernetes~io/name", "worker"),
    ],
    "every_network_policy_is_for_somebody": [
        put("NetworkPolicy/engine-to-model", "spec.podSelector.matchLabels", {"app.kubernetes.io/name": "engines"}),
        drop("NetworkPolicy/engine-to-model", "spec.policyTypes"),
        put("NetworkPolicy/engine-to-model", "spec.policyTypes", ["Ingress"]),
    ],
    "keda_scales_a_deployment_that_is_there": [
        put("ScaledObject/engine", "spec.scaleTargetRef.name", "web"),
        put("ScaledObject/engine", "spec.scaleTargetRef.name", "engines"),
        put("ScaledObject/engine", "spec.scaleTargetRef.kind", "StatefulSet"),
        put("ScaledObject/engine", "spec.triggers.0.type", "kafka"),
        remove("ScaledObject/engine"),
    ],
    "every_way_through_the_interceptor_scales_what_it_leads_to": [
        add("InterceptorRoute/web", spec={"target": {"service": "web", "portName": "http"}}),
        add("InterceptorRoute/engine", spec={"target": {"service": "engine", "portName": "http"}}),
        put("ScaledObject/engine", "spec.triggers.0", {"type": "external-push", "metadata": {}}),
    ],
    "every_trigger_is_one_that_keda_understands": [
        trigger(0, "queue", "tasks"),
        trigger(0, "queueLength", "10"),
        trigger(0, "value", "ten"),
        trigger(0, "mode", "queueLength"),
        trigger(0, "protocol", "auto"),
        trigger(0, "excludeUnacknowledged", "true"),
        trigger(1, "host", "http://rabbitmq:15672"),
        drop("ScaledObject/engine", "spec.triggers.0.metadata.value"),
        drop("ScaledObject/engine", "spec.triggers.0.name"),
    ],
    "keda_looks_at_the_queues_that_the_engine_empties": [
        trigger(0, "queueName", "task"),
        trigger(1, "queueName", "tasks.retry.1"),
        trigger(1, "value", "20"),
        trigger(1, "excludeUnacknowledged", "true"),
        drop("ScaledObject/engine", "spec.triggers.1"),
        drop("ScaledObject/engine", "spec.triggers.2"),
        put(ENGINE, f"{CONTAINER}.env.0", {"name": "ENGINE_CONCURRENCY", "value": "5"}),
        put(ENGINE, f"{CONTAINER}.env.0", {"name": "TASK_QUEUE", "value": "jobs"}),
    ],
    "scaling_goes_to_zero_and_not_too_soon": [
        put("ScaledObject/engine", "spec.minReplicaCount", 1),
        put("ScaledObject/engine", "spec.cooldownPeriod", 10),
        put("ScaledObject/engine", "spec.pollingInterval", 30),
        put("ScaledObject/engine", "spec.maxReplicaCount", 1000),
        put("ScaledObject/engine", "spec.fallback", {"failureThreshold": 3, "replicas": 5}),
        put("ScaledObject/engine", "metadata.annotations", {"autoscaling.keda.sh/paused": "true"}),
        put(
            "ScaledObject/engine",
            "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.stabilizationWindowSeconds",
            0,
        ),
    ],
    "keda_finds_its_credentials": [
        put("ScaledObject/engine", "spec.triggers.0.authenticationRef.name", "rabbitmq"),
        put("ScaledObject/engine", "spec.triggers.0.authenticationRef.name", "rabbitmq-http"),
        put("TriggerAuthentication/rabbitmq-http", "spec.secretTargetRef.1.parameter", "user"),
        drop("TriggerAuthentication/rabbitmq-http", "spec.secretTargetRef.2"),
        add("TriggerAuthentication/other", spec={"secretTargetRef": []}),
    ],
    "rabbitmq_has_the_queues_before_the_first_engine": [
        queue("tasks", "x-message-ttl", 60_000),
        queue("tasks.dead", "x-message-ttl", 60_000),
        queue("tasks", "x-dead-letter-routing-key", "tasks.retry.1"),
        definition(lambda definitions: definitions["queues"].pop()),
        definition(lambda definitions: definitions["queues"][0].update(durable=False)),
        definition(lambda definitions: definitions["vhosts"][0].update(name="/")),
        definition(lambda definitions: definitions.update(users=[{"name": "guest"}])),
        text("definitions.json", '"tasks.retry.5"', '"tasks.retry.6"'),
        add("ConfigMap/other", data={"definitions.json": "{}"}),
    ],
    "nobody_declares_what_rabbitmq_was_given": [
        put(ADD, f"{CONTAINER}.env.0", {"name": "DECLARE_QUEUES", "value": "true"}),
        drop(ENGINE, f"{CONTAINER}.envFrom"),
    ],
    "each_user_of_rabbitmq_has_the_least_rights": [
        permission("add-task", "configure", ".*"),
        permission("add-task", "read", "^tasks$"),
        permission("add-task", "write", ".*"),
        permission("add-task", "write", "^tasks$"),
        permission("engine", "write", "default"),
        permission("engine", "read", "^tasks$"),
        permission("engine", "read", "tasks"),
        permission("keda", "read", "^$"),
        permission("keda", "write", "^tasks$"),
        definition(lambda definitions: definitions["permissions"].pop(0)),
        definition(lambda definitions: definitions["permissions"][0].update(vhost="/")),
        definition(lambda definitions: definitions["permissions"].append(definitions["permissions"][0])),
        definition(lambda definitions: definitions["permissions"][0].update(user="guest")),
        secret("rabbitmq", "users.json", '"management"', '"administrator"'),
        secret("rabbitmq", "users.json", '"engine"', '"worker"'),
        secret("rabbitmq", "users.json", '"monitoring"', '"administrator"'),
    ],
    "the_addresses_in_the_secrets_lead_to_the_stores": [
        secret("engine", "RABBITMQ_URL", "/sluice", "/"),
        secret("engine", "RABBITMQ_URL", "5672", "5673"),
        secret("engine", "RABBITMQ_URL", "engine:", "operator:"),
        secret("engine", "MONGODB_URI", "mongodb-0.mongodb", "mongo"),
        secret("keda", "http", "15672", "15671"),
        secret("keda", "amqp", "rabbitmq.sluice.svc", "rabbitmq"),
        remove("Service/rabbitmq"),
    ],
    "each_user_of_mongodb_has_the_least_rights": [
        text("set-up.js", '"get-tasks": ["find"]', '"get-tasks": ["find", "update"]'),
        text("set-up.js", '"createIndex"', '"remove"'),
        text("set-up.js", '"cancel-task": ["find", "update"],', ""),
        text("set-up.js", 'collection: "tasks"', 'collection: ""'),
        text("set-up.js", "const RIGHTS", "const rights"),
        add("ConfigMap/other", data={"set-up.js": ""}),
        text("set-up.js", "roles: [name]", 'roles: ["readWrite"]'),
    ],
    "rabbitmq_tells_keda_in_time": [
        text("rabbitmq.conf", "collect_statistics_interval = 1000", "collect_statistics_interval = 5000"),
        text("rabbitmq.conf", "management.sample_retention_policies.detailed.10 = 1", ""),
        text("advanced.config", "1000", "5000"),
        text("enabled_plugins", "rabbitmq_management, ", ""),
        text("rabbitmq.conf", "log.console = true", "default_pass = guest"),
    ],
    "every_part_starts_with_what_it_is_given": [
        put(ENGINE, f"{CONTAINER}.env.0", {"name": "LOG_LEVEL", "value": "LOUD"}),
        drop(ADD, f"{CONTAINER}.env.1"),
        put("Deployment/get-tasks", f"{CONTAINER}.env.1", {
            "name": "RABBITMQ_URL", "valueFrom": {"secretKeyRef": {"name": "add-task", "key": "RABBITMQ_URL"}},
        }),
        secret("engine", "MONGODB_URI", "mongodb://", "mysql://"),
    ],
    "every_variable_is_a_setting": [
        put(ENGINE, f"{CONTAINER}.env.0.name", "MONGO_URI"),
        put(ADD, f"{CONTAINER}.env.2", {"name": "MONGODB_URI", "value": "x"}),
    ],
    "every_setting_has_been_thought_of": [
        without_variable("DECLARE_QUEUES"),
    ],
    "the_times_fit_into_each_other": [
        put(ENGINE, f"{CONTAINER}.env.0", {"name": "OPENAI_TIMEOUT_SECONDS", "value": "130"}),
    ],
}  # fmt: skip


#: What only another system than the local overlay has.
ELSEWHERE: list[tuple[str, str | None, str, Fault]] = [
    ("production", None, "what_an_autoscaler_owns_is_left_to_it", put(ADD, "spec.replicas", 3)),
    (
        "production",
        None,
        "every_image_is_pinned",
        put(ENGINE, f"{CONTAINER}.image", "registry.example/sluice/engine:local"),
    ),
    (
        "production",
        None,
        "the_addresses_in_the_secrets_lead_to_the_stores",
        secret("engine", "RABBITMQ_URL", "amqps", "amqp"),
    ),
    ("production", None, "the_addresses_in_the_secrets_lead_to_the_stores", secret("keda", "http", "https", "http")),
    (
        "production",
        None,
        "the_network_policies_allow_exactly_the_arrows",
        put("NetworkPolicy/to-mongodb", "spec.egress.0.to.0.ipBlock.cidr", "0.0.0.0/0"),
    ),
    (
        "production",
        None,
        "the_network_policies_allow_exactly_the_arrows",
        drop("NetworkPolicy/engine-to-model", "spec.egress.0.to.0.ipBlock.except"),
    ),
    (
        "production",
        None,
        "production_outlives_a_pod",
        put("Deployment/web", "spec.replicas", 1),
    ),
    (
        "production",
        None,
        "production_outlives_a_pod",
        put("HorizontalPodAutoscaler/get-tasks", "spec.minReplicas", 1),
    ),
    (
        "production",
        None,
        "production_speaks_tls",
        drop("Ingress/sluice", "spec.tls"),
    ),
    (
        "production",
        None,
        "production_speaks_tls",
        put("Ingress/sluice", "spec.rules.0.host", "other.example"),
    ),
    (
        "production",
        None,
        "production_outlives_a_pod",
        lambda system: system.objects.append({**found(system, WEB), "kind": "StatefulSet"}),
    ),
    ("production", "http-add-on", "what_an_autoscaler_owns_is_left_to_it", put(WEB, "spec.replicas", 2)),
    (
        "production",
        "http-add-on",
        "what_an_autoscaler_owns_is_left_to_it",
        add("HorizontalPodAutoscaler/add-task", spec={"scaleTargetRef": {"kind": "Deployment", "name": "add-task"}}),
    ),
    ("local", "http-route", "what_is_outside_is_what_the_functions_serve", drop("HTTPRoute/sluice", "spec.rules.0")),
    (
        "local",
        "http-route",
        "the_way_in_needs_no_special_controller",
        put("HTTPRoute/sluice", "spec.rules.0.filters", [{"type": "URLRewrite"}]),
    ),
    (
        "local",
        "http-route",
        "the_way_in_needs_no_special_controller",
        put("HTTPRoute/sluice", "spec.rules.0.backendRefs.0.port", 8080),
    ),
    (
        "local",
        "http-add-on",
        "what_is_outside_is_what_the_functions_serve",
        put("InterceptorRoute/add-task", "spec.rules.0.paths.0.value", "/add"),
    ),
    (
        "local",
        "http-add-on",
        "what_is_outside_is_what_the_functions_serve",
        put("Ingress/sluice", "spec.rules.0.http.paths.0.path", "/tasks"),
    ),
    (
        "local",
        "http-add-on",
        "every_way_through_the_interceptor_scales_what_it_leads_to",
        put("ScaledObject/web", "spec.triggers.0.metadata.interceptorRoute", "add-task"),
    ),
]


@pytest.mark.parametrize(("overlay", "component", "rule", "fault"), ELSEWHERE)
def test_a_fault_planted_elsewhere_is_found(
    system: Callable[..., System], overlay: str, component: str | None, rule: str, fault: Fault
) -> None:
    check(system(overlay, component), rule, fault)


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        pytest.param(rule, fault, id=f"{rule}-{number}")
        for rule, faults in FAULTS.items()
        for number, fault in enumerate(faults)
    ],
)
def test_a_planted_fault_is_found(system: Callable[..., System], rule: str, fault: Fault) -> None:
    check(system("local"), rule, fault)


def check(sound: System, rule: str, fault: Fault) -> None:
    """The rule says more about a copy with the fault than about the sound system."""
    faulty = System(sound.overlay, copy.deepcopy(sound.objects), copy.deepcopy(sound.secrets))
    fault(faulty)
    assert (faulty.objects, faulty.secrets) != (sound.objects, sound.secrets), "nothing was planted"
    assert set(RULES[rule](faulty)) - set(RULES[rule](sound))


def test_every_rule_has_been_seen_to_fail() -> None:
    assert FAULTS.keys() | {rule for _, _, rule, _ in ELSEWHERE} == RULES.keys()


@pytest.mark.parametrize(
    ("text", "number"), [("1500m", 1.5), ("1Ki", 1024), ("2M", 2_000_000), ("1e3", 1000), ("0.5", 0.5), ("1Gi", 2**30)]
)
def test_quantities_are_numbers(text: str, number: float) -> None:
    assert float(quantity(text)) == number
