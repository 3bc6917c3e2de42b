"""What the engine's tests put in the place of the world: a database that can go away, and a clock that can be set."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from types import SimpleNamespace
from typing import Any

import bson
import mongomock
from pymongo import UpdateOne
from pymongo.errors import AutoReconnect, DocumentTooLarge

from functions.engine.kinds import Handler
from functions.engine.worker import Worker
from sluice.broker import Message
from sluice.kinds import kinds
from sluice.settings import Settings
from sluice.store import MongoTaskStore
from sluice.task import Document, Task, new_id, new_task, utc_now

#: A MongoDB document ends here.
DOCUMENT_BYTES = 16 * 1024 * 1024

INPUTS: dict[str, Document] = {
    "message": {"text": "Hello, Sluice."},
    "code": {"objective": "Create a function that sums up three numbers.", "language": "python"},
}


class Clock:
    """Time that only passes when it is told to."""

    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Database:
    """mongomock, behaving more like a server: it takes one operation at a time, stores only what BSON can hold, and can
    be away, for all operations or for some."""

    def __init__(self) -> None:
        self._tasks = mongomock.MongoClient(tz_aware=True)["sluice"]["tasks"]
        self._lock = threading.RLock()
        #: Names of the operations that fail; "all" stands for every one.
        self.away: set[str] = set()
        #: Every operation so far: when (time.monotonic), its name, and its arguments.
        self.operations: list[tuple[float, str, tuple[Any, ...]]] = []

    # --- what MongoTaskStore asks of a client ------------------------------------------------------------------------

    def __getitem__(self, _name: str) -> Database:
        return self

    def get_collection(self, _name: str, **_options: Any) -> Database:
        return self

    @property
    def admin(self) -> Database:
        return self

    def command(self, name: str) -> None:
        self._operate(name, lambda: None)

    def close(self) -> None:
        pass

    def create_index(self, *args: Any, **options: Any) -> None:
        self._operate("create_index", lambda: self._tasks.create_index(*args, **options))

    def insert_one(self, document: Document) -> Any:
        return self._operate("insert_one", lambda: self._tasks.insert_one(document), document)

    def find_one(self, query: Document) -> Any:
        return self._operate("find_one", lambda: self._tasks.find_one(query), query)

    def update_one(self, query: Document, update: Document) -> Any:
        return self._operate("update_one", lambda: self._tasks.update_one(query, update), query, update)

    def update_many(self, query: Document, update: Document) -> Any:
        return self._operate("update_many", lambda: self._tasks.update_many(query, update), query, update)

    def bulk_write(self, updates: Sequence[UpdateOne], **_options: Any) -> Any:
        """mongomock's own does not take what this pymongo hands it."""
        pairs = [(each._filter, each._doc) for each in updates]
        run = lambda: sum(self._tasks.update_one(*pair).matched_count for pair in pairs)  # noqa: E731
        return SimpleNamespace(matched_count=self._operate("bulk_write", run, *chain(*pairs)))

    def find_one_and_update(self, query: Document, update: Document, **options: Any) -> Any:
        run = lambda: self._tasks.find_one_and_update(query, update, **options)  # noqa: E731
        return self._operate("find_one_and_update", run, query, update)

    def find(self, query: Document, *projection: Any) -> _Found:
        return _Found(lambda steps: self._operate("find", lambda: self._found(query, projection, steps), query))

    def _found(self, query: Document, projection: tuple[Any, ...], steps: list[tuple[str, tuple[Any, ...]]]) -> Any:
        cursor = self._tasks.find(query, *projection)
        for name, arguments in steps:
            cursor = getattr(cursor, name)(*arguments)
        return list(cursor)

    def _operate(self, name: str, run: Callable[[], Any], *arguments: Document) -> Any:
        with self._lock:
            self.operations.append((time.monotonic(), name, arguments))
            if self.away & {name, "all"}:
                raise AutoReconnect("the database is away")
            for argument in arguments:
                if len(bson.encode(argument)) > DOCUMENT_BYTES:
                    raise DocumentTooLarge("the document is too large")
            return run()

    # --- the test's own hands ----------------------------------------------------------------------------------------

    def ids(self) -> list[str]:
        with self._lock:
            return [document["_id"] for document in self._tasks.find({})]

    def document(self, task_id: str) -> Document:
        with self._lock:
            return dict(self._tasks.find_one({"_id": task_id}) or {})

    def change(self, task_id: str, **changes: Any) -> None:
        with self._lock:
            self._tasks.update_one({"_id": task_id}, {"$set": changes})

    def forget(self, task_id: str) -> None:
        with self._lock:
            self._tasks.delete_one({"_id": task_id})


class _Found:
    def __init__(self, run: Callable[[list[tuple[str, tuple[Any, ...]]]], list[Document]]) -> None:
        self._run = run
        self._steps: list[tuple[str, tuple[Any, ...]]] = []

    def sort(self, *arguments: Any) -> _Found:
        self._steps.append(("sort", arguments))
        return self

    def limit(self, *arguments: Any) -> _Found:
        self._steps.append(("limit", arguments))
        return self

    def batch_size(self, _size: int) -> _Found:
        return self

    def close(self) -> None:
        """Nothing is kept open."""

    def __iter__(self) -> Iterator[Document]:
        return iter(self._run(self._steps))


def a_task(kind: str = "message", **changes: Any) -> Task:
    """A new task of a kind, five minutes before its deadline; `changes` replace fields."""
    known = kinds().get(kind)
    task = new_task(
        task_id=new_id(),
        user_id="ada",
        kind=kind,
        inputs=INPUTS.get(kind, {}),
        outputs=known.blank_outputs() if known else {},
        now=utc_now(),
        ttl=timedelta(seconds=300),
    )
    return task.replace(**changes)


def message_of(task: Task) -> Message:
    return Message(task.id, task.to_message())


def without_model(**changes: Any) -> Settings:
    return Settings(**{"mongodb_uri": None, "rabbitmq_url": None, **changes})


@dataclass
class Bench:
    """Workers around one database and one clock."""

    database: Database = field(default_factory=Database)
    clock: Clock = field(default_factory=Clock)
    settings: Settings = field(default_factory=without_model)

    @property
    def store(self) -> MongoTaskStore:
        return MongoTaskStore(self.database, clock=self.clock)

    def worker(self, handler: Handler, name: str = "engine-a") -> Worker:
        return Worker(self.store, self.settings, name, lambda _kind: handler)

    def stored(self, kind: str = "message", **changes: Any) -> Task:
        """A task that the database has."""
        return self.store.insert(a_task(kind, **changes))

    def now(self, task: Task) -> Task:
        """The task as the database has it now."""
        found = self.store.get(task.id)
        assert found is not None
        return found
