"""What the contracts share."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mongomock
import pytest
import uvloop

from sluice.store import MongoTaskStore, open_mongodb
from tests.contract.stores import SERVERS, Answering, Clock
from tests.servers.ports import LOOPBACK, free_port
from tests.servers.wire_mongo import Server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=SERVERS)
def store(request: pytest.FixtureRequest, clock: Clock) -> Iterator[MongoTaskStore]:
    database = f"test_{uuid.uuid4().hex[:8]}"
    if request.param == "mongomock":
        yield MongoTaskStore(mongomock.MongoClient(tz_aware=True), database, clock=clock, one_at_a_time=True)
        return
    if request.param == "MONGODB_URI":
        uri = os.environ["MONGODB_URI"]
    else:
        uri = request.getfixturevalue({"wire": "wire_mongo", "ferretdb": "ferretdb"}[request.param]).uri
    store = open_mongodb(uri, database, timeout=10)
    store.clock = clock
    yield store
    store._client.drop_database(database)
    store.close()


@pytest.fixture
def bent(tmp_path: Path, clock: Clock) -> Iterator[tuple[Answering, MongoTaskStore]]:
    port = free_port()
    commands = Answering(tmp_path / "journal")
    with Server(port, commands) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        with closing(open_mongodb(f"mongodb://{LOOPBACK}:{port}/?directConnection=true", "test")) as store:
            store.clock = clock
            yield commands, store
        server.shutdown()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop, as the functions' processes have it, that runs on a thread of its own."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="event loop", daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
