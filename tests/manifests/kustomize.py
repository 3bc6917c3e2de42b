"""kustomize: the machine's kubectl if it is new enough, else the program of its own, built once with Go.

`python -m tests.manifests.kustomize` builds it ahead. Before version 5 (Debian 12's kubectl has 2.0.3) a folder is not
allowed under `resources`.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.servers.go import GoPrograms

PROGRAM = GoPrograms("kustomize", Path(__file__).with_name("kustomize"), "sigs.k8s.io/kustomize/kustomize/v5")

#: The first major version that builds what is in k8s/.
NEEDED = 5

#: Seconds that one build may take; it reads a few dozen small files.
BUILD_SECONDS = 60

Object = dict[str, Any]


class BuildError(Exception):
    """kustomize refused, or warned; the text is what it said."""


def kustomize_missing() -> str | None:
    """None if there is a kustomize, or a Go toolchain to build it with; else the reason."""
    if _kubectl():
        return None
    reason = PROGRAM.missing()
    return reason and f"there is no kubectl with kustomize {NEEDED} or newer: {reason}"


def build(folder: Path) -> list[Object]:
    """The objects of a folder with a kustomization. Raises BuildError, also for a warning."""
    result = subprocess.run(
        [*command(), str(folder)], capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    if result.returncode != 0 or result.stderr:
        raise BuildError(f"{folder}: {result.stderr.strip()}")
    return [found for found in yaml.load_all(result.stdout, yaml.CSafeLoader) if found]


@functools.cache
def command() -> list[str]:
    """What builds the folder that is given as its last argument."""
    kubectl = _kubectl()
    return [kubectl, "kustomize"] if kubectl else [str(PROGRAM.build() / "kustomize"), "build"]


@functools.cache
def _kubectl() -> str | None:
    found = shutil.which("kubectl")
    if found is None:
        return None
    told = subprocess.run([found, "version", "--client", "-o", "json"], capture_output=True, text=True, check=False)
    try:
        version = json.loads(told.stdout)["kustomizeVersion"]
    except (ValueError, KeyError):  # kubectl tells it since 1.24
        return None
    major = re.match(r"v(\d+)\.", version)
    return found if major and int(major[1]) >= NEEDED else None


if __name__ == "__main__":
    print(PROGRAM.build())
