"""What the manifests make is what an API server takes, and what the house asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.settings import Settings
from tests.manifests.kustomize import build, kustomize_missing
from tests.manifests.rules import RULES
from tests.manifests.rules.configuration import DEFAULT_IS_RIGHT
from tests.manifests.rules.references import CREDENTIALS
from tests.manifests.schema import problems_of
from tests.manifests.system import ROOT, System, overlays, spare_components
from tests.servers import require

#: Each overlay as it is, and with each component that no overlay has.
SYSTEMS: list[tuple[str, str | None]] = [
    (overlay, component) for overlay in overlays(ROOT) for component in (None, *spare_components(ROOT))
]
KUSTOMIZATIONS = sorted(
    path.parent.relative_to(ROOT)
    for folder in ("k8s", "keda")
    for path in (ROOT / folder).rglob("kustomization.yaml")
    if yaml.safe_load(path.read_text())["kind"] == "Kustomization"
)

SystemOf = Callable[..., System]


def test_there_are_overlays_for_a_laptop_and_for_production() -> None:
    assert overlays(ROOT) == ["local", "production"]


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=str)
def test_every_folder_is_built_without_a_warning(folder: Path) -> None:
    require(kustomize_missing())
    assert build(ROOT / folder)


@pytest.mark.parametrize(("overlay", "component"), SYSTEMS)
def test_an_api_server_would_take_every_object(system: SystemOf, overlay: str, component: str | None) -> None:
    assert [problem for found in system(overlay, component).objects for problem in problems_of(found)] == []


@pytest.mark.parametrize(("overlay", "component"), SYSTEMS)
@pytest.mark.parametrize("rule", RULES)
def test_the_house_rule_holds(system: SystemOf, overlay: str, component: str | None, rule: str) -> None:
    assert list(RULES[rule](system(overlay, component))) == []


def test_no_default_is_called_right_of_what_is_no_setting() -> None:
    assert DEFAULT_IS_RIGHT.keys() <= {name.upper() for name in Settings.model_fields}


def test_no_file_holds_what_looks_like_a_credential() -> None:
    folders = ("k8s/base", "k8s/components", "k8s/overlays", "keda")
    for path in (each for folder in folders for each in (ROOT / folder).rglob("*") if each.is_file()):
        for pattern in CREDENTIALS:
            found = pattern.search(path.read_text(errors="replace"))
            assert not found, f"{path}: {found}"


def test_every_file_is_reached_from_an_overlay_or_a_component_or_named_by_who_uses_it() -> None:
    reached = {
        path
        for folder in ("k8s/overlays", "k8s/components", "keda")
        for kustomization in (ROOT / folder).rglob("kustomization.yaml")
        for path in _reached(kustomization)
    }
    users = [ROOT / "Makefile", *ROOT.glob("*/Dockerfile"), *ROOT.glob("k8s/commands/*"), *ROOT.glob("docs/*.md")]
    texts = {path: path.read_text() for path in users if path.is_file()}
    for path in sorted(each for folder in ("k8s", "keda") for each in (ROOT / folder).rglob("*") if each.is_file()):
        if path in reached or "__pycache__" in path.parts:
            continue
        name = path.stem if path.suffix == ".py" else path.name  # a module is imported without its ending
        word = re.compile(rf"\b{re.escape(name)}\b")
        assert any(word.search(text) for user, text in texts.items() if user != path), f"nothing uses {path}"


def _reached(kustomization: Path) -> Iterator[Path]:
    yield kustomization
    here, given = kustomization.parent, yaml.safe_load(kustomization.read_text())
    for name in [*given.get("resources", []), *given.get("components", [])]:
        path = (here / name).resolve()
        if path.is_dir():
            yield from _reached(path / "kustomization.yaml")
        else:
            yield path
    for name in _files(given):
        yield (here / name.rpartition("=")[2]).resolve()


def _files(given: dict[str, Any]) -> Iterator[str]:
    for generator in [*given.get("configMapGenerator", []), *given.get("secretGenerator", [])]:
        yield from [*generator.get("files", []), *generator.get("envs", [])]
    for patch in given.get("patches", []):
        if "path" in patch:
            yield patch["path"]
