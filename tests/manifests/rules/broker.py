"""What RabbitMQ imports at its start is what the code expects of it, and gives nobody more rights than needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from sluice.broker import Topology
from sluice.rabbit.topology import arguments_of
from tests.manifests.rules import rule
from tests.manifests.rules.scaling import topology_of
from tests.manifests.system import System

#: The virtual host, in the definitions and in every address.
VHOST = "sluice"

#: The default exchange, as permissions call it: who may write there may publish to any queue.
DEFAULT_EXCHANGE = "amq.default"

#: What else there is in a virtual host; nobody needs it.
OTHER_NAMES = ("amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.gen-x", "other", "tasksother", "othertasks")

#: Who publishes tasks, and who also takes them. To look for a queue RabbitMQ wants some right on it, whichever it is.
PUBLISHERS = ("add-task", "retry-task", "engine", "sweep")
PEOPLE = "operator"


def _definitions(system: System) -> list[dict[str, Any]]:
    """The files that RabbitMQ imports, but for the users'."""
    found = system.workload("rabbitmq")
    if found is None:
        return []
    maps = [config for config in system.of("ConfigMap") if "definitions.json" in config.get("data", {})]
    return [json.loads(config["data"]["definitions.json"]) for config in maps]


def _users(system: System) -> dict[str, dict[str, Any]]:
    return {user["name"]: user for user in json.loads(system.secrets["rabbitmq"]["users.json"])["users"]}


@rule
def rabbitmq_has_the_queues_before_the_first_engine(system: System) -> Iterator[str]:
    if system.workload("rabbitmq") is None:
        return
    found = _definitions(system)
    if len(found) != 1:
        yield f"RabbitMQ imports {len(found)} files of definitions"
        return
    if [each["name"] for each in found[0].get("vhosts", [])] != [VHOST]:
        yield f"RabbitMQ's virtual hosts are not {VHOST} alone"
    given = {queue["name"]: queue for queue in found[0].get("queues", [])}
    wanted = {queue.name: arguments_of(queue) for queue in topology_of(system).queues}
    for name in sorted(wanted.keys() - given.keys()):
        yield f"RabbitMQ makes no queue {name}"
    for name in sorted(given.keys() - wanted.keys()):
        yield f"RabbitMQ makes a queue {name}, which the code does not know"
    for name in sorted(wanted.keys() & given.keys()):
        queue = given[name]
        if queue["arguments"] != wanted[name]:
            yield f"RabbitMQ makes {name} with {queue['arguments']}, and the code with {wanted[name]}"
        if (queue["vhost"], queue["durable"], queue["auto_delete"]) != (VHOST, True, False):
            yield f"RabbitMQ's {name} is not a durable queue of {VHOST}"
    for section in ("users", "exchanges", "bindings", "policies", "parameters", "topic_permissions"):
        if found[0].get(section):
            yield f"RabbitMQ imports {section}, which nobody needs"


@rule
def nobody_declares_what_rabbitmq_was_given(system: System) -> Iterator[str]:
    """Queues that are made with the wrong arguments would stay so; and to make them takes the right to configure."""
    for name in PUBLISHERS:
        if system.workload(name) is not None and system.settings(name).declare_queues:
            yield f"{name} declares the queues itself"


@rule
def each_user_of_rabbitmq_has_the_least_rights(system: System) -> Iterator[str]:
    found = _definitions(system)
    if not found:
        return
    users, rows = _users(system), {row["user"]: row for row in found[0].get("permissions", [])}
    if len(rows) != len(found[0].get("permissions", [])):
        yield "a user of RabbitMQ has rights twice"
    for name in sorted(rows.keys() ^ users.keys()):
        yield f"RabbitMQ's user {name} has {'no rights' if name in users else 'rights, and nobody makes it'}"
    topology = topology_of(system)
    for name in sorted(rows.keys() & users.keys() - {PEOPLE}):
        row, wanted, looked_for = rows[name], _rights(name, topology), _looked_for(name, topology)
        if row["vhost"] != VHOST:
            yield f"RabbitMQ's user {name} has rights on {row['vhost']}"
        tags = {"keda": ["management"]}.get(name, [])
        if users[name]["tags"] != tags:
            yield f"RabbitMQ's user {name} has the tags {users[name]['tags']}, not {tags}"
        for right, (least, most) in wanted.items():
            given = _taken(row[right], topology)
            for each in sorted(given - most):
                yield f"RabbitMQ's user {name} may {right} {each}"
            for each in sorted(least - given):
                yield f"RabbitMQ's user {name} may not {right} {each}"
        for each in sorted(looked_for - set().union(*(_taken(row[right], topology) for right in wanted))):
            yield f"RabbitMQ's user {name} may not even look for {each}"
    if "administrator" in users.get(PEOPLE, {}).get("tags", []) or "guest" in users:
        yield "RabbitMQ has an administrator"


def _taken(pattern: str, topology: Topology) -> set[str]:
    """The names that a permission's expression takes: RabbitMQ searches, it does not match the whole."""
    names = [*(queue.name for queue in topology.queues), DEFAULT_EXCHANGE, *OTHER_NAMES]
    return {name for name in names if pattern and re.search(pattern, name)}


def _rights(name: str, topology: Topology) -> dict[str, tuple[set[str], set[str]]]:
    """The least and the most that a user may have of each right."""
    queues = {queue.name for queue in topology.queues}
    nothing: tuple[set[str], set[str]] = (set(), set())
    if name == "keda":
        return {"configure": nothing, "write": nothing, "read": (set(), _looked_for(name, topology))}
    consumed = {topology.tasks.name, topology.dead.name} if name == "engine" else set()
    return {
        "configure": nothing,
        "write": ({DEFAULT_EXCHANGE}, {DEFAULT_EXCHANGE} | queues),
        "read": (consumed, consumed),
    }


def _looked_for(name: str, topology: Topology) -> set[str]:
    """The queues on which a user needs a right, whichever it is, to see them."""
    return {topology.tasks.name, topology.dead.name} if name == "keda" else {queue.name for queue in topology.queues}


@rule
def the_addresses_in_the_secrets_lead_to_the_stores(system: System) -> Iterator[str]:
    """Of stores in the same cluster: to a Service, on a port of it, as the user whom the Secret is named after."""
    for secret, values in system.secrets.items():
        for key, value in values.items():
            if key not in ("MONGODB_URI", "RABBITMQ_URL") and (secret, key) not in (("keda", "amqp"), ("keda", "http")):
                continue
            url, store = urlsplit(value), "mongodb" if key == "MONGODB_URI" else "rabbitmq"
            if store == "rabbitmq" and url.path != f"/{VHOST}":
                yield f"{key} of Secret/{secret} is for the virtual host {url.path[1:]!r}"
            if (url.username is None) != (secret == "keda") or (url.username or "keda") != secret:
                yield f"{key} of Secret/{secret} is for the user {url.username}"
            if system.workload(store) is None:
                if url.scheme not in ("mongodb+srv", "amqps", "https"):
                    yield f"{key} of Secret/{secret} goes to another house without TLS"
                continue
            service = system.named("Service", store)
            hosts = {"mongodb": ["mongodb-0.mongodb"], "rabbitmq": ["rabbitmq"]}[store]
            hosts = ["rabbitmq.sluice.svc"] if secret == "keda" else hosts
            ports = {port["port"] for port in service["spec"]["ports"]} if service else set()
            if url.hostname not in hosts or url.port not in ports:
                yield f"{key} of Secret/{secret} leads to {url.hostname}:{url.port}"


@rule
def rabbitmq_tells_keda_in_time(system: System) -> Iterator[str]:
    """KEDA asks the management API, which is up to ten seconds late unless it is told to count each second."""
    if system.workload("rabbitmq") is None:
        return
    files = {key: text for config in system.of("ConfigMap") for key, text in config.get("data", {}).items()}
    lines = dict(
        re.split(r"\s*=\s*", line, maxsplit=1)
        for line in files.get("rabbitmq.conf", "").splitlines()
        if "=" in line and not line.startswith("#")
    )
    for key, value in {
        "collect_statistics_interval": "1000",
        "management.sample_retention_policies.global.minute": "1",
        "management.sample_retention_policies.basic.minute": "1",
        "management.sample_retention_policies.detailed.10": "1",
    }.items():
        if lines.get(key) != value:
            yield f"RabbitMQ's {key} is {lines.get(key)}, not {value}"
    if not re.search(r"\{quorum_tick_interval,\s*1000\}", files.get("advanced.config", "")):
        yield "RabbitMQ's quorum_tick_interval is not 1000"
    plugins = set(re.findall(r"\w+", files.get("enabled_plugins", "")))
    if plugins != {"rabbitmq_management", "rabbitmq_prometheus"}:
        yield f"RabbitMQ's plugins are {', '.join(sorted(plugins))}"
    if lines.get("default_user") or lines.get("default_pass") or lines.get("loopback_users") == "none":
        yield "RabbitMQ starts with a password that everybody knows"
