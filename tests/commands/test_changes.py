"""`make deploy` and `make update`, with a kubectl that builds for real and only writes down what it should change."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands.running import ROOT, path_of, run
from tests.manifests.kustomize import build, command, kustomize_missing
from tests.servers import require

#: Has every Secret (so that none is made), and says of a rollout that it succeeded unless its images are the tag `bad`.
KUBECTL = """
echo "$*" >> "$0.asked"
for last; do :; done
case "$*" in
    "config view") ;;
    "version --client") echo "Kustomize Version: v5.0.1" ;;
    "version "*) ;;
    *current-context*) cat "$0.context" 2> /dev/null || echo stand-in ;;
    *"get crd"*) [ ! -e "$0.without-keda" ] ;;
    *"get secret"* | *"get pvc"*) ;;
    *"get namespace"*) echo namespace/sluice ;;
    *"-f -"*) cat > /dev/null ;;
    "kustomize "*) exec %s "$last" ;;
    "apply "*"-k "*) exec %s "$last" > "$0.applied" ;;
    *"get -k "*)
        [ ! -e "$0.forbidden" ] || { echo "Forbidden" >&2; exit 1; }
        echo Deployment/engine; echo StatefulSet/rabbitmq ;;
    *"get deployment web"*) cat "$0.running" 2> /dev/null || true ;;
    *"get deployments,cronjobs"*) cat "$0.containers" 2> /dev/null || true ;;
    *"rollout status"*) ! grep -q :bad "$0.asked" || { echo "error: timed out waiting" >&2; exit 1; } ;;
    *"get events"*) echo "engine-7f-x1 Failed cannot pull the image"; echo "web-1 Failed another matter" ;;
    *"get pods"* | *logs*) echo "pods or logs of $4" ;;
    *"set image"*web=*) [ ! -e "$0.forbidden" ] || { echo "Forbidden" >&2; exit 1; } ;;
    *"set image"*) ;;
    *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""

CONTAINERS = """\
Deployment/engine engine registry.example:5000/sluice/engine:old
Deployment/web web sluice/web@sha256:0123
Deployment/web beside envoy:1.0
CronJob/sweep sweep sluice/engine:old@sha256:0123
"""

#: What production asks for where Secrets are missing.
ELSEWHERE = {
    "MONGODB_URI": "mongodb://{name}:{password}@elsewhere",
    "RABBITMQ_URL": "amqp://{name}:{password}@elsewhere/sluice",
    "RABBITMQ_HTTP_URL": "https://elsewhere/sluice",
}


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A kubectl; what it is asked goes to the file beside it that ends in `.asked`."""
    require(kustomize_missing())
    program, *arguments = command()
    building = " ".join([shutil.which(program) or program, *arguments])
    path_of(tmp_path / "bin", {"kubectl": KUBECTL % (building, building)})
    (tmp_path / "tmp").mkdir()
    return tmp_path / "bin" / "kubectl"


def beside(kubectl: Path, what: str) -> Path:
    return kubectl.with_name(f"kubectl.{what}")


def change(kubectl: Path, name: str, **settings: str) -> tuple[int, str]:
    ended = run(
        name, str(kubectl.parent), TMPDIR=str(kubectl.parent.parent / "tmp"), HOME=os.environ["HOME"], **settings
    )
    assert list((kubectl.parent.parent / "tmp").iterdir()) == []
    return ended.returncode, ended.stdout + ended.stderr


def images(found: Any) -> list[str]:
    """Of all containers in these objects, those of init containers too."""
    if isinstance(found, list):
        return [image for each in found for image in images(each)]
    if not isinstance(found, dict):
        return []
    own = [found["image"]] if isinstance(found.get("image"), str) else []
    return own + [image for value in found.values() for image in images(value)]


def text(objects: list[dict[str, Any]], tag: str) -> Counter[str]:
    """The objects without their order, with one tag for all of Sluice's own images."""
    return Counter(re.sub(r"(image: \S*sluice/[a-z-]+):\S+", rf"\1:{tag}", yaml.safe_dump(each)) for each in objects)


# --- deploy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_deploy_applies_an_overlay_and_kedas_part_with_another_tag_and_nothing_else(
    stand_in: Path, overlay: str
) -> None:
    beside(stand_in, "asked").touch()
    status, said = change(stand_in, "deploy", OVERLAY=overlay, TAG="1.2.3", **ELSEWHERE)
    assert status == 0, said
    applied = list(yaml.safe_load_all(beside(stand_in, "applied").read_text()))
    before = [*build(ROOT / "k8s/overlays" / overlay), *build(ROOT / "keda")]
    assert text(applied, "same") == text(before, "same")
    ours = {image for image in images(applied) if "sluice/" in image}
    assert len(ours) >= 6
    assert all(image.endswith(":1.2.3") for image in ours)
    assert "cluster: stand-in" in said
    assert "ready: Deployment/engine" in said
    assert "ready: StatefulSet/rabbitmq" in said


@pytest.mark.parametrize(("overlay", "kept"), [("local", True), ("production", False)])
def test_deploy_without_a_tag_keeps_a_laptops_newest_build_and_production_as_it_is_written(
    stand_in: Path, overlay: str, kept: bool
) -> None:
    beside(stand_in, "running").write_text("sluice/web:newest")
    status, said = change(stand_in, "deploy", OVERLAY=overlay, **ELSEWHERE)
    assert status == 0, said
    ours = {
        image
        for image in images(list(yaml.safe_load_all(beside(stand_in, "applied").read_text())))
        if "sluice/" in image
    }
    written = {image for image in images(build(ROOT / "k8s/overlays" / overlay)) if "sluice/" in image}
    assert ours == ({re.sub(":[^:]*$", ":newest", image) for image in written} if kept else written)


def test_deploy_says_what_is_wrong_with_what_does_not_get_ready(stand_in: Path) -> None:
    beside(stand_in, "asked").write_text(":bad\n")
    status, said = change(stand_in, "deploy", OVERLAY="local", READY_SECONDS="1")
    assert status == 1
    assert "not ready: Deployment/engine, error: timed out waiting" in said
    assert "cannot pull the image" in said
    assert "another matter" not in said
    assert "pods or logs of -l" in said


@pytest.mark.parametrize("command", ["deploy", "update", "images"])
@pytest.mark.parametrize("tag", ["a&b", "x; rm", "|;s|.*|id|e;#", "-dash", "a/b"])
def test_a_tag_that_is_none_is_refused_before_anything_is_done(stand_in: Path, command: str, tag: str) -> None:
    beside(stand_in, "containers").write_text(CONTAINERS)
    (stand_in.parent / "buildah").symlink_to("/bin/true")
    status, said = change(stand_in, command, OVERLAY="local", TAG=tag)
    assert (status, "is no tag" in said) == (2, True)
    assert not beside(stand_in, "asked").exists() or "set image" not in beside(stand_in, "asked").read_text()
    assert not beside(stand_in, "applied").exists()


@pytest.mark.parametrize("overlay", ["../base", "../..", "Local"])
def test_a_path_is_no_overlay(stand_in: Path, overlay: str) -> None:
    status, said = change(stand_in, "deploy", OVERLAY=overlay)
    assert (status, "There is no overlay" in said) == (2, True)


def test_deploy_stops_where_keda_or_the_overlay_is_missing(stand_in: Path) -> None:
    status, said = change(stand_in, "deploy", OVERLAY="moon")
    assert (status, "moon" in said) == (2, True)
    status, said = change(stand_in, "deploy")
    assert (status, "OVERLAY=production" in said) == (2, True), "it is not taken for the laptop's cluster"
    beside(stand_in, "without-keda").touch()
    beside(stand_in, "context").write_text("kind-sluice\n")
    status, said = change(stand_in, "deploy")
    assert (status, "keda.sh" in said) == (2, True)
    assert not beside(stand_in, "applied").exists()


def test_deploy_that_can_not_see_what_it_has_applied_does_not_say_that_all_is_well(stand_in: Path) -> None:
    beside(stand_in, "forbidden").touch()
    status, said = change(stand_in, "deploy", OVERLAY="local", TAG="1.2.3")
    assert (status, "Forbidden" in said) == (1, True)


# --- update ----------------------------------------------------------------------------------------------------------


def set_images(kubectl: Path) -> list[str]:
    asked = beside(kubectl, "asked").read_text().splitlines()
    return [line.partition("set image ")[2] for line in asked if "set image" in line]


def test_update_changes_the_tags_of_sluices_own_images_and_nothing_else(stand_in: Path) -> None:
    beside(stand_in, "containers").write_text(CONTAINERS)
    status, said = change(stand_in, "update", TAG="v2")
    assert status == 0, said
    assert set_images(stand_in) == [
        "Deployment/engine engine=registry.example:5000/sluice/engine:v2",
        "Deployment/web web=sluice/web:v2",
        "CronJob/sweep sweep=sluice/engine:v2",
    ]
    changing = re.compile(r"\b(apply|create|delete|edit|patch|replace|restart|scale|annotate|label)\b")
    assert not changing.search(beside(stand_in, "asked").read_text())


def test_an_update_that_does_not_get_ready_is_taken_back(stand_in: Path) -> None:
    beside(stand_in, "containers").write_text(CONTAINERS)
    status, said = change(stand_in, "update", TAG="bad", READY_SECONDS="1")
    assert status == 1
    assert "cannot pull the image" in said
    assert set_images(stand_in)[3:] == [
        "Deployment/engine engine=registry.example:5000/sluice/engine:old",
        "Deployment/web web=sluice/web@sha256:0123",
        "CronJob/sweep sweep=sluice/engine:old@sha256:0123",
    ]


def test_an_update_of_which_a_part_is_refused_takes_the_other_parts_back(stand_in: Path) -> None:
    beside(stand_in, "containers").write_text(CONTAINERS)
    beside(stand_in, "forbidden").touch()
    status, said = change(stand_in, "update", TAG="v2", READY_SECONDS="1")
    assert (status, "are put back" in said) == (1, True)
    engine = "Deployment/engine engine=registry.example:5000/sluice/engine"
    assert [line for line in set_images(stand_in) if "engine engine=" in line] == [f"{engine}:v2", f"{engine}:old"]
    assert not [line for line in set_images(stand_in) if line.startswith("CronJob")]


def test_update_builds_only_for_the_laptops_cluster(stand_in: Path) -> None:
    beside(stand_in, "containers").write_text(CONTAINERS)
    status, said = change(stand_in, "update")
    assert (status, "TAG" in said) == (2, True)
    beside(stand_in, "context").write_text("kind-sluice\n")
    status, said = change(stand_in, "update")
    assert status == 2
    assert "kind:" in said
    assert "docker or buildah:" in said
    assert set_images(stand_in) == []


def test_update_without_sluice_in_the_cluster_says_so(stand_in: Path) -> None:
    status, said = change(stand_in, "update", TAG="v2")
    assert (status, "make deploy" in said) == (2, True)
