"""The whole way: a fault in a file of the repository, built by kustomize, is found by what judges the real ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.judge import judge
from tests.manifests.kustomize import BuildError, kustomize_missing
from tests.manifests.system import ROOT
from tests.servers import require

Edit = Callable[[Path], None]


def replaced(file: str, old: str, new: str) -> Edit:
    """Replaces a text in a file, once: where the same is written in two places, the other stays."""

    def edit(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new, 1))

    return edit


def changed(file: str, kind: str, name: str, change: Callable[[Any], object]) -> Edit:
    """Changes one object of a file."""

    def edit(root: Path) -> None:
        found = list(yaml.safe_load_all((root / file).read_text()))
        [one] = [each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name)]
        change(one)
        (root / file).write_text(yaml.safe_dump_all(found))

    return edit


def container(found: Any) -> Any:
    return found["spec"]["template"]["spec"]["containers"][0]


def without_security(kustomization: Any) -> None:
    remove = "- {op: remove, path: /spec/template/spec/securityContext/runAsNonRoot}"
    kustomization["patches"].append({"target": {"kind": "Deployment", "name": "engine"}, "patch": remove})


def overlay(name: str, change: Callable[[Any], object]) -> Edit:
    """Changes the kustomization of an overlay."""

    def edit(root: Path) -> None:
        path = root / "k8s/overlays" / name / "kustomization.yaml"
        kustomization = yaml.safe_load(path.read_text())
        change(kustomization)
        path.write_text(yaml.safe_dump(kustomization))

    return edit


FAULTS: dict[str, tuple[Edit, str]] = {
    "a queue is renamed in keda/ only": (
        replaced("keda/scaled-object.yaml", "queueName: tasks\n", "queueName: jobs\n"),
        "KEDA looks at the queue jobs, which the code does not know",
    ),
    "a queue is renamed in RabbitMQ only": (
        replaced("k8s/components/rabbitmq/definitions.json", '"name": "tasks.dead"', '"name": "tasks.lost"'),
        "local: RabbitMQ makes no queue tasks.dead",
    ),
    "a probe is removed": (
        changed("k8s/base/engine.yaml", "Deployment", "engine", lambda found: container(found).pop("readinessProbe")),
        "Deployment/engine: engine has no readinessProbe",
    ),
    "a privilege is added": (
        changed(
            "k8s/base/add-task.yaml",
            "Deployment",
            "add-task",
            lambda found: container(found)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        ),
        "Deployment/add-task: add-task adds capabilities",
    ),
    "a policy is too wide": (
        changed(
            "k8s/base/network-policies.yaml",
            "NetworkPolicy",
            "ingress-to-functions-and-web",
            lambda found: found["spec"]["ingress"][0]["from"][0].update(namespaceSelector={}),
        ),
        "allow a pod of another namespace → add-task on TCP 8080, which is no arrow",
    ),
    "a policy is too narrow": (
        changed(
            "k8s/base/network-policies.yaml",
            "NetworkPolicy",
            "engine-to-model",
            lambda found: found["spec"].pop("egress"),
        ),
        "production: the policies of engine do not allow engine → the internet on TCP 443",
    ),
    "KEDA scales another Deployment": (
        changed(
            "keda/scaled-object.yaml",
            "ScaledObject",
            "engine",
            lambda found: found["spec"]["scaleTargetRef"].update(name="web"),
        ),
        "ScaledObject/engine scales web",
    ),
    "an overlay takes security away": (
        overlay("production", without_security),
        "production: Deployment/engine: engine may run",
    ),
    "a field is misspelt": (
        replaced("k8s/components/rabbitmq/rabbitmq.yaml", "readOnlyRootFilesystem", "readOnlyRootFileSystem"),
        "readOnlyRootFileSystem: Extra inputs are not permitted",
    ),
    "an overlay brings a Secret": (
        overlay("local", lambda found: found.update(secretGenerator=[{"name": "engine", "literals": ["a=b"]}])),
        "is in the repository",
    ),
    "production takes the newest image": (
        replaced("k8s/overlays/production/kustomization.yaml", '"1.0.0"', "latest"),
        "production: Deployment/add-task: add-task has no version",
    ),
}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    require(kustomize_missing())
    for folder in ("k8s", "keda"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_copy_without_a_fault_is_sound(copied: Path) -> None:
    assert judge(copied) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_file_is_found(copied: Path, name: str) -> None:
    edit, complaint = FAULTS[name]
    edit(copied)
    complaints = judge(copied)
    assert any(complaint in each for each in complaints), complaints


def test_a_file_that_is_missing_stops_the_build(copied: Path) -> None:
    (copied / "k8s/base/ingress.yaml").unlink()
    with pytest.raises(BuildError, match=r"ingress\.yaml"):
        judge(copied)
