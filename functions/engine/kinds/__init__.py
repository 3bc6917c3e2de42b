"""The handlers: one module for each kind of `sluice.kinds`, with the same name and a function `run(task, step)`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any

from functions.engine.handler import Step
from sluice.kinds import kinds

Handler = Callable[[Any, Step], Any]


def handler_names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def kinds_without_handler() -> list[str]:
    """The kinds that are accepted but can't be done here. Raises InvalidKind."""
    return sorted(set(kinds()) - set(handler_names()))


@cache  # to look into the folder for every task would be a quarter of what the engine spends on one
def find_handler(kind: str) -> Handler:
    """The handler of a kind, imported when its first task comes. Raises LookupError for a kind without one."""
    if kind not in handler_names():
        raise LookupError(kind)
    handler: Handler = importlib.import_module(f"{__name__}.{kind}").run
    return handler
