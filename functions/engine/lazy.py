"""Packages that are imported name by name: their own `__init__`, which imports everything, runs when it must."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from threading import local
from types import ModuleType
from typing import Any


def import_lazily(*packages: str) -> None:
    """From now on these packages start empty, and their modules can be imported one by one. The first name that is
    asked of one and is none of its modules runs its `__init__`: it then has all it would have had. (importlib's own
    LazyLoader is of no use here: it takes the import of a module for a question to its package.)"""
    sys.meta_path.insert(0, _Finder(packages))


class _Finder:
    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in self._packages else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        contents, run = vars(module), super().exec_module
        has_run = False
        here = local()

        def find(name: str) -> Any:
            """A name that the package does not have (PEP 562)."""
            nonlocal has_run
            if not name.startswith("__"):
                if find_spec(f"{module.__name__}.{name}"):
                    return import_module(f"{module.__name__}.{name}")
                # Without a lock, which could be waited for by who holds the import of a module that it imports: it only
                # imports, and two threads that run it find the same. While it runs it may ask in vain.
                if not has_run and not getattr(here, "runs", False):
                    here.runs = True
                    try:
                        run(module)
                        has_run = True
                    finally:
                        here.runs = False
                if name in contents:
                    return contents[name]
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        contents["__getattr__"] = find
