"""What the recipes of the images say twice, or say of other files. The images themselves: `make images`, and then
`make try-images`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images.manifests import bounds_of

FUNCTIONS = {"add_task", "get_tasks", "cancel_task", "retry_task", "engine"}
IMAGES = {name.replace("_", "-") for name in FUNCTIONS} | {"web", "offline-model"}


RECIPES = dict.fromkeys(IMAGES, "functions/Dockerfile") | {
    "web": "web/Dockerfile",
    "offline-model": "offline_model/Dockerfile",
}


def instructions(dockerfile: Path, name: str) -> list[str]:
    """What follows each `NAME`, with lines that go on joined."""
    text = dockerfile.read_text().replace("\\\n", " ")
    return re.findall(rf"^{name} +(.+)$", text, re.M)


def test_each_function_has_a_stage_of_its_name(root: Path) -> None:
    folders = {path.parent.name for path in root.glob("functions/*/requirements.txt")}
    stages = {line.partition(" AS ")[2] for line in instructions(root / "functions/Dockerfile", "FROM")}
    assert folders == FUNCTIONS
    assert stages >= FUNCTIONS


def test_all_of_them_are_built_unless_some_are_named(root: Path) -> None:
    script = (root / "k8s/commands/images").read_text()
    (default,) = re.findall(r"IMAGES:-([a-z -]+)", script)
    (known,) = re.findall(r'\[\[ " ([a-z -]+) " == ', script)
    assert set(default.split()) == set(known.split()) == IMAGES


def test_what_is_copied_is_not_left_out_of_the_context(root: Path) -> None:
    lines = (root / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    for recipe in set(RECIPES.values()):
        copied = [line.split()[:-1] for line in instructions(root / recipe, "COPY") if "--from" not in line]
        mounted = re.findall(r"source=([^,]+)", (root / recipe).read_text())
        for source in [*mounted, *(path for paths in copied for path in paths)]:
            there = [name for name in let_in if f"{source}/".startswith(f"{name}/") or name.startswith(f"{source}/")]
            assert there, f"{recipe} takes {source}, which .dockerignore leaves out"


def test_nginx_serves_from_where_the_image_has_the_page(root: Path) -> None:
    configuration = (root / "web/nginx.conf").read_text()
    (folder,) = re.findall(r"\broot (\S+);", configuration)
    recipe = root / "web/Dockerfile"
    assert f"--from=page /page {folder}" in instructions(recipe, "COPY")
    (port,) = instructions(recipe, "EXPOSE")
    assert f"listen {port};" in configuration


@pytest.mark.parametrize("image", sorted(IMAGES))
def test_the_user_is_the_one_of_the_manifest(root: Path, image: str) -> None:
    assert instructions(root / RECIPES[image], "USER") == [bounds_of(image).user]


def test_no_package_registry_is_named(root: Path) -> None:
    arguments = [line for recipe in set(RECIPES.values()) for line in instructions(root / recipe, "ARG")]
    images = [line for line in arguments if line.split("=")[0].endswith("_IMAGE")]
    assert len(images) == 5
    for image in images:
        assert re.fullmatch(r"[A-Z_]+=([a-z]+:\d+\.\d+\.\d+-[a-z0-9.-]+|\$PYTHON_IMAGE)", image), (
            "pinned, and without a host"
        )


def test_a_module_that_the_wheel_left_out_is_found(root: Path) -> None:
    asked = [sys.executable, "k8s/images/check.py", "sluice.task", "sluice.nowhere", "nowhere.task"]
    check = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)
    assert check.returncode == 1
    assert check.stderr == "the wheel left out sluice.nowhere, nowhere.task\n"


def test_every_image_of_ours_that_the_manifests_name_is_built(root: Path) -> None:
    manifests = "".join(path.read_text() for path in (root / "k8s").rglob("*.yaml"))
    assert set(re.findall(r"image: sluice/([a-z-]+)", manifests)) == IMAGES
