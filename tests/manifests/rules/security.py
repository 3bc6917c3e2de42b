"""What a pod may do to others: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (the restricted
profile, as of Kubernetes 1.37), and what the house asks for beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.manifests.rules import rule
from tests.manifests.system import CLUSTER_KINDS, System, handlers

#: The kinds of volume that the restricted profile allows.
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip

#: Kernel settings that a pod may change.
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
}  # fmt: skip

SELINUX_TYPES = {None, "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}

LEVEL = "pod-security.kubernetes.io/enforce"


@rule
def all_is_in_the_namespace_that_enforces_the_restricted_profile(system: System) -> Iterator[str]:
    namespaces = {found["metadata"]["name"]: found for found in system.of("Namespace")}
    if list(namespaces) != ["sluice"]:
        yield f"the namespaces are {sorted(namespaces)}, not sluice"
        return
    if namespaces["sluice"]["metadata"].get("labels", {}).get(LEVEL) != "restricted":
        yield f"the namespace does not carry {LEVEL}: restricted"
    for found in system.objects:
        given = found["metadata"].get("namespace")
        interceptor = found["kind"] == "Ingress" and system.of("InterceptorRoute") and given == "keda"
        if found["kind"] not in CLUSTER_KINDS and given != "sluice" and not interceptor:
            yield f"{found['kind']}/{found['metadata']['name']} is in the namespace {given}"


@rule
def no_pod_shares_anything_with_its_node(system: System) -> Iterator[str]:
    for workload in system.workloads:
        pod = workload.pod
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(field):
                yield f"{workload} has {field}"
        for volume in pod.get("volumes", []):
            if kinds := set(volume) - {"name"} - VOLUMES:
                yield f"{workload} has a volume of a kind that is not allowed: {', '.join(sorted(kinds))}"
        for container in workload.all_containers:
            for port in container.get("ports", []):
                if port.get("hostPort") or port.get("hostIP"):
                    yield f"{workload}: {container['name']} takes a port of the node"
            for probe in handlers(container):
                for action in ("httpGet", "tcpSocket"):
                    if (probe.get(action) or {}).get("host"):
                        yield f"{workload}: {container['name']} probes another host"


@rule
def no_container_has_privileges(system: System) -> Iterator[str]:
    for workload in system.workloads:
        of_pod = workload.pod.get("securityContext", {})
        yield from (f"{workload}: {fault}" for fault in _faults_of_both(of_pod))
        for sysctl in of_pod.get("sysctls", []):
            if sysctl["name"] not in SYSCTLS:
                yield f"{workload} changes {sysctl['name']}"
        if workload.pod.get("ephemeralContainers"):
            yield f"{workload} brings ephemeral containers"
        for container in workload.all_containers:
            context = container.get("securityContext", {})
            here = f"{workload}: {container['name']}"
            yield from (f"{here} {fault}" for fault in _faults_of_both(context))
            if context.get("privileged"):
                yield f"{here} is privileged"
            if context.get("allowPrivilegeEscalation") is not False:
                yield f"{here} may gain privileges"
            capabilities = context.get("capabilities", {})
            if capabilities.get("drop") != ["ALL"]:
                yield f"{here} does not drop all capabilities"
            if capabilities.get("add"):
                yield f"{here} adds capabilities"
            if context.get("procMount", "Default") != "Default":
                yield f"{here} has another procMount"
            both = {**of_pod, **context}
            if both.get("runAsNonRoot") is not True:
                yield f"{here} may run as root"
            if not both.get("runAsUser"):
                yield f"{here} does not say as which user it runs"
            if both.get("seccompProfile", {}).get("type") != "RuntimeDefault":
                yield f"{here} has no seccomp profile"


def _faults_of_both(context: dict[str, Any]) -> Iterator[str]:
    """What neither a pod's security context may hold nor a container's."""
    for field, allowed in (("runAsNonRoot", {None, True}), ("runAsUser", None), ("runAsGroup", None)):
        value = context.get(field)
        if value not in allowed if allowed else value == 0:
            yield f"has {field}: {value}"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        yield "has no AppArmor profile"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "has SELinux options of its own"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "is a host process"


@rule
def no_container_writes_to_its_image(system: System) -> Iterator[str]:
    for workload in system.workloads:
        for container in workload.all_containers:
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{workload}: {container['name']} may write to its image"


@rule
def every_pod_has_an_account_of_its_own_and_no_token(system: System) -> Iterator[str]:
    for workload in system.workloads:
        account = workload.pod.get("serviceAccountName")
        if account != workload.name:
            yield f"{workload} runs as {account}, not as {workload.name}"
        if system.named("ServiceAccount", workload.name) is None:
            yield f"there is no ServiceAccount/{workload.name}"
        if workload.pod.get("automountServiceAccountToken") is not False:
            yield f"{workload} gets a token for the cluster"
    for account in system.of("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount/{account['metadata']['name']} hands out its token"
        if system.workload(account["metadata"]["name"]) is None:
            yield f"nobody uses ServiceAccount/{account['metadata']['name']}"


@rule
def no_pod_is_told_of_services_through_its_environment(system: System) -> Iterator[str]:
    """The Service `rabbitmq` would put RABBITMQ_PORT=tcp://… before a broker that reads its settings from RABBITMQ_…"""
    for workload in system.workloads:
        if workload.pod.get("enableServiceLinks") is not False:
            yield f"{workload} gets a variable for each Service"


@rule
def nothing_gives_rights_in_the_cluster(system: System) -> Iterator[str]:
    for found in system.objects:
        if found["apiVersion"].startswith("rbac.authorization.k8s.io/"):
            yield f"{found['kind']}/{found['metadata']['name']} gives rights, and nothing here needs any"
