"""The systems that the manifests make, each built once."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from tests.manifests.kustomize import kustomize_missing
from tests.manifests.system import ROOT, System, systems_of
from tests.servers import require


@functools.cache
def _built(component: str | None) -> dict[str, System]:
    return {system.overlay.split()[0]: system for system in systems_of(ROOT, component)}


@pytest.fixture
def system() -> Callable[..., System]:
    """What an overlay makes, with one more component on top if one is named. All tests share it: don't change it."""
    require(kustomize_missing())
    return lambda overlay, component=None: _built(component)[overlay]
