"""Every query that grows with the number of tasks goes through an index that serves its condition and its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.monitoring import CommandListener, CommandStartedEvent

from sluice.store import INDEXES, Cursor, MongoTaskStore
from sluice.task import STATUSES, Document, new_id, new_task
from tests.servers import require
from tests.servers.ferretdb import FerretDB, ferretdb_missing
from tests.servers.sqlite_plans import Plans
from tests.servers.wire_mongo import WireMongo

NOW = datetime(2026, 7, 14, tzinfo=UTC)
OTHERS, OWN = 200, 60

#: What the store is asked for, and the index that has to serve it. `None`: by `_id` alone.
QUERIES: dict[str, tuple[Callable[[MongoTaskStore], object], str | None]] = {
    "a list": (lambda s: s.page("ada", limit=5), "user_newest"),
    "its next page": (lambda s: s.page("ada", limit=5, after=Cursor(NOW, new_id())), "user_newest"),
    "a list of one status": (lambda s: s.page("ada", status="completed", limit=5), "user_status_newest"),
    "its next page too": (
        lambda s: s.page("ada", status="completed", limit=5, after=Cursor(NOW, new_id())),
        "user_status_newest",
    ),
    "a list of one kind": (lambda s: s.page("ada", kind="code", limit=5), "user_kind_newest"),
    "a list for summaries": (lambda s: s.page("ada", limit=5, fields=["_id", "created_at"]), "user_newest"),
    "one task": (lambda s: s.get(new_id()), None),
    "the sweep: unqueued": (lambda s: s.unqueued(5), "status_queued_created"),
    "the sweep: quiet": (lambda s: s.quiet(NOW, 5), "status_queued_created"),
    "the sweep: overdue": (lambda s: s.overdue(NOW, 5), "status_deadline"),
    "the sweep: abandoned": (lambda s: s.abandoned(NOW, 5), "status_lease"),
}


class Finds(CommandListener):
    """The find commands that a client sends."""

    def __init__(self) -> None:
        self.commands: list[Document] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "find":
            wanted = ("filter", "sort", "limit")
            self.commands.append({name: event.command[name] for name in wanted if name in event.command})

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MongoTaskStore, Finds]]:
    with WireMongo(tmp_path_factory.mktemp("indexes")) as server:
        yield from filled(server.uri)


def filled(uri: str) -> Iterator[tuple[MongoTaskStore, Finds]]:
    finds = Finds()
    with pymongo.MongoClient[Document](uri, event_listeners=[finds]) as client:
        store = MongoTaskStore(client, "indexes", timeout=10)
        store.create_indexes()
        users = ["ada"] * OWN + [f"user-{number % 7}" for number in range(OTHERS)]
        client["indexes"]["tasks"].insert_many(a_task(user, number) for number, user in enumerate(users))
        yield store, finds


def a_task(user: str, number: int) -> Document:
    at = NOW - timedelta(seconds=number)
    fresh = new_task(
        task_id=new_id(),
        user_id=user,
        kind=("code", "message")[number % 2],
        inputs={},
        outputs={},
        now=at,
        ttl=timedelta(seconds=30),
    )
    status = STATUSES[number % len(STATUSES)]
    return {**fresh.document, "status": status, "queued_at": at if number % 3 else None, "lease_until": at}


def asked(store: MongoTaskStore, finds: Finds, query: str) -> Document:
    """The command that the store sends for this query."""
    finds.commands.clear()
    QUERIES[query][0](store)
    [command] = finds.commands
    return command


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_looks_at_no_more_tasks_than_it_gives(wire: tuple[MongoTaskStore, Finds], query: str) -> None:
    store, finds = wire
    command = asked(store, finds, query)
    found = store._client["indexes"].command("explain", {"find": "tasks", **command})
    index = QUERIES[query][1]
    if index is None:
        assert found["queryPlanner"]["winningPlan"] == {"stage": "IDHACK"}
        return
    assert found["queryPlanner"]["winningPlan"] == {"stage": "IXSCAN", "indexName": index}, "and no SORT around it"
    stats = found["executionStats"]
    assert 0 < stats["totalDocsExamined"] <= stats["nReturned"] + 1
    assert stats["nReturned"] == command["limit"]


def test_a_real_planner_serves_each_query_by_its_index_alone(
    wire: tuple[MongoTaskStore, Finds], tmp_path: Path
) -> None:
    """SQLite's, over the indexes that FerretDB has made for it."""
    require(ferretdb_missing())
    with FerretDB(tmp_path) as server, pymongo.MongoClient[Document](server.uri) as client:
        real = MongoTaskStore(client, "indexes", timeout=60)
        real.create_indexes()
        client["indexes"]["tasks"].insert_one(a_task("ada", 1))
    plans = Plans(tmp_path / "data" / "indexes.sqlite", "tasks")
    for query, (_, index) in QUERIES.items():
        command = asked(*wire, query)
        # FerretDB's own order of types is not asked for: SQLite compares texts.
        steps = plans.explain(command["filter"], command.get("sort", {}), command.get("limit", 0))
        assert len(steps) == 1, f"{query}: one search, and no sorting after it: {steps}"
        assert f"_{index or '_id_'} (" in steps[0], f"{query}: {steps}"
        assert steps[0].startswith("SEARCH"), f"{query}: {steps}"
    plans.close()


def test_each_index_serves_a_query() -> None:
    """One that serves none costs every write something, and gives nothing."""
    assert {index for _, index in QUERIES.values()} - {None} == set(INDEXES)
