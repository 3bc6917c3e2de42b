"""What every object and every pod must look like: names, labels, images, resources, probes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from tests.manifests.rules import rule
from tests.manifests.schema import QUANTITY
from tests.manifests.system import System, handlers, image_of

UNITS = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(10) ** 3,
    **{unit: Decimal(10) ** (3 * power) for power, unit in enumerate("MGTPE", start=2)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}  # fmt: skip


def quantity(text: Any) -> Decimal:
    """A quantity as a number: "1500m" is 1.5, "1Ki" is 1024. Raises ValueError."""
    found = re.fullmatch(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)([a-zA-Z]*)", str(text))
    if found is None or not QUANTITY.fullmatch(str(text)):
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(found[1]) * UNITS[found[2]]


@rule
def no_two_objects_have_the_same_name(system: System) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for found in system.objects:
        key = (found["kind"], found["metadata"]["name"])
        if key in seen:
            yield f"{key[0]}/{key[1]} is there twice"
        seen.add(key)


@rule
def everything_carries_the_labels_of_the_house(system: System) -> Iterator[str]:
    for found in system.objects:
        labels = found["metadata"].get("labels", {})
        name = f"{found['kind']}/{found['metadata']['name']}"
        if labels.get("app.kubernetes.io/part-of") != "sluice":
            yield f"{name} is not labelled as a part of sluice"
    for workload in system.workloads:
        wanted = {"app.kubernetes.io/name": workload.name, "app.kubernetes.io/part-of": "sluice"}
        for key, value in wanted.items():
            if workload.labels.get(key) != value:
                yield f"the pods of {workload} do not carry {key}: {value}"
        if not workload.labels.get("app.kubernetes.io/component"):
            yield f"the pods of {workload} do not say which component they are"


@rule
def every_selector_takes_the_pods_it_means(system: System) -> Iterator[str]:
    for workload in system.workloads:
        if workload.ends:
            continue
        taken = system.selected(workload.found["spec"].get("selector"))
        if taken != [workload]:
            yield f"{workload} selects the pods of {', '.join(map(str, taken)) or 'nobody'}"
    for service in system.of("Service"):
        name = service["metadata"]["name"]
        selector = service["spec"].get("selector")
        taken = system.selected({"matchLabels": selector} if selector else None)
        if service["spec"].get("type") == "ExternalName":
            continue
        if len(taken) != 1:
            yield f"Service/{name} selects the pods of {', '.join(map(str, taken)) or 'nobody'}"
            continue
        if not name.startswith(taken[0].name):
            yield f"Service/{name} selects the pods of {taken[0]}"
        for port in service["spec"]["ports"]:
            if port.get("targetPort") not in taken[0].ports:
                yield f"Service/{name} leads to the port {port.get('targetPort')}, which {taken[0]} does not name"
            if not port.get("name"):
                yield f"Service/{name} has a port without a name"
    for workload in system.workloads:
        if workload.kind == "StatefulSet" and system.named("Service", workload.found["spec"]["serviceName"]) is None:
            yield f"{workload} has no Service {workload.found['spec']['serviceName']}"


@rule
def no_service_is_open_to_the_world(system: System) -> Iterator[str]:
    for service in system.of("Service"):
        if service["spec"].get("type", "ClusterIP") != "ClusterIP" or service["spec"].get("externalIPs"):
            yield f"Service/{service['metadata']['name']} is {service['spec'].get('type')}; only the ingress is outside"


@rule
def every_image_is_pinned(system: System) -> Iterator[str]:
    for workload in system.workloads:
        for container in workload.all_containers:
            image = str(container.get("image", ""))
            tag = image.split("@")[0].rpartition("/")[2].partition(":")[2]
            ours = image_of(container).startswith("sluice/") and system.overlay.startswith("local") and tag == "local"
            if not ours and not re.match(r"\d+\.\d+\.\d+", tag):
                yield f"{workload}: {container['name']} has no version in its image {image!r}"
            if container.get("imagePullPolicy") == "Always":
                yield f"{workload}: {container['name']} is pulled at each start"
    for image in {image_of(container) for workload in system.workloads for container in workload.all_containers}:
        tags = {
            str(container["image"])
            for workload in system.workloads
            for container in workload.all_containers
            if image_of(container) == image
        }
        if len(tags) > 1:
            yield f"{image} is there in two versions: {', '.join(sorted(tags))}"


@rule
def every_container_asks_for_what_it_needs_and_has_an_end(system: System) -> Iterator[str]:
    for workload in system.workloads:
        for container in workload.all_containers:
            here = f"{workload}: {container['name']}"
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            for field, given in (("requests", requests), ("limits", limits)):
                for what in ("cpu", "memory"):
                    if what not in given and (field, what) != ("limits", "cpu"):
                        yield f"{here} has no {field} of {what}"
            for what in requests.keys() & limits.keys():
                if quantity(requests[what]) > quantity(limits[what]):
                    yield f"{here} asks for more {what} than it may have"
            if not Decimal("0.001") <= quantity(requests.get("cpu", "1m")) <= 4:
                yield f"{here} asks for {requests['cpu']} of a processor"
            if not 8 * 1024**2 <= quantity(limits.get("memory", "8Mi")) <= 8 * 1024**3:
                yield f"{here} may have {limits['memory']} of memory"
        for volume in workload.pod.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{workload}: the volume {volume['name']} may fill the node's disk"


@rule
def every_container_is_probed_on_a_port_that_it_has(system: System) -> Iterator[str]:
    for workload in system.workloads:
        for container in workload.containers:
            here = f"{workload}: {container['name']}"
            names = {port.get("name") for port in container.get("ports", [])}
            for probe in ("livenessProbe", "readinessProbe"):
                if probe not in container and not workload.ends:
                    yield f"{here} has no {probe}"
            for handler in handlers(container):
                for action in ("httpGet", "tcpSocket"):
                    if action in handler and handler[action].get("port") not in names:
                        yield f"{here} is probed on {handler[action].get('port')}, which is no named port of it"
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                if probe in container and not {"httpGet", "tcpSocket", "exec", "grpc"} & set(container[probe]):
                    yield f"{here}: its {probe} does nothing"
            if container.get("livenessProbe", {}).get("failureThreshold", 3) < 3:
                yield f"{here} is restarted after a moment of not answering"
