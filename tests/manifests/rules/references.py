"""What one object says of another is so: Secrets, ConfigMaps, volumes, files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from tests.manifests.rules import rule
from tests.manifests.system import System, Workload, strings

#: A password, a key or a token as people write them: in a URL, or as a word that only a machine would choose.
CREDENTIALS = [
    re.compile(r"[a-z+]+://[^/\s:@{]+:[^/\s@<${]+@"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    re.compile(r"(?i)\b(password|passwd|secret|token|api[_-]?key)\b *[=:] *['\"]?[^\s'\"{}<$,(]{6,}"),
]

#: Volumes that nobody can write to, whatever their mount says.
READ_ONLY = ("configMap", "secret", "projected", "downwardAPI")


@rule
def every_secret_is_one_that_make_secrets_makes(system: System) -> Iterator[str]:
    for workload in system.workloads:
        for name, key, optional in secrets_of(workload):
            if name not in system.secrets:
                yield f"{workload} wants Secret/{name}, which nobody makes"
            elif key is not None and key not in system.secrets[name]:
                yield f"{workload} wants {key} of Secret/{name}, which holds {', '.join(sorted(system.secrets[name]))}"
            if optional and (name, key) != ("model", "OPENAI_API_KEY"):
                yield f"{workload} starts without {key} of Secret/{name}"
    for found in system.of("TriggerAuthentication"):
        for reference in found["spec"].get("secretTargetRef", []):
            if reference["key"] not in system.secrets.get(reference["name"], {}):
                yield (
                    f"TriggerAuthentication/{found['metadata']['name']} wants {reference['key']} of "
                    f"Secret/{reference['name']}, which nobody makes"
                )
    used = {name for workload in system.workloads for name, _, _ in secrets_of(workload)} | {
        reference["name"]
        for found in system.of("TriggerAuthentication")
        for reference in found["spec"].get("secretTargetRef", [])
    }
    for name in sorted(system.secrets.keys() - used):
        yield f"nobody uses Secret/{name}"


@rule
def each_workload_reads_its_own_secret_only(system: System) -> Iterator[str]:
    for workload in system.workloads:
        for name, _, _ in secrets_of(workload):
            if name != workload.name and (workload.name, name) != ("engine", "model"):
                yield f"{workload} reads the Secret of {name}"


@rule
def no_secret_is_in_the_manifests(system: System) -> Iterator[str]:
    for found in system.objects:
        name = f"{found['kind']}/{found['metadata']['name']}"
        if found["kind"] == "Secret":
            yield f"{name} is in the repository"
        for text in strings(found):
            for pattern in CREDENTIALS:
                if pattern.search(text):
                    yield f"{name} holds what looks like a credential: {text[:40]!r}"
        for workload in system.workloads:
            if workload.found is not found:
                continue
            for container in workload.all_containers:
                for variable in container.get("env", []):
                    if re.search(r"PASSWORD|SECRET|TOKEN|API_KEY|COOKIE|_URI$|_URL$", variable["name"]) and (
                        "value" in variable and variable["name"] != "OPENAI_BASE_URL"
                    ):
                        yield f"{name} gives {variable['name']} in clear"


@rule
def every_config_map_is_there_and_is_used(system: System) -> Iterator[str]:
    used = set()
    for workload in system.workloads:
        for name, key, optional in _config_maps_of(workload):
            used.add(name)
            found = system.named("ConfigMap", name)
            if found is None and not optional:
                yield f"{workload} wants ConfigMap/{name}, which is not there"
            elif found is not None and key is not None and key not in found.get("data", {}):
                yield f"{workload} wants {key} of ConfigMap/{name}"
    for found in system.of("ConfigMap"):
        if found["metadata"]["name"] not in used:
            yield f"nobody uses ConfigMap/{found['metadata']['name']}"


@rule
def every_volume_is_mounted_and_every_mount_has_a_place(system: System) -> Iterator[str]:
    for workload in system.workloads:
        claims = workload.found["spec"].get("volumeClaimTemplates", [])
        volumes = {volume["name"]: volume for volume in workload.pod.get("volumes", [])}
        names = volumes.keys() | {claim["metadata"]["name"] for claim in claims}
        mounts = [
            (container, mount) for container in workload.all_containers for mount in container.get("volumeMounts", [])
        ]
        for container, mount in mounts:
            if mount["name"] not in names:
                yield f"{workload}: {container['name']} mounts {mount['name']}, which is no volume"
        for name in names - {mount["name"] for _, mount in mounts}:
            yield f"{workload}: nobody mounts the volume {name}"
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim")
            if claim and system.named("PersistentVolumeClaim", claim["claimName"]) is None:
                yield f"{workload}: there is no PersistentVolumeClaim/{claim['claimName']}"
        for container in workload.all_containers:
            yield from (f"{workload}: {container['name']} {fault}" for fault in _nested(container, volumes))


def _nested(container: dict[str, Any], volumes: dict[str, Any]) -> Iterator[str]:
    """The runtime makes the mount points, and can't where nobody can write."""
    mounts = container.get("volumeMounts", [])
    paths = [mount["mountPath"] for mount in mounts]
    for path in {path for path in paths if paths.count(path) > 1}:
        yield f"mounts two volumes at {path}"
    for outer in mounts:
        volume = volumes.get(outer["name"], {})
        if not outer.get("readOnly") and not any(kind in volume for kind in READ_ONLY):
            continue
        for inner in mounts:
            if PurePosixPath(outer["mountPath"]) in PurePosixPath(inner["mountPath"]).parents:
                yield f"mounts {inner['mountPath']} inside of {outer['mountPath']}, which nobody can write to"


def secrets_of(workload: Workload) -> Iterator[tuple[str, str | None, bool]]:
    """Name, key (None for all of it) and whether it may be missing, of each Secret that a workload refers to."""
    for container in workload.all_containers:
        for source in container.get("envFrom", []):
            if reference := source.get("secretRef"):
                yield reference["name"], None, reference.get("optional", False)
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield reference["name"], reference["key"], reference.get("optional", False)
    for source in _sources(workload):
        if secret := source.get("secret"):
            name, optional = secret.get("secretName", secret.get("name")), secret.get("optional", False)
            yield from ((name, item["key"], optional) for item in secret.get("items", [{"key": None}]))
    for reference in workload.pod.get("imagePullSecrets", []):
        yield reference["name"], None, False


def _config_maps_of(workload: Workload) -> Iterator[tuple[str, str | None, bool]]:
    for container in workload.all_containers:
        for source in container.get("envFrom", []):
            if reference := source.get("configMapRef"):
                yield reference["name"], None, reference.get("optional", False)
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("configMapKeyRef"):
                yield reference["name"], reference["key"], reference.get("optional", False)
    for source in _sources(workload):
        if config := source.get("configMap"):
            optional = config.get("optional", False)
            yield from ((config["name"], item["key"], optional) for item in config.get("items", [{"key": None}]))


def _sources(workload: Workload) -> Iterator[dict[str, Any]]:
    """What the volumes are made of; a projected one of several."""
    for volume in workload.pod.get("volumes", []):
        yield volume
        yield from volume.get("projected", {}).get("sources", [])
