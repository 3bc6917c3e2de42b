"""Everything that is deployed, applied to a real API server: it is taken whole, in silence, and for good."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.control_plane.autoscaler import install_keda
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.node import ROOT
from tests.control_plane.programs import MODULES, programs_missing, sources
from tests.manifests.fetch_schemas import GATEWAY_API, HTTP_ADD_ON, KEDA
from tests.servers import require

pytestmark = pytest.mark.timeout(3600)  # the first time everything is built

#: What can be applied: an overlay with components, and what comes beside it.
DEPLOYMENTS: dict[str, tuple[list[str], list[str]]] = {
    "local": (["overlays/local"], ["keda"]),
    "production": (["overlays/production"], ["keda"]),
    "http-route": (["overlays/local", "components/http-route"], ["keda"]),
    "http-add-on": (["overlays/local", "components/http-add-on"], ["keda", "keda/http-add-on"]),
}

PRIVILEGED = {
    "name": "privileged",
    "image": "sluice/engine",
    "securityContext": {"privileged": True},
}


class Deployed:
    """A deployment, on a control plane of its own that knows KEDA, its HTTP add-on and the Gateway API."""

    def __init__(self, plane: ControlPlane, manifests: str) -> None:
        self.plane = plane
        self.manifests = manifests
        self.first = self.apply()

    def apply(self) -> subprocess.CompletedProcess[str]:
        return self.kubectl("apply", "--server-side")

    def kubectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.plane.try_kubectl(*arguments, "--filename=-", given=self.manifests)

    def versions(self) -> dict[str, str]:
        answer = self.kubectl("get", "--output=json")
        assert answer.returncode == 0, answer.stderr
        return {
            f"{item['kind']} {item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for item in json.loads(answer.stdout)["items"]
        }


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def deployed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    require(programs_missing())
    directory = tmp_path_factory.mktemp(request.param)
    with ControlPlane(directory / "control-plane") as plane:
        install_keda(plane)
        for definitions in (sources(GATEWAY_API) / "config/crd/standard", sources(HTTP_ADD_ON) / "config/crd/bases"):
            plane.kubectl("apply", "--server-side", f"--filename={definitions}")
        plane.kubectl("wait", "--for=condition=Established", "--all", "crd")
        (overlay, *components), beside = DEPLOYMENTS[request.param]
        manifests = [render(plane, directory / "overlay", f"k8s/{overlay}", *(f"k8s/{name}" for name in components))]
        manifests += [render(plane, directory / name.replace("/", "-"), name) for name in beside]
        yield Deployed(plane, "\n---\n".join(manifests))


def render(plane: ControlPlane, directory: Path, base: str, *components: str) -> str:
    """What kubectl makes of folders, in an overlay that adds nothing."""
    directory.mkdir()
    here = directory.resolve()
    overlay = {
        "resources": [os.path.relpath(ROOT / base, here)],
        "components": [os.path.relpath(ROOT / component, here) for component in components],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return plane.kubectl("kustomize", directory)


def test_keda_is_built_in_the_version_whose_definitions_are_used() -> None:
    assert KEDA.replace("@", " ") in (MODULES / "keda" / "go.mod").read_text()


def test_nothing_is_refused_and_nothing_warned_of(deployed: Deployed) -> None:
    assert deployed.first.returncode == 0, deployed.first.stderr
    assert deployed.first.stderr == ""
    wanted = [item for item in yaml.safe_load_all(deployed.manifests) if item]
    assert len(deployed.first.stdout.splitlines()) == len(wanted) == len(deployed.versions())


def test_what_the_server_holds_is_what_was_applied(deployed: Deployed) -> None:
    answer = deployed.kubectl("diff", "--server-side")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_to_apply_it_again_changes_nothing(deployed: Deployed) -> None:
    before = deployed.versions()
    again = deployed.apply()
    assert (again.returncode, again.stderr) == (0, "")
    assert deployed.versions() == before


def test_a_privileged_pod_is_refused(deployed: Deployed) -> None:
    answer = deployed.plane.try_kubectl(
        "apply", "--server-side", "--filename=-", given=json.dumps(planted("Pod", "v1"))
    )
    assert answer.returncode != 0
    assert 'violates PodSecurity "restricted' in answer.stderr
    assert "privileged" in answer.stderr


def test_a_deployment_of_privileged_pods_would_be_warned_of(deployed: Deployed) -> None:
    deployment = planted("Deployment", "apps/v1")
    labels = {"app.kubernetes.io/name": "planted"}
    template = {"metadata": {"labels": labels}, "spec": deployment["spec"]}
    deployment["spec"] = {"selector": {"matchLabels": labels}, "template": template}
    given = json.dumps(deployment)
    answer = deployed.plane.try_kubectl("apply", "--server-side", "--dry-run=server", "--filename=-", given=given)
    assert 'Warning: would violate PodSecurity "restricted' in answer.stderr


def planted(kind: str, version: str) -> dict[str, Any]:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "planted", "namespace": "sluice"},
        "spec": {"serviceAccountName": "engine", "containers": [PRIVILEGED]},
    }
