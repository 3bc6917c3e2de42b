"""`make deploy update status` and what comes of them, with the real controllers, on a node where nothing runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.control_plane.autoscaler import install_keda
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.node import Image, Node
from tests.control_plane.programs import programs_missing
from tests.servers import require
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(3600)  # the first time everything is built

DEPLOYMENTS = "/apis/apps/v1/namespaces/sluice/deployments"
PODS = "/api/v1/namespaces/sluice/pods"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    require(programs_missing())
    directory = tmp_path_factory.mktemp("commands")
    with ControlPlane(directory / "control-plane") as plane:
        install_keda(plane)
        plane.start_controllers()
        with Node(plane, directory / "node", images={}, environment={}) as node:
            yield node


@pytest.fixture
def plane(node: Node) -> ControlPlane:
    return node.plane


@pytest.fixture(scope="module")
def deployed(node: Node) -> subprocess.CompletedProcess[str]:
    return node.plane.command("deploy", OVERLAY="local", TAG="first")


def deployments(plane: ControlPlane) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in plane.get(DEPLOYMENTS)["items"]}


def images(plane: ControlPlane) -> set[str]:
    """Those of all Deployments and of the CronJob."""
    templates = [item["spec"]["template"]["spec"] for item in deployments(plane).values()]
    rounds = plane.get("/apis/batch/v1/namespaces/sluice/cronjobs/sweep")
    templates.append(rounds["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    return {container["image"] for pod in templates for container in pod["containers"]}


def pods(plane: ControlPlane, name: str) -> list[str]:
    """Also those that are ending."""
    found = plane.get(f"{PODS}?labelSelector=app.kubernetes.io/name={name}")
    return [pod["metadata"]["name"] for pod in found["items"]]


def test_deploy_brings_everything_up(plane: ControlPlane, deployed: subprocess.CompletedProcess[str]) -> None:
    assert deployed.returncode == 0, deployed.stderr
    assert "Warning" not in deployed.stderr
    for name, item in deployments(plane).items():
        assert item["status"]["availableReplicas"] == item["spec"]["replicas"] == 1, name
    assert {image.rpartition(":")[2] for image in images(plane)} == {"first"}


def test_deploy_once_more_replaces_nothing(plane: ControlPlane, deployed: subprocess.CompletedProcess[str]) -> None:
    before = {name: item["metadata"]["generation"] for name, item in deployments(plane).items()}
    secrets = plane.get("/api/v1/namespaces/sluice/secrets")["items"]
    again = plane.command("deploy", OVERLAY="local", TAG="first")
    assert again.returncode == 0, again.stderr
    assert {name: item["metadata"]["generation"] for name, item in deployments(plane).items()} == before
    assert plane.get("/api/v1/namespaces/sluice/secrets")["items"] == secrets


def test_deploy_leaves_the_number_of_engines_to_keda(
    plane: ControlPlane, deployed: subprocess.CompletedProcess[str]
) -> None:
    plane.patch(f"{DEPLOYMENTS}/engine/scale", {"spec": {"replicas": 3}})
    again = plane.command("deploy", OVERLAY="local", TAG="first")
    assert again.returncode == 0, again.stderr
    assert deployments(plane)["engine"]["spec"]["replicas"] == 3


def test_update_changes_every_image_and_never_leaves_a_function_without_a_pod(
    plane: ControlPlane, deployed: subprocess.CompletedProcess[str]
) -> None:
    plane.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 2}})
    eventually(lambda: deployments(plane)["web"]["status"].get("availableReplicas") == 2, 30)
    least = {name: item["spec"]["replicas"] for name, item in deployments(plane).items()}
    updating = plane.start_command("update", TAG="second")
    while updating.running:
        for name, item in deployments(plane).items():
            assert item["status"].get("availableReplicas", 0) >= least[name], name
    assert updating.exit_code == 0, updating.log_tail()
    assert {image.rpartition(":")[2] for image in images(plane)} == {"second"}


def test_update_puts_the_old_images_back_when_the_new_ones_do_not_get_ready(
    node: Node, plane: ControlPlane, deployed: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = images(plane)
    monkeypatch.setattr(node, "images", {"sluice/web": Image(("sleep", "600"))})  # which answers no probe
    answer = plane.command("update", TAG="broken", READY_SECONDS="5")
    assert answer.returncode == 1, answer.stderr
    assert "not ready: Deployment/web" in answer.stderr
    assert images(plane) == before
    assert deployments(plane)["web"]["status"]["availableReplicas"] > 0


def test_status_shows_the_pods_and_the_replicas(
    plane: ControlPlane, deployed: subprocess.CompletedProcess[str]
) -> None:
    answer = plane.command("status")
    assert answer.returncode == 0, answer.stderr
    for name in (*deployments(plane), "rabbitmq", "mongodb"):
        assert f"\n{name} " in answer.stdout
        assert f"\n{name}-" in answer.stdout


def test_a_draining_node_takes_the_pods_of_a_function_one_at_a_time(
    plane: ControlPlane, deployed: subprocess.CompletedProcess[str]
) -> None:
    plane.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 2}})
    budget = "/apis/policy/v1/namespaces/sluice/poddisruptionbudgets/web"
    eventually(lambda: plane.get(budget)["status"]["currentHealthy"] == len(pods(plane, "web")) == 2, 30)
    answers = []
    for name in pods(plane, "web"):
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        answers.append(plane.api.post(f"{PODS}/{name}/eviction", json=eviction).status_code)
    assert answers == [201, 429]


def test_the_sweep_has_its_round_within_two_minutes(
    plane: ControlPlane, deployed: subprocess.CompletedProcess[str]
) -> None:
    jobs = "/apis/batch/v1/namespaces/sluice/jobs"
    eventually(lambda: any(job["status"].get("succeeded") for job in plane.get(jobs)["items"]), 120)
