"""What Kubernetes allows a container, as the manifests say it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).resolve().parents[2] / "k8s"

UNITS = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


@dataclass(frozen=True)
class Bounds:
    memory_bytes: int
    #: The size of /tmp, the one place that can be written to; 0 where there is none.
    tmp_bytes: int
    grace_seconds: float
    #: USER:GROUP
    user: str


def bounds_of(name: str) -> Bounds:
    """Of the Deployment or the CronJob in the NAME.yaml below k8s."""
    (manifest,) = K8S.rglob(f"{name}.yaml")
    pod = _pod(next(yaml.safe_load_all(manifest.read_text()))["spec"])
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    (container,) = pod["containers"]
    tmp = [mount["name"] for mount in container.get("volumeMounts", []) if mount["mountPath"] == "/tmp"]
    identity = pod["securityContext"]
    return Bounds(
        memory_bytes=_bytes(container["resources"]["limits"]["memory"]),
        tmp_bytes=sum(_bytes(volumes[volume]["emptyDir"]["sizeLimit"]) for volume in tmp),
        grace_seconds=pod["terminationGracePeriodSeconds"],
        user=f"{identity['runAsUser']}:{identity['runAsGroup']}",
    )


def _pod(spec: dict[str, Any]) -> dict[str, Any]:
    return _pod(spec["jobTemplate"]["spec"]) if "jobTemplate" in spec else spec["template"]["spec"]


def _bytes(quantity: str) -> int:
    """64Mi is 67108864."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]]
