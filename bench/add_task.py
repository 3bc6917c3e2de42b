"""Sluice's add function with names for its threads; with STORE=free also with a store that costs nothing, so that what
is measured is the way to the queue.

A function source like `functions/add_task/main.py`: FUNCTION_SOURCE=bench/add_task.py FUNCTION_TARGET=add_task.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import bench.threads  # noqa: F401 - it acts by its import
from sluice.logs import configure_logs
from sluice.services import Services, install, open_broker
from sluice.settings import Settings
from sluice.task import Task, utc_now

SOURCE = Path(__file__).resolve().parents[1] / "functions" / "add_task" / "main.py"


class NoStore:
    """Takes every task, and keeps none."""

    clock = staticmethod(utc_now)

    def insert(self, task: Task) -> Task:
        return task

    def insert_soon(self, task: Task) -> Future[Task]:
        done: Future[Task] = Future()
        done.set_result(task)
        return done

    def mark_queued(self, _task: Task, _queued_at: object) -> bool:
        return True

    def unqueued(self, limit: int) -> Sequence[Task]:  # noqa: ARG002 - the store's signature
        return []

    def ping(self) -> None:
        """Always there."""

    def create_indexes(self) -> None:
        """There are none."""

    def close(self) -> None:
        """There is nothing to close."""


def _install() -> None:
    settings = Settings.load(required=("rabbitmq_url",))
    configure_logs(settings.log_level, settings.log_format)
    store: Any = NoStore()
    install(Services(settings, store, open_broker(settings, lambda: store, role="function")))


def _add_task() -> Any:
    """The function's own module."""
    spec = importlib.util.spec_from_file_location("add_task_main", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if os.environ.get("STORE") == "free":
    _install()
_module = _add_task()
add_task, add_task_async = _module.add_task, _module.add_task_async
