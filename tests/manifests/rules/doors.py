"""What is called from outside leads to who answers it, and commands, ports and probes are those that the code has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from tests.manifests.rules import rule
from tests.manifests.system import FUNCTIONS, ROOT, System, image_of

#: Paths of the functions that are for the cluster only.
INTERNAL = ("/healthz", "/readyz", "/metrics")

#: (path type, path, Service)
Route = tuple[str, str, str]


def served(function: str) -> list[str]:
    """The paths that a function serves for callers, as its source says: "/tasks/get/<task_id>"."""
    source = (ROOT / "functions" / function.replace("-", "_") / "main.py").read_text()
    return re.findall(r'"[A-Z]+ (/[^"]*)":', source)


def probed(name: str) -> set[str]:
    """The paths at which a workload of ours answers a probe, as the source says."""
    if name == "web":
        return set(re.findall(r"location = (/\w+) \{", (ROOT / "web" / "nginx.conf").read_text()))
    if name == "engine":
        return set(re.findall(r'path == "(/\w+)"', (ROOT / "functions" / "engine" / "health.py").read_text()))
    if name == "offline-model":
        return set(re.findall(r'"(/[\w/]+)": \{"GET"', (ROOT / "offline_model" / "server.py").read_text()))
    return set(re.findall(r'"GET (/\w+)":', (ROOT / "sluice" / "http.py").read_text()))


@rule
def every_part_of_sluice_is_there(system: System) -> Iterator[str]:
    folders = {path.parent.name.replace("_", "-") for path in (ROOT / "functions").glob("*/main.py")}
    for name in sorted({*folders, "web", "sweep"}):
        if system.workload(name) is None:
            yield f"nothing runs {name}"
    for name in FUNCTIONS:
        if system.named("Service", name) is None:
            yield f"there is no Service/{name}"


@rule
def each_part_runs_its_own_image(system: System) -> Iterator[str]:
    for workload in system.workloads:
        wanted = f"sluice/{ {'sweep': 'engine'}.get(workload.name, workload.name) }"
        images = {image_of(container) for container in workload.containers}
        if workload.is_ours and images != {wanted}:
            yield f"{workload} runs {', '.join(sorted(images))}, not {wanted}"


@rule
def every_command_is_a_module_of_ours(system: System) -> Iterator[str]:
    for workload in system.workloads:
        for container in workload.all_containers:
            words = [*container.get("command", []), *container.get("args", [])]
            if not image_of(container).startswith("sluice/"):
                continue
            for flag, module in pairwise(words):
                path = ROOT.joinpath(*module.split("."))
                if flag == "-m" and not (path.with_suffix(".py").exists() or (path / "__main__.py").exists()):
                    yield f"{workload} runs {module}, which is no module"
            if words and "-m" not in words:
                yield f"{workload} runs {' '.join(words)}, which is no module of ours"
    sweep = system.workload("sweep")
    if sweep is not None and [*sweep.containers[0].get("command", [])][-1:] != ["functions.engine.sweep"]:
        yield f"{sweep} does not sweep"


@rule
def every_port_is_the_one_that_the_process_listens_on(system: System) -> Iterator[str]:
    for workload in system.workloads:
        if not workload.is_ours or workload.ends:
            continue
        for container in workload.containers:
            port = system.settings(workload.name).port
            ports = [(each.get("name"), each["containerPort"]) for each in container.get("ports", [])]
            if ports != [("http", port)]:
                yield f"{workload}: {container['name']} does not name http, and nothing else, its port {port}"


@rule
def every_probe_asks_for_a_path_that_is_served(system: System) -> Iterator[str]:
    for workload in system.workloads:
        if not workload.is_ours or workload.ends:
            continue
        paths = probed(workload.name)
        for container in workload.containers:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container.get(probe, {}).get("httpGet", {}).get("path")
                best = "/readyz" if probe == "readinessProbe" else "/healthz"
                wanted = {best} if best in paths else paths - {"/metrics"}
                if probe in container and path not in wanted:
                    yield f"{workload}: its {probe} asks for {path}, not for {' or '.join(sorted(wanted))}"


@rule
def what_is_outside_is_what_the_functions_serve(system: System) -> Iterator[str]:
    ways = {f"{way['kind']}/{way['metadata']['name']}": list(routes_of(way)) for way in ways_in(system)}
    if interceptor := [route for found in system.of("InterceptorRoute") for route in _intercepted(found)]:
        yield from (
            f"{name} leads past the interceptor" for name, routes in ways.items() if _paths(routes) != {("Prefix", "/")}
        )
        ways = {"the interceptor": interceptor}
    if len(ways) != 1:
        yield f"{len(ways)} ways lead in from outside"
    for name, routes in ways.items():
        for function in FUNCTIONS:
            for path in served(function):
                for each in (path, re.sub(r"<\w+>", "0123456789abcdef", path)):
                    if target(routes, each) != function:
                        yield f"{name} leads {each} to {target(routes, each)}, not to {function}"
        for path in ("/", "/index.html", "/assets/page.js", "/tasks", "/tasks/added", *INTERNAL):
            if target(routes, path) != "web":
                yield f"{name} leads {path} to {target(routes, path)}, not to the page"
        for _, path, service in routes:
            if system.named("Service", service) is None:
                yield f"{name} leads {path} to Service/{service}, which is not there"
            if service in FUNCTIONS and not any(PurePosixPath(each).is_relative_to(path) for each in served(service)):
                yield f"{name} leads {path} to {service}, which does not serve it"


@rule
def the_way_in_needs_no_special_controller(system: System) -> Iterator[str]:
    for way in ways_in(system):
        name = f"{way['kind']}/{way['metadata']['name']}"
        if way["metadata"].get("annotations"):
            yield f"{name} has annotations, which mean something to one controller only"
        for each in way["spec"].get("rules", []):
            if each.get("filters"):
                yield f"{name} changes requests on their way"
            for path in each.get("http", {}).get("paths", []):
                if path["pathType"] == "ImplementationSpecific":
                    yield f"{name} leaves the meaning of {path.get('path')} to the controller"
                port = path["backend"]["service"]["port"]
                service = system.named("Service", path["backend"]["service"]["name"])
                if service and port.get("name") not in {given.get("name") for given in service["spec"]["ports"]}:
                    yield f"{name} leads to the port {port} of {service['metadata']['name']}, which has no such name"
            for backend in each.get("backendRefs", []):
                service = system.named("Service", backend["name"])
                if service and backend.get("port") not in {given["port"] for given in service["spec"]["ports"]}:
                    yield f"{name} leads to the port {backend.get('port')} of {backend['name']}, which it does not have"


def ways_in(system: System) -> list[dict[str, Any]]:
    return [*system.of("Ingress"), *system.of("HTTPRoute")]


def _paths(routes: list[Route]) -> set[tuple[str, str]]:
    return {(kind, path) for kind, path, _ in routes}


def _intercepted(found: dict[str, Any]) -> Iterator[Route]:
    for each in found["spec"]["rules"]:
        for path in each["paths"]:
            yield "Prefix", path["value"], found["spec"]["target"]["service"]


def routes_of(way: dict[str, Any]) -> Iterator[Route]:
    for each in way["spec"].get("rules", []):
        for path in each.get("http", {}).get("paths", []):
            yield path["pathType"], path.get("path", "/"), path["backend"]["service"]["name"]
        for match in each.get("matches", [{}]) if way["kind"] == "HTTPRoute" else []:
            path = match.get("path", {})
            kind = {"PathPrefix": "Prefix"}.get(path.get("type", "PathPrefix"), path.get("type"))
            for backend in each.get("backendRefs", []):
                yield kind, path.get("value", "/"), backend["name"]


def target(routes: list[Route], path: str) -> str | None:
    """Who gets a request for a path: an exact match, else the longest prefix, whole segments counted."""
    fitting = [
        (kind == "Exact", len(PurePosixPath(given).parts), service)
        for kind, given, service in routes
        if (path == given if kind == "Exact" else PurePosixPath(path).is_relative_to(given))
    ]
    return max(fitting, default=(False, 0, None), key=lambda each: each[:2])[2]
