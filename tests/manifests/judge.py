"""Everything that is held against the manifests of one folder, in one go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.manifests.rules import RULES
from tests.manifests.schema import problems_of
from tests.manifests.system import System, systems_of


def judge(root: Path) -> list[str]:
    """What is wrong with the manifests in a folder that holds k8s/ and keda/. Raises BuildError."""
    return [complaint for system in systems_of(root) for complaint in complaints(system)]


def complaints(system: System) -> Iterator[str]:
    """What is wrong with one installation. Rules read objects that are sound; they are not asked about others."""
    problems = [f"{system.overlay}: {problem}" for found in system.objects for problem in problems_of(found)]
    if problems:
        yield from problems
        return
    for rule in RULES.values():
        yield from (f"{system.overlay}: {complaint}" for complaint in rule(system))
