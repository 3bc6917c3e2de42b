"""What goes wrong with Secrets and updates, on a real control plane with a node that only says that containers run."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.running import path_of, run
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.node import Node
from tests.control_plane.programs import go_missing, keda_sources
from tests.servers import require

pytestmark = pytest.mark.timeout(3600)  # the first time everything is built


class Cluster:
    """A control plane and a node for the commands, and what they have made of it."""

    def __init__(self, plane: ControlPlane, directory: Path) -> None:
        self.plane = plane
        self.directory = directory
        self.path = path_of(directory / "bin", {})
        (directory / "bin" / "kubectl").symlink_to(plane.programs / "kubectl")

    def make(self, command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return run(command, self.path, KUBECONFIG=str(self.plane.admin), HOME=str(self.directory), **settings)

    def apply(self, *objects: dict[str, Any]) -> None:
        given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        answer = self.plane.kubectl("apply", "--server-side", "--filename=-", given=given)
        assert answer.returncode == 0, answer.stderr

    def images(self) -> dict[str, str]:
        """The image of each Deployment and CronJob, by name."""
        deployments = self.plane.get("/apis/apps/v1/namespaces/sluice/deployments")["items"]
        jobs = self.plane.get("/apis/batch/v1/namespaces/sluice/cronjobs")["items"]
        templates = {each["metadata"]["name"]: each["spec"]["template"] for each in deployments}
        templates |= {each["metadata"]["name"]: each["spec"]["jobTemplate"]["spec"]["template"] for each in jobs}
        return {name: template["spec"]["containers"][0]["image"] for name, template in templates.items()}

    def secrets(self) -> dict[str, dict[str, str]]:
        return {
            each["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in each["data"].items()}
            for each in self.plane.get("/api/v1/namespaces/sluice/secrets")["items"]
        }

    def versions(self) -> dict[str, str]:
        """Of the StatefulSets and ScaledObjects: a change of what they ask for is another generation."""
        kinds = ("apps/v1/namespaces/sluice/statefulsets", "keda.sh/v1alpha1/namespaces/sluice/scaledobjects")
        found = [each for kind in kinds for each in self.plane.get(f"/apis/{kind}")["items"]]
        return {
            each["metadata"]["name"]: each["metadata"]["uid"] + str(each["metadata"].get("generation"))
            for each in found
        }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With KEDA's kinds, and volumes for the databases, and Sluice deployed upon it."""
    require(go_missing())
    directory = tmp_path_factory.mktemp("cluster")
    with ControlPlane(directory / "control-plane") as plane:
        plane.start_controllers()
        plane.kubectl("apply", "--server-side", f"--filename={keda_sources() / 'config/crd/bases'}")
        plane.kubectl("wait", "--for=condition=Established", "--all", "crd")
        cluster = Cluster(plane, directory)
        cluster.apply(*(volume(name) for name in ("one", "two")))
        with Node(plane, directory / "node", {}, {}):
            deployed = cluster.make("deploy", READY_SECONDS="50", TAG="first")
            assert deployed.returncode == 0, deployed.stderr
            yield cluster


def volume(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "8Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/nonexistent"},
        },
    }


def test_a_secret_that_was_deleted_is_made_again_and_its_database_told(cluster: Cluster) -> None:
    before = cluster.secrets()
    cluster.plane.kubectl("--namespace=sluice", "delete", "secret", "cancel-task")
    assert cluster.make("secrets").returncode == 0
    after = cluster.secrets()
    assert {name for name in before if before[name] != after[name]} == {"cancel-task", "mongodb"}
    assert after["mongodb"]["cancel-task"] in after["cancel-task"]["MONGODB_URI"]


def test_update_replaces_the_images_of_sluice_and_touches_nothing_else(cluster: Cluster) -> None:
    others = (cluster.versions(), cluster.secrets())
    updated = cluster.make("update", TAG="second", READY_SECONDS="50")
    assert updated.returncode == 0, updated.stderr
    assert {image.rpartition(":")[2] for image in cluster.images().values()} == {"second"}
    assert (cluster.versions(), cluster.secrets()) == others


def test_an_update_that_can_not_get_ready_says_why_and_is_taken_back(cluster: Cluster) -> None:
    images = cluster.images()
    quota = {"metadata": {"name": "full", "namespace": "sluice"}, "spec": {"hard": {"pods": "0"}}}
    cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", **quota})
    try:
        failed = cluster.make("update", TAG="third", READY_SECONDS="10")
    finally:
        cluster.plane.kubectl("--namespace=sluice", "delete", "resourcequota", "full")
    assert failed.returncode == 1
    assert "exceeded quota" in failed.stderr
    assert cluster.images() == images
