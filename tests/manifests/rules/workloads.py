"""How the pods of a workload come, go, and are replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.manifests.rules import rule
from tests.manifests.system import FUNCTIONS, ROOT, System, Workload

#: How many old ReplicaSets are worth keeping for a roll-back.
MAX_REVISIONS = 10

#: Seconds between the end of the longest work and the kill: for the last acknowledgement, and to say goodbye.
GRACE_MARGIN_SECONDS = 5

#: Seconds until no proxy sends to a pod any more that is told to stop.
MIN_PAUSE_SECONDS = 5


@rule
def pods_of_one_kind_spread_over_nodes(system: System) -> Iterator[str]:
    for workload in system.workloads:
        if workload.kind != "Deployment" or is_single(workload):
            continue
        spreads = workload.pod.get("topologySpreadConstraints", [])
        if "kubernetes.io/hostname" not in {spread["topologyKey"] for spread in spreads}:
            yield f"{workload} does not spread over nodes"
        for spread in spreads:
            if system.selected(spread.get("labelSelector")) != [workload]:
                yield f"{workload} spreads against other pods than its own"
            if spread["whenUnsatisfiable"] != "ScheduleAnyway":
                yield f"{workload} would rather not run than run together on one node"


@rule
def an_update_takes_no_pod_away_before_the_next_is_ready(system: System) -> Iterator[str]:
    for workload in system.workloads:
        if workload.kind != "Deployment":
            continue
        strategy = workload.found["spec"].get("strategy", {})
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            yield f"{workload} is stopped before its update starts"
        elif str(strategy.get("rollingUpdate", {}).get("maxUnavailable")) not in ("0", "0%"):
            yield f"{workload} may have no pod during an update: its maxUnavailable is not 0"


@rule
def a_store_keeps_its_data(system: System) -> Iterator[str]:
    for workload in system.workloads:
        if workload.kind != "StatefulSet":
            continue
        spec = workload.found["spec"]
        claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for container in workload.containers for mount in container.get("volumeMounts", [])}
        if not claims & mounted:
            yield f"{workload} keeps its data in no volume of its own"
        if "Delete" in spec.get("persistentVolumeClaimRetentionPolicy", {}).values():
            yield f"{workload} loses its volume when it is taken away"
        if spec.get("replicas", 1) != 1:
            yield f"{workload} has several pods, which do not know of each other"


@rule
def one_sweep_ends_before_the_next(system: System) -> Iterator[str]:
    for found in system.of("CronJob"):
        name, job = f"CronJob/{found['metadata']['name']}", found["spec"]["jobTemplate"]["spec"]
        if found["spec"].get("concurrencyPolicy") != "Forbid":
            yield f"{name} may run twice at once"
        if found["spec"]["schedule"] != "* * * * *" or found["spec"].get("suspend"):
            yield f"{name} does not run each minute"
        if not 0 < job.get("activeDeadlineSeconds", 0) < 60:
            yield f"{name} has a round that may outlast its minute"
        if job.get("backoffLimit", 6) != 0:
            yield f"{name} tries a failed round again, beside the next"
        if found["spec"].get("startingDeadlineSeconds", 0) < 10:
            yield f"{name} is given up for good after a hundred missed rounds, or never starts"


@rule
def old_revisions_are_few_and_a_roll_back_is_possible(system: System) -> Iterator[str]:
    for workload in system.workloads:
        if workload.kind not in ("Deployment", "StatefulSet"):
            continue
        kept = workload.found["spec"].get("revisionHistoryLimit")
        if not kept or kept > MAX_REVISIONS:
            yield f"{workload} keeps {kept} old revisions"


@rule
def no_budget_blocks_a_drain(system: System) -> Iterator[str]:
    for budget in system.of("PodDisruptionBudget"):
        name, spec = budget["metadata"]["name"], budget["spec"]
        taken = system.selected(spec.get("selector"))
        if len(taken) != 1:
            yield f"PodDisruptionBudget/{name} is for {', '.join(map(str, taken)) or 'nobody'}"
            continue
        if "minAvailable" in spec or str(spec.get("maxUnavailable", "0")) in ("0", "0%"):
            yield f"PodDisruptionBudget/{name} can block the draining of a node; maxUnavailable: 1 can't"
        if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"PodDisruptionBudget/{name} keeps a pod on a node that was never ready"
    for workload in system.workloads:
        if workload.kind != "Deployment" or is_single(workload) or workload.name in owned_by_keda(system):
            continue
        if not any(
            system.selected(found["spec"].get("selector")) == [workload] for found in system.of("PodDisruptionBudget")
        ):
            yield f"{workload} has no PodDisruptionBudget"


@rule
def nobody_is_killed_at_work(system: System) -> Iterator[str]:
    """The grace period is longer than what the process takes to end, and HTTP pods wait until no proxy calls them."""
    settings = system.settings("engine")
    if (engine := system.workload("engine")) is not None:
        grace = engine.pod.get("terminationGracePeriodSeconds", 30)
        for name in ("engine_grace_seconds", "attempt_timeout_seconds"):
            if grace < getattr(settings, name) + GRACE_MARGIN_SECONDS:
                yield f"{engine} is killed after {grace} s, and {name.upper()} is {getattr(settings, name):g}"
    gunicorn = re.search(r"^graceful_timeout = (\d+)$", (ROOT / "functions/gunicorn.conf.py").read_text(), re.MULTILINE)
    for workload in system.workloads:
        if workload.name not in (*FUNCTIONS, "web"):
            continue
        grace = workload.pod.get("terminationGracePeriodSeconds", 30)
        for container in workload.containers:
            pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            if pause < MIN_PAUSE_SECONDS:
                yield f"{workload}: {container['name']} ends while proxies still send to it: it has no preStop sleep"
            needed = pause + (int(gunicorn[1]) if gunicorn and workload.name != "web" else 0) + GRACE_MARGIN_SECONDS
            if grace < needed:
                yield f"{workload} needs {needed} s to end, and gets {grace}"


@rule
def what_an_autoscaler_owns_is_left_to_it(system: System) -> Iterator[str]:
    for name in owned_by_keda(system):
        workload = system.workload(name)
        if workload is not None and "replicas" in workload.found["spec"]:
            yield f"{workload} sets replicas, which KEDA sets too: each deploy would undo the other"
    for found in system.of("HorizontalPodAutoscaler"):
        name, target = found["metadata"]["name"], found["spec"]["scaleTargetRef"]["name"]
        workload = system.workload(target)
        if target in owned_by_keda(system):
            yield f"HorizontalPodAutoscaler/{name} scales {target}, and so does KEDA's"
        if workload is None or workload.kind != "Deployment":
            yield f"HorizontalPodAutoscaler/{name} scales {target}, which is not there"
        elif "replicas" in workload.found["spec"]:
            yield f"{workload} sets replicas, which an autoscaler sets too: each deploy would undo the other"


@rule
def production_outlives_a_pod(system: System) -> Iterator[str]:
    if not system.overlay.startswith("production"):
        return
    autoscaled = {
        found["spec"]["scaleTargetRef"]["name"]: found["spec"].get("minReplicas", 1)
        for found in system.of("HorizontalPodAutoscaler")
    }
    for found in system.of("Deployment"):
        name = found["metadata"]["name"]
        count = autoscaled.get(name, found["spec"].get("replicas", 1))
        if name not in owned_by_keda(system) and count < 2:
            yield f"Deployment/{name} is down whenever its one pod is"
    for found in system.of("StatefulSet"):
        yield f"StatefulSet/{found['metadata']['name']} is a store with one pod"


@rule
def production_speaks_tls(system: System) -> Iterator[str]:
    """But for the Ingress of KEDA's HTTP add-on, in KEDA's namespace: it is the same for all overlays, and who installs
    it gives it a host and a certificate."""
    if not system.overlay.startswith("production"):
        return
    for found in system.of("Ingress"):
        if found["metadata"]["namespace"] != "sluice":
            continue
        protected = {host for tls in found["spec"].get("tls", []) for host in tls.get("hosts", [])}
        for each in found["spec"]["rules"]:
            if each.get("host") not in protected:
                yield f"Ingress/{found['metadata']['name']} has no certificate for {each.get('host')}"


def owned_by_keda(system: System) -> set[str]:
    """The names of the Deployments whose replicas KEDA sets."""
    return {found["spec"]["scaleTargetRef"]["name"] for found in system.of("ScaledObject")}


def is_single(workload: Workload) -> bool:
    """Whether it is meant to have one pod, whoever installs it: nobody here tells it to an overlay."""
    return workload.name == "offline-model"
