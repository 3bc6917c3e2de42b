"""FerretDB behind its gate: enough of MongoDB to hold the other server's answers against."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError, NetworkTimeout, OperationFailure, ServerSelectionTimeoutError

from tests.servers import require
from tests.servers.ferretdb import FerretDB, ferretdb_missing

pytestmark = pytest.mark.timeout(900)  # the first time it is built, which takes minutes on a small machine

Client = pymongo.MongoClient[dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FerretDB]:
    require(ferretdb_missing())
    with FerretDB(tmp_path_factory.mktemp("ferretdb")) as server:
        yield server


def connect(server: FerretDB, **options: Any) -> Client:
    return pymongo.MongoClient(server.uri, **{"serverSelectionTimeoutMS": 5000, **options})


def test_claims_sorts_counts_and_refuses_duplicates(server: FerretDB) -> None:
    with connect(server) as client:
        tasks = client["test"]["tasks"]
        tasks.create_index("key", unique=True)
        tasks.insert_many([{"_id": i, "key": f"k{i}", "state": "queued", "rank": i % 3} for i in range(6)])
        claimed = tasks.find_one_and_update(
            {"state": "queued", "lease": {"$not": {"$gt": 5}}},
            {"$set": {"state": "running"}, "$inc": {"attempt": 1}},
            sort=[("rank", DESCENDING), ("_id", ASCENDING)],
            return_document=ReturnDocument.AFTER,
        )
        assert claimed == {"_id": 2, "key": "k2", "state": "running", "rank": 2, "attempt": 1}
        assert tasks.count_documents({"$or": [{"state": "running"}, {"rank": 0}]}) == 3
        with pytest.raises(DuplicateKeyError):
            tasks.insert_one({"key": "k1"})
        made = tasks.update_one({"key": "new"}, {"$set": {"n": 1}, "$setOnInsert": {"state": "queued"}}, upsert=True)
        assert tasks.find_one({"_id": made.upserted_id}, {"_id": 0, "key": 0}) == {"n": 1, "state": "queued"}
        groups = tasks.aggregate([{"$group": {"_id": "$state", "n": {"$sum": 1}}}])
        assert {group["_id"]: group["n"] for group in groups} == {"queued": 6, "running": 1}


def test_has_no_ttl_indexes(server: FerretDB) -> None:
    with connect(server) as client, pytest.raises(OperationFailure) as caught:
        client["test"]["ttl"].create_index("expires", expireAfterSeconds=0)
    assert caught.value.code == 238


def test_lets_one_command_through_at_a_time(server: FerretDB) -> None:
    with connect(server) as client:
        tasks = client["test"]["contested"]
        tasks.insert_many([{"_id": i, "state": "queued"} for i in range(30)])
        claimed: list[int] = []

        def claim() -> None:
            while task := tasks.find_one_and_update({"state": "queued"}, {"$set": {"state": "running"}}):
                claimed.append(task["_id"])

        threads = [threading.Thread(target=claim) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(claimed) == list(range(30))


def test_sends_no_answer_to_an_unacknowledged_write(server: FerretDB) -> None:
    with connect(server, maxPoolSize=1) as client:
        tasks = client["test"]["silent"]
        tasks.with_options(write_concern=pymongo.WriteConcern(w=0)).insert_one({"_id": 1})
        assert tasks.find_one() == {"_id": 1}


def test_keeps_what_it_acknowledged_over_a_kill_and_thaws(tmp_path: Path) -> None:
    require(ferretdb_missing())
    with FerretDB(tmp_path) as server:
        with connect(server) as client:
            client["test"]["tasks"].insert_many([{"_id": i} for i in range(100)])
            server.kill()
            server.start()
            assert client["test"]["tasks"].count_documents({}) == 100
        with connect(server, socketTimeoutMS=300, serverSelectionTimeoutMS=300) as client:
            client.admin.command("ping")
            server.freeze()
            with pytest.raises((NetworkTimeout, ServerSelectionTimeoutError)):
                client["test"]["tasks"].find_one()
            server.thaw()
        with connect(server) as client:
            assert client["test"]["tasks"].count_documents({}) == 100
        assert server.stop() == 0
