"""Sluice's engine with the handlers of the bench: `python -m bench.engine`, with the engine's own settings.

Every task leaves its mark (`bench.marks`) and takes HANDLER_SECONDS. With STORE=free the database is replaced by one
that answers at once and keeps nothing, so that the engine itself is measured; the queue stays the real one.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
from datetime import timedelta
from functools import cache
from typing import Any

import bench.threads  # noqa: F401 - it acts by its import
from bench.marks import mark
from bench.tasks import sluice_task
from functions.engine.engine import Engine
from functions.engine.handler import Step
from functions.engine.kinds import Handler
from sluice.kinds import kinds
from sluice.logs import configure_logs
from sluice.services import connect
from sluice.settings import Settings
from sluice.signals import Signals
from sluice.task import Document, Task, utc_now

SECONDS = float(os.environ.get("HANDLER_SECONDS", "0"))


def find(kind: str) -> Handler:
    """The same handler for every kind. Its outputs are the kind's own, and blank."""
    outputs = kinds()[kind].outputs

    def run(_inputs: Any, step: Step) -> Any:
        mark(step.task_id, SECONDS)
        return outputs()

    return run


class FreeStore:
    """What the engine asks of a `MongoTaskStore`, answered at once: each task is pending once, and every write counts.
    It keeps nothing: all tasks look alike but for their id."""

    clock = staticmethod(utc_now)

    def __init__(self) -> None:
        self._document: Document = sluice_task(0, int(os.environ.get("TEXT_BYTES", "0"))).document

    def start(self, task: Task, *, engine: str, lease: timedelta, token: str) -> Task:
        now = utc_now()
        claim = {"status": "running", "started_at": now, "engine": engine, "token": token, "lease_until": now + lease}
        return task.replace(attempts=1, **claim)

    def claim(self, task_id: str, **claim: Any) -> Task:
        return self.start(Task({**self._document, "_id": task_id}), **claim)

    def take_over(self, task: Task, **claim: Any) -> Task:
        return self.start(task, **claim)

    def get(self, task_id: str) -> None:
        """It does not have it."""

    def insert(self, task: Task) -> Task:
        return task

    def hold(self, tasks: list[Task], **_: Any) -> set[tuple[str, int]]:
        return {(task.id, task.attempts) for task in tasks}

    def overdue(self, *_: Any) -> list[Task]:
        return []

    abandoned = unqueued = quiet = overdue

    def finish(self, *_: Any, **__: Any) -> bool:
        return True

    report = put_off = fail = mark_queued = mark_swept = finish

    def create_indexes(self) -> None:
        """There is nothing to find."""

    ping = close = create_indexes


def main() -> int:
    settings = Settings.load(required=("mongodb_uri", "rabbitmq_url"))
    configure_logs(settings.log_level, settings.log_format)
    services = connect(settings, role="engine")
    if os.environ.get("STORE") == "free":
        services = dataclasses.replace(services, store=FreeStore())
    engine = Engine(services, cache(find))
    gc.freeze()  # as functions.engine.main does
    signals = Signals()
    engine.start()
    signals.wait()
    ended = engine.drain()
    services.close()
    return 0 if ended else 1


if __name__ == "__main__":
    sys.exit(main())
