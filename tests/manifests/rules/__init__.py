"""The rules of the house: each is a function whose name says it, and which yields what is against it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator

from tests.manifests.system import System

Rule = Callable[[System], Iterator[str]]

#: All rules, by name: those of each module in this folder.
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    """Makes a function one of the rules."""
    assert function.__name__ not in RULES, f"two rules are called {function.__name__}"
    RULES[function.__name__] = function
    return function


for module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(module.name)
