"""Databases with very many tasks, filled faster than by inserting: into the file that the server then starts on.

Every crowd has the tasks of one user, `READER`, who is measured, and those of others. They are the same tasks for the
same numbers, in whichever database.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bson
import pymongo

from sluice.store import INDEXES, MongoTaskStore, open_mongodb
from sluice.task import Document, Task, new_task
from tests.servers.ferretdb import FerretDB
from tests.servers.sqlite_plans import COLUMN
from tests.servers.wire_mongo import WireMongo

READER = "reader"

#: Tasks that each of the others has.
TASKS_PER_USER = 100

DATABASE = "crowd"

#: A fixed moment, so that a crowd is the same each time.
NOW = datetime(2026, 7, 14, tzinfo=UTC)

#: One task in so many is not finished.
UNFINISHED_ONE_IN = 200

CODE = "def total(a: int, b: int, c: int) -> int:\n    return a + b + c\n"

#: Seconds that a server may take to start on a large file.
START_SECONDS = 600.0

#: Tasks in one command.
BATCH = 1000


def tasks(own: int, others: int) -> Iterator[Document]:
    """The documents of a crowd: the reader's and the others' mixed in time, about one a second."""
    dice = random.Random(1)
    total = own + others
    for number in range(total):
        # The reader's tasks are spread over all of them, as they come in while others add theirs.
        is_own = number * own // total != (number + 1) * own // total
        user = READER if is_own else f"user-{dice.randrange(max(1, others // TASKS_PER_USER))}"
        yield _task(f"{dice.getrandbits(128):032x}", user, NOW - timedelta(seconds=total - number), dice)


def _task(task_id: str, user: str, at: datetime, dice: random.Random) -> Document:
    inputs: Document = {"objective": "Create a function that sums up three numbers.", "language": "python"}
    outputs: Document = {"code": "", "explanation": ""}
    task = new_task(
        task_id=task_id, user_id=user, kind="code", inputs=inputs, outputs=outputs, now=at, ttl=timedelta(seconds=300)
    )
    if dice.randrange(UNFINISHED_ONE_IN) == 0:
        return {**task.document, "queued_at": at}
    done = task.replace(
        queued_at=at,
        started_at=at + timedelta(milliseconds=5),
        completed_at=at + timedelta(seconds=2),
        lease_until=None,
        status="failed" if dice.randrange(20) == 0 else "completed",
        progress=100,
        attempts=1,
        engine="engine-1",
        code=CODE,
        explanation="Adds the three.",
    )
    return done.document


def wire(directory: Path, own: int, others: int) -> WireMongo:
    """A wire server, started, with such a crowd; the caller stops it."""
    server = WireMongo(directory)
    server.start_seconds = START_SECONDS
    server.journal.parent.mkdir(parents=True, exist_ok=True)
    name = f"{DATABASE}.tasks"
    with server.journal.open("wb") as journal:
        journal.write(bson.encode({"ns": name, "create": True}))
        for document in tasks(own, others):
            journal.write(bson.encode({"ns": name, "put": document}))
        for index, keys in INDEXES.items():
            journal.write(bson.encode({"ns": name, "index": {"v": 2, "name": index, "key": dict(keys)}}))
    server.start()
    return server


def ferretdb(directory: Path, own: int, others: int) -> FerretDB:
    """FerretDB, started, with such a crowd; the caller stops it.

    It makes its tables and indexes itself, and writes the first tasks; the rest is put into its file as it would have
    written them, with the indexes made once all are there.
    """
    server = FerretDB(directory)
    server.start_seconds = START_SECONDS
    crowd = tasks(own, others)
    first = [document for document, _ in zip(crowd, range(BATCH), strict=False)]
    server.start()
    with pymongo.MongoClient[Document](server.uri) as client:
        MongoTaskStore(client, DATABASE).create_indexes()
        client[DATABASE]["tasks"].insert_many(first)
    server.stop()
    with sqlite3.connect(file_of(directory)) as database:
        _fill(database, crowd)
    database.close()
    server.start()
    return server


def file_of(directory: Path) -> Path:
    """The file in which FerretDB keeps a crowd."""
    return directory / "data" / f"{DATABASE}.sqlite"


def _fill(database: sqlite3.Connection, crowd: Iterator[Document]) -> None:
    ((table,),) = database.execute(
        "SELECT name FROM sqlite_master WHERE name LIKE 'tasks!_%' ESCAPE '!' AND type = 'table'"
    )
    indexes = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ?", [table]
    ).fetchall()
    for name, _ in indexes:
        database.execute(f'DROP INDEX "{name}"')
    rows = ((json.dumps(_as_kept(document), separators=(",", ":")),) for document in crowd)
    database.executemany(f'INSERT INTO "{table}" VALUES (?)', rows)
    for _, sql in indexes:
        database.execute(sql)
    # FerretDB 1.24 makes its index of `_ferretdb_sjson->"_id"`, and then asks for `->'$._id'`, which that does not
    # serve: without this one even a single task is looked for among all.
    database.execute(f"""CREATE INDEX by_id ON "{table}" ({COLUMN}->'$._id')""")


def _as_kept(document: Document) -> Document:
    """A document as FerretDB 1.24 keeps it: the types of its fields, and then their values."""
    kinds = {str: "string", int: "int", datetime: "date", type(None): "null"}
    types: Document = {
        name: {"t": "array", "i": []} if isinstance(value, list) else {"t": kinds[type(value)]}
        for name, value in document.items()
    }
    values = {
        name: round(value.timestamp() * 1000) if isinstance(value, datetime) else value
        for name, value in document.items()
    }
    return {"$s": {"p": types, "$k": list(document)}, **values}


def ids_of(uri: str, count: int) -> list[str]:
    """Some ids of the reader's tasks, newest first."""
    store = open_mongodb(uri, DATABASE, timeout=60)
    try:
        page, _ = store.page(READER, limit=count)
        return [task.id for task in page if isinstance(task, Task)]
    finally:
        store.close()
