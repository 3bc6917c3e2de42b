"""The build finds what kustomize refuses, and what it only warns of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.manifests.kustomize import BuildError, build, kustomize_missing
from tests.servers import require

HEAD = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
SERVICE_ACCOUNT = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: engine}\n"


@pytest.fixture(autouse=True)
def kustomize() -> None:
    require(kustomize_missing())


def test_a_folder_gives_its_objects(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/kustomization.yaml").write_text(HEAD + "resources: [account.yaml]\n")
    (tmp_path / "base/account.yaml").write_text(SERVICE_ACCOUNT)
    (tmp_path / "kustomization.yaml").write_text(HEAD + "namespace: sluice\nresources: [base]\n")
    [account] = build(tmp_path)
    assert account["metadata"] == {"name": "engine", "namespace": "sluice"}


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("resources: [other.yaml]\n", "other.yaml"),
        ("resource: [account.yaml]\n", "resource"),
        ("resources: [account.yaml]\ncommonLabels: {app: engine}\n", "deprecated"),
        ("resources: [account.yaml]\npatches: [{target: {kind: Job}, path: other.yaml}]\n", "other.yaml"),
    ],
)
def test_what_kustomize_refuses_or_warns_of_is_an_error(tmp_path: Path, more: str, complaint: str) -> None:
    (tmp_path / "account.yaml").write_text(SERVICE_ACCOUNT)
    (tmp_path / "kustomization.yaml").write_text(HEAD + more)
    with pytest.raises(BuildError, match=complaint):
        build(tmp_path)
