"""What a cluster gets from one overlay and keda/ together, and how to find things in it."""

from __future__ import annotations

import copy
import functools
import os
import re
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sluice.settings import Settings
from tests.manifests.kustomize import Object, build

ROOT = Path(__file__).resolve().parents[2]

#: The names of the HTTP functions, in Kubernetes.
FUNCTIONS = ("add-task", "get-tasks", "cancel-task", "retry-task")

#: Kinds without a namespace.
CLUSTER_KINDS = frozenset({"Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", "StorageClass"})


@dataclass(frozen=True)
class Workload:
    """Something that makes pods: its object, and the template of its pods."""

    found: Object
    template: Object

    @property
    def kind(self) -> str:
        return str(self.found["kind"])

    @property
    def name(self) -> str:
        return str(self.found["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its pods."""
        return dict(self.template.get("metadata", {}).get("labels", {}))

    @property
    def pod(self) -> dict[str, Any]:
        return self.template["spec"]  # type: ignore[no-any-return]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Those that run on, without the ones that only prepare."""
        return list(self.pod.get("containers", []))

    @property
    def all_containers(self) -> list[dict[str, Any]]:
        return [*self.pod.get("initContainers", []), *self.containers]

    @property
    def ports(self) -> dict[str, int]:
        """The ports of its containers, by name."""
        return {
            port.get("name", str(port["containerPort"])): port["containerPort"]
            for container in self.containers
            for port in container.get("ports", [])
        }

    @property
    def ends(self) -> bool:
        """Whether its pods do something once, and end."""
        return self.kind in ("Job", "CronJob")

    @property
    def is_ours(self) -> bool:
        """Whether one of the project's own images runs in it."""
        return any(image_of(container).startswith("sluice/") for container in self.containers)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class System:
    """All objects of one installation, which is named after its overlay."""

    overlay: str
    objects: list[Object]
    #: What `make secrets` makes for it: the Secrets' names, their keys, their values.
    secrets: dict[str, dict[str, str]]

    def of(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def named(self, kind: str, name: str) -> Object | None:
        return next((found for found in self.of(kind) if found["metadata"]["name"] == name), None)

    @cached_property
    def workloads(self) -> list[Workload]:
        return [Workload(found, template) for found in self.objects if (template := _template(found)) is not None]

    def workload(self, name: str) -> Workload | None:
        return next((workload for workload in self.workloads if workload.name == name), None)

    def selected(self, selector: dict[str, Any] | None) -> list[Workload]:
        """The workloads whose pods a LabelSelector takes; an empty one takes all, None takes none."""
        return [workload for workload in self.workloads if selector is not None and matches(selector, workload.labels)]

    def settings(self, name: str) -> Settings:
        """The settings that a workload's first container runs with, its Secrets left out."""
        workload = self.workload(name)
        return Settings.load(environment=self.environment(workload.containers[0]) if workload else {})

    def environment(self, container: dict[str, Any]) -> dict[str, str]:
        """The variables of a container whose values stand in the manifests: its own, and those of its ConfigMaps."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                config = self.named("ConfigMap", source["configMapRef"]["name"]) or {}
                found |= {source.get("prefix", "") + key: value for key, value in config.get("data", {}).items()}
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("configMapKeyRef")
            if "value" in variable:
                found[variable["name"]] = variable["value"]
            elif reference:
                config = self.named("ConfigMap", reference["name"]) or {}
                if reference["key"] in config.get("data", {}):
                    found[variable["name"]] = config["data"][reference["key"]]
        return found


def _template(found: Object) -> Object | None:
    if found["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        return found["spec"]["template"]  # type: ignore[no-any-return]
    if found["kind"] == "CronJob":
        return found["spec"]["jobTemplate"]["spec"]["template"]  # type: ignore[no-any-return]
    return None


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a LabelSelector takes something with these labels; an empty one takes everything."""
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _fits(expression, labels) for expression in selector.get("matchExpressions", [])
    )


def _fits(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", [])
    return {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[expression["operator"]]


def handlers(container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The probes of a container, and what is done at its start and its end."""
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            yield container[name]
    yield from container.get("lifecycle", {}).values()


def image_of(container: dict[str, Any]) -> str:
    """A container's image without registry, tag and digest: "sluice/engine", "rabbitmq"."""
    *folders, last = str(container.get("image", "")).split("@")[0].split("/")
    return "/".join([*(folder for folder in folders if not re.search(r"[.:]", folder)), last.split(":")[0]])


def strings(value: Any) -> Iterator[str]:
    """Every text in an object, its keys included."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value


def overlays(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("k8s/overlays/*/kustomization.yaml"))


def spare_components(root: Path) -> list[str]:
    """The components that no overlay has: they are for somebody's own."""
    used = {
        Path(name).name
        for overlay in root.glob("k8s/overlays/*/kustomization.yaml")
        for name in yaml.safe_load(overlay.read_text()).get("components", [])
    }
    return sorted(
        path.parent.name for path in root.glob("k8s/components/*/kustomization.yaml") if path.parent.name not in used
    )


def systems_of(root: Path, component: str | None = None) -> Iterator[System]:
    """What each overlay in a folder makes together with keda/, with one more component if one is named; some components
    have another half in keda/. The folder holds k8s/ and keda/. Raises BuildError."""
    scaling = build(root / "keda")
    if component is not None and (root / "keda" / component).exists():
        scaling += build(root / "keda" / component)
    for overlay in overlays(root):
        if component is None:
            name, found = overlay, build(root / "k8s" / "overlays" / overlay)
        else:
            name, found = f"{overlay} with {component}", _build_with(root.resolve() / "k8s", overlay, component)
        yield System(name, [*found, *copy.deepcopy(scaling)], made_secrets(overlay))


def _build_with(k8s: Path, overlay: str, component: str) -> list[Object]:
    """An overlay with one more component, as somebody's own overlay would have it."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve()
        kustomization = {  # the paths must be relative
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "sluice",
            "labels": [{"pairs": {"app.kubernetes.io/part-of": "sluice"}}],
            "resources": [os.path.relpath(k8s / "overlays" / overlay, here)],
            "components": [os.path.relpath(k8s / "components" / component, here)],
        }
        (here / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return build(here)


@functools.cache
def made_secrets(overlay: str) -> dict[str, dict[str, str]]:
    """The Secrets that `make secrets` makes for an overlay. It is run, and prints them. Raises CalledProcessError."""
    given = {
        "OVERLAY": overlay,
        "PRINT": "1",
        "OPENAI_API_KEY": "a key",
        "MONGODB_URI": "mongodb+srv://{name}:{password}@cluster.example/?authSource=admin&tls=true",
        "RABBITMQ_URL": "amqps://{name}:{password}@rabbitmq.example:5671/sluice",
        "RABBITMQ_HTTP_URL": "https://rabbitmq.example/sluice",
    }
    command = [sys.executable, "-B", str(ROOT / "k8s" / "commands" / "secrets")]
    told = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=True)
    return {
        found["metadata"]["name"]: {key: b64decode(value).decode() for key, value in found["data"].items()}
        for found in yaml.safe_load_all(told.stdout)
    }
