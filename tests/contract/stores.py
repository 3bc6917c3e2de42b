"""The stores that the contract is held against, and what its tests have in common."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sluice.store import MongoTaskStore
from sluice.task import Task, new_id, new_task
from tests.servers.go import go_command
from tests.servers.mongo_commands import Commands
from tests.servers.mongo_language import Document
from tests.servers.mongo_store import Journal, Store

NOW = datetime(2026, 7, 14, tzinfo=UTC)
LEASE = timedelta(seconds=10)

#: Real servers where there are any: FerretDB where Go can build it, and whatever MONGODB_URI names.
SERVERS = ["mongomock", "wire"]
SERVERS += ["ferretdb"] if go_command() else []
SERVERS += ["MONGODB_URI"] if os.environ.get("MONGODB_URI") else []


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **duration: float) -> None:
        self.now += timedelta(**duration)


def task(clock: Clock, **changes: Any) -> Task:
    fresh = new_task(
        task_id=new_id(),
        user_id="ada",
        kind="message",
        inputs={"text": "hi"},
        outputs={"message": ""},
        now=clock(),
        ttl=timedelta(seconds=300),
    )
    return fresh.replace(queued_at=clock(), **changes)


def claimed(store: MongoTaskStore, clock: Clock, **changes: Any) -> Task:
    mine = store.claim(store.insert(task(clock, **changes)).id, engine="e1", lease=LEASE)
    assert mine is not None
    return mine


def read(store: MongoTaskStore, task: Task) -> Task:
    found = store.get(task.id)
    assert found is not None
    return found


class Answering(Commands):
    """A MongoDB whose answers to one command can be bent: added to, or replaced by one that has an `ok` of its own."""

    def __init__(self, journal: Path) -> None:
        super().__init__(Store(Journal(journal)))
        self.bends = "insert"
        self.more: Document = {}

    def run(self, command: Document) -> Document:
        if next(iter(command)) != self.bends:
            return super().run(command)
        return self.more if "ok" in self.more else {**super().run(command), **self.more}
