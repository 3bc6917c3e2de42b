"""The NetworkPolicies allow exactly the arrows of the picture, which are written down once more, here.

What they allow is computed as https://kubernetes.io/docs/concepts/services-networking/network-policies/ says: a pod
that no policy of a direction selects is open in that direction; otherwise what any of them allows is allowed. A
connection needs the policies of both of its ends.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.manifests.rules import rule
from tests.manifests.system import FUNCTIONS, System, matches

NAMESPACE = "kubernetes.io/metadata.name"
NAME = "app.kubernetes.io/name"


#: A pod in our namespace that is none of ours.
STRANGER = "a stranger among us"


@dataclass(frozen=True)
class End:
    """One end of a connection: pods that are alike, or an address outside of the cluster (then without a namespace)."""

    name: str
    address: str
    namespace: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        return self.namespace == "sluice"


#: Who and what there is beside our own pods; most of it to show that nothing leads to it or from it.
OTHERS = [
    End("traefik", "10.1.0.1", "traefik", {NAME: "traefik"}),
    End("keda", "10.1.0.2", "keda", {"app": "keda-operator", NAME: "keda-operator"}),
    End("prometheus", "10.1.0.3", "monitoring", {NAME: "prometheus"}),
    End("gateway", "10.1.0.4", "gateway", {NAME: "envoy"}),
    End("dns", "10.1.0.5", "kube-system", {"k8s-app": "kube-dns"}),
    End("dns on the node", "169.254.20.10"),
    End("the address beside it", "169.254.20.11"),
    End("a pod of another namespace", "10.1.0.6", "default", {NAME: "engine", "app.kubernetes.io/part-of": "sluice"}),
    End(STRANGER, "10.1.0.7", "sluice", {"app": "stranger"}),
    End("the internet", "93.184.216.34"),
    End("the newer internet", "2606:4700::1111"),
    End("a rented rabbitmq", "192.0.2.10"),
    End("a rented mongodb", "198.51.100.10"),
    End("a machine nearby", "10.200.0.1"),
    End("another machine nearby", "172.20.0.1"),
    End("a machine at home", "192.168.0.1"),
    End("a machine nearby by IPv6", "fd00::1"),
    End("the cloud's metadata", "169.254.169.254"),
]

PUBLIC = ("the internet", "the newer internet", "a rented rabbitmq", "a rented mongodb")

WITH_QUEUE = ("add-task", "retry-task", "engine", "sweep")
WITH_DATABASE = (*FUNCTIONS, "engine", "sweep")


def picture(system: System) -> list[tuple[Iterable[str], Iterable[str], tuple[str, ...]]]:
    """The arrows: who calls whom, on which ports. Where a store or the model is not among us it is outside."""
    ours = {workload.name for workload in system.workloads} | {STRANGER}
    routes = [parent for route in system.of("HTTPRoute") for parent in route["spec"]["parentRefs"]]
    door = {parent.get("namespace", "sluice") for parent in routes} or {"traefik"}
    if system.of("InterceptorRoute"):  # of KEDA's HTTP add-on, which lives where KEDA does, and stands between
        door = {"keda"}
    queue = ("rabbitmq", "TCP 5672") if "rabbitmq" in ours else ("a rented rabbitmq", "TCP 5671")
    model = (("offline-model",), "TCP 8080") if "offline-model" in ours else (PUBLIC, "TCP 443")
    return [
        (door, (*FUNCTIONS, "web"), ("TCP 8080",)),
        (WITH_DATABASE, ["mongodb" if "mongodb" in ours else "a rented mongodb"], ("TCP 27017",)),
        (WITH_QUEUE, [queue[0]], (queue[1],)),
        (["engine"], model[0], (model[1],)),
        (["keda"], {"rabbitmq"} & ours, ("TCP 5672", "TCP 15672")),
        (["prometheus"], (*FUNCTIONS, "engine"), ("TCP 8080",)),
        (["prometheus"], {"rabbitmq"} & ours, ("TCP 15692",)),
        (ours, ["dns", "dns on the node"], ("TCP 53", "UDP 53")),
    ]


def arrows(system: System) -> set[tuple[str, str, str]]:
    """The same, each arrow by itself, as `allowed` gives them."""
    return {
        (source, target, port)
        for sources, targets, ports in picture(system)
        for source in sources
        for target in targets
        for port in ports
    }


#: Ports that are tried beside those that pods have and policies name.
PORTS = {1, 22, 53, 80, 443, 5671, 5672, 6379, 6443, 8080, 9090, 10250, 15672, 15692, 27017, 65535}


def allowed(system: System, direction: str) -> set[tuple[str, str, str]]:
    """What the policies allow from ("Egress") or to ("Ingress") our pods, as arrows: (from, to, "TCP 8080").

    Each end is looked at by itself: a policy that is too wide does harm as soon as its counterpart is, too."""
    policies = system.of("NetworkPolicy")
    ours = [
        End(workload.name, f"10.0.0.{number}", "sluice", workload.labels, workload.ports)
        for number, workload in enumerate(system.workloads, start=1)
    ]
    ends = [*ours, *OTHERS]
    numbers = PORTS | {port for end in ours for port in end.ports.values()} | set(_numbers(policies))
    ways = [(protocol, number) for protocol in ("TCP", "UDP") for number in numbers]
    return {
        (source.name, target.name, f"{way[0]} {way[1]}")
        for source in ends
        for target in ends
        if (source if direction == "Egress" else target).is_ours
        for ports in _ports(policies, *((source, target) if direction == "Egress" else (target, source)), direction)
        for way in ways
        if _is_port(ports, target, way)
    }


def _ports(policies: list[Any], end: End, peer: End, direction: str) -> list[list[dict[str, Any]]]:
    """The ports that the policies of our end open for its peer: a list for each rule; an empty one means all ports."""
    rules, side = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    selecting = [
        policy["spec"]
        for policy in policies
        if direction in policy["spec"].get("policyTypes", ["Ingress"])
        and matches(policy["spec"]["podSelector"], end.labels)
    ]
    if not selecting:
        return [[]]
    return [
        each.get("ports", [])
        for spec in selecting
        for each in spec.get(rules, [])
        if _is_peer(each.get(side, []), peer)
    ]


def _is_peer(peers: list[dict[str, Any]], end: End) -> bool:
    return not peers or any(_is_one(peer, end) for peer in peers)


def _is_one(peer: dict[str, Any], end: End) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return _inside(end, [block["cidr"]]) and not _inside(end, block.get("except", []))
    if end.namespace is None:
        return False
    space = {NAMESPACE: end.namespace}
    if "namespaceSelector" not in peer and not end.is_ours:
        return False
    return matches(peer.get("namespaceSelector", {}), space) and matches(peer.get("podSelector", {}), end.labels)


def _inside(end: End, blocks: Iterable[str]) -> bool:
    address = ipaddress.ip_address(end.address)
    networks = [ipaddress.ip_network(block) for block in blocks]
    return any(address in network for network in networks if network.version == address.version)


def _is_port(ports: list[dict[str, Any]], target: End, way: tuple[str, int]) -> bool:
    def fits(port: dict[str, Any]) -> bool:
        first = port.get("port")
        if isinstance(first, str):
            first = target.ports.get(first, 0)
        return port.get("protocol", "TCP") == way[0] and (
            first is None or first <= way[1] <= port.get("endPort", first)
        )

    return not ports or any(fits(port) for port in ports)


def _numbers(policies: list[Any]) -> Iterator[int]:
    for policy in policies:
        for each in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]:
            for port in each.get("ports", []):
                for number in (port.get("port"), port.get("endPort")):
                    if isinstance(number, int):
                        yield from (each for each in (number - 1, number, number + 1) if 0 < each < 65536)


@rule
def the_network_policies_allow_exactly_the_arrows(system: System) -> Iterator[str]:
    ours = {workload.name for workload in system.workloads} | {STRANGER}
    for direction, end in (("Egress", 0), ("Ingress", 1)):
        wanted = {arrow for arrow in arrows(system) if arrow[end] in ours}
        found = allowed(system, direction)
        for source, target, port in sorted(found - wanted):
            yield f"the policies of {(source, target)[end]} allow {source} → {target} on {port}, which is no arrow"
        for source, target, port in sorted(wanted - found):
            yield f"the policies of {(source, target)[end]} do not allow {source} → {target} on {port}"


@rule
def every_network_policy_is_for_somebody(system: System) -> Iterator[str]:
    for policy in system.of("NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        if not system.selected(spec["podSelector"]):
            yield f"NetworkPolicy/{name} is for nobody"
        if "policyTypes" not in spec:
            yield f"NetworkPolicy/{name} does not say for which direction it is"
        for direction in ("ingress", "egress"):
            if direction in spec and direction.capitalize() not in spec.get("policyTypes", []):
                yield f"NetworkPolicy/{name} has rules for {direction} that do not count"
