"""The model of NetworkPolicies behaves as Kubernetes documents them; each case is a sentence of its documentation."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.manifests.rules.network import allowed
from tests.manifests.system import System

DENY = {"name": "deny", "podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
TRAEFIK = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "traefik"}}}
NAMED_TRAEFIK = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "traefik"}}}


def system(*policies: dict[str, Any]) -> System:
    """Two Deployments, `page` and `store`, both with a port 8080 called http, and some policies."""
    objects = [
        yaml.safe_load(f"""
            kind: Deployment
            metadata: {{name: {name}}}
            spec:
              template:
                metadata: {{labels: {{app.kubernetes.io/name: {name}}}}}
                spec: {{containers: [{{name: {name}, ports: [{{name: http, containerPort: 8080}}]}}]}}
        """)
        for name in ("page", "store")
    ]
    for policy in policies:
        spec = {key: value for key, value in policy.items() if key != "name"}
        objects.append({"kind": "NetworkPolicy", "metadata": {"name": "policy"}, "spec": spec})
    return System("local", objects, {})


def ways(system: System, direction: str, source: str, target: str) -> set[str]:
    return {port for start, end, port in allowed(system, direction) if (start, end) == (source, target)}


def to_page(*rules: dict[str, Any], **fields: Any) -> System:
    """Everything denied, and one policy for what comes to `page`."""
    page = {"matchLabels": {"app.kubernetes.io/name": "page"}}
    return system(DENY, {"podSelector": page, "policyTypes": ["Ingress"], "ingress": list(rules), **fields})


def test_without_a_policy_everything_is_allowed() -> None:
    assert {"TCP 8080", "UDP 53", "TCP 22"} <= ways(system(), "Ingress", "the internet", "page")
    assert {"TCP 8080", "TCP 443"} <= ways(system(), "Egress", "page", "the internet")


def test_a_pod_that_is_selected_gets_nothing_but_what_a_rule_allows() -> None:
    assert allowed(system(DENY), "Ingress") == allowed(system(DENY), "Egress") == set()


def test_a_policy_counts_only_for_its_directions() -> None:
    only_in = system({**DENY, "policyTypes": ["Ingress"]})
    assert not allowed(only_in, "Ingress")
    assert ways(only_in, "Egress", "page", "the internet")


def test_a_policy_counts_only_for_the_pods_that_it_selects() -> None:
    only_page = system({**DENY, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "page"}}})
    assert not ways(only_page, "Ingress", "store", "page")
    assert ways(only_page, "Ingress", "page", "store")


def test_policies_add_up() -> None:
    assert ways(to_page({"from": [TRAEFIK]}), "Ingress", "traefik", "page")
    assert not ways(to_page({"from": [TRAEFIK]}), "Ingress", "keda", "page")


def test_an_empty_rule_allows_all_and_no_rule_allows_nothing() -> None:
    assert ways(to_page({}), "Ingress", "the internet", "page")
    assert not ways(to_page(), "Ingress", "the internet", "page")


def test_two_selectors_in_one_item_must_both_fit_and_in_two_items_one_of_them() -> None:
    both = to_page({"from": [{**TRAEFIK, **NAMED_TRAEFIK}]})
    either = to_page({"from": [TRAEFIK, NAMED_TRAEFIK]})
    assert ways(both, "Ingress", "traefik", "page")
    assert ways(either, "Ingress", "traefik", "page")
    other = {**TRAEFIK, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "envoy"}}}
    assert not ways(to_page({"from": [other]}), "Ingress", "traefik", "page")


def test_a_selector_of_pods_alone_means_those_of_the_same_namespace() -> None:
    assert not ways(to_page({"from": [NAMED_TRAEFIK]}), "Ingress", "traefik", "page")
    everybody = to_page({"from": [{"podSelector": {}}]})
    assert ways(everybody, "Ingress", "store", "page")
    assert ways(everybody, "Ingress", "a stranger among us", "page")
    assert not ways(everybody, "Ingress", "keda", "page")
    every_namespace = to_page({"from": [{"namespaceSelector": {}}]})
    assert ways(every_namespace, "Ingress", "keda", "page")
    assert not ways(every_namespace, "Ingress", "the internet", "page")


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([{"port": "http"}], {"TCP 8080"}),
        ([{"port": 8080}], {"TCP 8080"}),
        ([{"port": 8080, "protocol": "UDP"}], {"UDP 8080"}),
        ([{"port": "https"}], set()),
        ([{"port": 53}, {"port": 80}], {"TCP 53", "TCP 80"}),
        ([{"port": 79, "endPort": 81}], {"TCP 79", "TCP 80", "TCP 81"}),
    ],
)
def test_a_rule_with_ports_allows_only_those(ports: list[dict[str, Any]], expected: set[str]) -> None:
    given = ways(to_page({"ports": ports}), "Ingress", "the internet", "page")
    assert (
        given & {"TCP 53", "UDP 53", "TCP 78", "TCP 79", "TCP 80", "TCP 81", "TCP 82", "TCP 8080", "UDP 8080"}
        == expected
    )


def test_a_block_of_addresses_takes_pods_too_but_for_its_exceptions() -> None:
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.168.0.0/16"]}}
    out = system({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [block], "ports": [{"port": 443}]}]})
    assert ways(out, "Egress", "page", "the internet") == {"TCP 443"}
    assert ways(out, "Egress", "page", "another machine nearby") == {"TCP 443"}
    assert not ways(out, "Egress", "page", "a machine at home")
    assert not ways(out, "Egress", "page", "keda")
    assert not ways(out, "Egress", "page", "the newer internet")


def test_expressions_select_as_labels_do() -> None:
    expression = {
        "matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": ["store", "other"]}]
    }
    assert ways(to_page({"from": [{"podSelector": expression}]}), "Ingress", "store", "page")
    expression["matchExpressions"][0]["operator"] = "NotIn"
    assert not ways(to_page({"from": [{"podSelector": expression}]}), "Ingress", "store", "page")
    assert ways(to_page({"from": [{"podSelector": expression}]}), "Ingress", "a stranger among us", "page")
