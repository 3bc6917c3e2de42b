"""The wire server as pymongo sees it: what it must get right for the other tests to mean anything."""

import contextlib
import datetime
import random
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import bson
import pymongo
import pytest
from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    NetworkTimeout,
    OperationFailure,
    ServerSelectionTimeoutError,
    WriteError,
)

from tests.servers.mongo_language import CommandError, applies, matcher, updated
from tests.servers.mongo_store import LONG_JOURNAL, documents_written, parts_of
from tests.servers.ports import LOOPBACK
from tests.servers.wire_mongo import HEADER, OP_MSG, WireMongo, frame

Tasks = Collection[dict[str, Any]]
Client = pymongo.MongoClient[dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WireMongo]:
    with WireMongo(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: WireMongo) -> Iterator[Client]:
    with pymongo.MongoClient(server.uri, serverSelectionTimeoutMS=5000) as client:
        yield client


@pytest.fixture
def tasks(client: Client) -> Tasks:
    return client["test"][f"tasks_{uuid.uuid4().hex}"]


def connect(server: WireMongo, **options: Any) -> Client:
    return pymongo.MongoClient(server.uri, **{"serverSelectionTimeoutMS": 5000, **options})


def test_says_what_it_is(client: Client) -> None:
    hello = client.admin.command("hello")
    assert hello["isWritablePrimary"] is True
    assert hello["maxWireVersion"] == 21
    assert "setName" not in hello
    assert "logicalSessionTimeoutMinutes" not in hello
    assert client.admin.command("ping")["ok"] == 1.0
    assert client.server_info()["version"].startswith("7.")


def test_refuses_commands_it_does_not_know(client: Client) -> None:
    with pytest.raises(OperationFailure) as caught:
        client.admin.command("teleport")
    assert caught.value.code == 59


def test_answers_bad_value_to_what_it_cannot_do(tasks: Tasks) -> None:
    tasks.insert_one({"_id": 1, "place": [1, 2]})
    with pytest.raises(OperationFailure) as caught:
        list(tasks.find({"place": {"$near": [1, 2]}}))
    assert caught.value.code == 2
    with pytest.raises(OperationFailure) as caught:
        list(tasks.find({"$where": "true"}))
    assert caught.value.code == 2
    with pytest.raises(OperationFailure) as caught:
        tasks.update_one({"_id": 1}, {"$set": {"place.$[x]": 1}}, array_filters=[{"x": 1}])
    assert caught.value.code == 2


def test_keeps_every_type_and_times_to_the_millisecond(tasks: Tasks) -> None:
    when = datetime.datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=datetime.UTC)
    written = {
        "_id": bson.ObjectId(),
        "when": when,
        "nested": {"list": [1, 2.5, "three", None, True, {"deep": b"bytes"}]},
        "long": bson.Int64(2**40),
        "uuid": bson.Binary.from_uuid(uuid.uuid4()),
    }
    tasks.insert_one(written)
    aware = tasks.with_options(bson.CodecOptions(tz_aware=True))
    read = aware.find_one({"when": when})
    assert read == {**written, "when": when.replace(microsecond=123000)}
    assert isinstance(read["long"], bson.Int64)


def test_names_the_key_of_a_duplicate(tasks: Tasks) -> None:
    tasks.create_index("key", unique=True)
    tasks.insert_one({"_id": "a", "key": "x"})
    with pytest.raises(DuplicateKeyError) as caught:
        tasks.insert_one({"_id": "b", "key": "x"})
    assert caught.value.code == 11000
    assert caught.value.details is not None
    assert caught.value.details["keyPattern"] == {"key": 1}
    assert caught.value.details["keyValue"] == {"key": "x"}
    with pytest.raises(DuplicateKeyError) as caught:
        tasks.insert_one({"_id": "a"})
    assert caught.value.details is not None
    assert caught.value.details["keyPattern"] == {"_id": 1}
    tasks.insert_one({"_id": "b", "key": "y"})
    with pytest.raises(DuplicateKeyError):
        tasks.update_one({"_id": "b"}, {"$set": {"key": "x"}})
    with pytest.raises(DuplicateKeyError):
        tasks.find_one_and_update({"_id": "b"}, {"$set": {"key": "x"}})
    with pytest.raises(DuplicateKeyError):
        tasks.find_one_and_update({"_id": "c", "key": "x"}, {"$set": {"n": 1}}, upsert=True)
    assert tasks.find_one({"_id": "b"}) == {"_id": "b", "key": "y"}


def test_lets_partial_and_sparse_indexes_leave_documents_out(tasks: Tasks) -> None:
    tasks.create_index("key", unique=True, partialFilterExpression={"key": {"$exists": True}})
    tasks.create_index("token", unique=True, sparse=True)
    tasks.insert_many([{"_id": 1}, {"_id": 2}, {"_id": 3, "key": "x", "token": "t"}])
    with pytest.raises(DuplicateKeyError):
        tasks.insert_one({"key": "x"})
    with pytest.raises(DuplicateKeyError):
        tasks.insert_one({"token": "t"})


def test_stops_at_the_first_error_only_if_ordered(tasks: Tasks) -> None:
    documents = [{"_id": 1}, {"_id": 1}, {"_id": 2}]
    with pytest.raises(BulkWriteError) as caught:
        tasks.insert_many(documents)
    assert caught.value.details["nInserted"] == 1
    assert [error["index"] for error in caught.value.details["writeErrors"]] == [1]
    tasks.delete_many({})
    with pytest.raises(BulkWriteError) as caught:
        tasks.insert_many(documents, ordered=False)
    assert caught.value.details["nInserted"] == 2


def test_counts_matched_modified_and_upserted(tasks: Tasks) -> None:
    tasks.insert_many([{"_id": i, "state": "queued"} for i in range(3)])
    result = tasks.update_one({"_id": 0}, {"$set": {"state": "queued"}})
    assert (result.matched_count, result.modified_count, result.upserted_id) == (1, 0, None)
    result = tasks.update_many({"state": "queued"}, {"$set": {"state": "running"}, "$inc": {"attempt": 1}})
    assert (result.matched_count, result.modified_count) == (3, 3)
    result = tasks.update_one({"_id": 9, "kind": "x"}, {"$set": {"n": 1}, "$setOnInsert": {"new": True}}, upsert=True)
    assert (result.matched_count, result.upserted_id) == (0, 9)
    assert tasks.find_one({"_id": 9}) == {"_id": 9, "kind": "x", "n": 1, "new": True}
    result = tasks.update_one({"_id": 9}, {"$set": {"n": 2}, "$setOnInsert": {"new": False}}, upsert=True)
    assert tasks.find_one({"_id": 9}) == {"_id": 9, "kind": "x", "n": 2, "new": True}
    assert tasks.delete_one({"state": "running"}).deleted_count == 1
    assert tasks.delete_many({"state": "running"}).deleted_count == 2
    assert tasks.delete_many({"state": "running"}).deleted_count == 0


def test_updates_with_the_operators_we_use(tasks: Tasks) -> None:
    tasks.insert_one({"_id": 1, "a": 1, "b": {"c": 1, "d": 2}, "log": ["x"]})
    tasks.update_one(
        {"_id": 1},
        {
            "$set": {"b.c": 5, "new.deep": True},
            "$inc": {"a": 2, "count": 1},
            "$unset": {"b.d": ""},
            "$push": {"log": {"$each": ["y", "z"]}},
            "$min": {"low": 3},
            "$max": {"a2": 4},
            "$currentDate": {"at": True},
        },
    )
    document = tasks.find_one({"_id": 1})
    assert document is not None
    at = document.pop("at")
    assert abs((datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - at).total_seconds()) < 5
    assert document == {
        "_id": 1,
        "a": 3,
        "b": {"c": 5},
        "log": ["x", "y", "z"],
        "count": 1,
        "new": {"deep": True},
        "low": 3,
        "a2": 4,
    }
    assert tasks.find_one({"at": at}) is not None
    tasks.replace_one({"_id": 1}, {"only": "this"})
    assert tasks.find_one({"_id": 1}) == {"_id": 1, "only": "this"}


@pytest.mark.parametrize(
    ("update", "code"),
    [
        ({"$inc": {"text": 1}}, 14),
        ({"$inc": {"flag": 1}}, 14),
        ({"$set": {"n.m": 5}}, 28),
        ({"$set": {"lease.until": 5}}, 28),
        ({"$set": {"n": 5, "_id": 2}}, 66),
        ({"$set": {"n": 5}, "$setOnInsert": {"n": 6}}, 40),
        ({"$set": {"n": 5}, "$inc": {"n.m": 6}}, 40),
        ({"$teleport": {"n": 5}}, 2),
    ],
)
def test_leaves_the_document_alone_when_an_update_fails(tasks: Tasks, update: dict[str, Any], code: int) -> None:
    before = {"_id": 1, "n": 1, "text": "abc", "flag": True, "lease": None}
    tasks.insert_one(before)
    with pytest.raises(WriteError) as caught:
        tasks.update_one({"_id": 1}, {"$set": {"other": 1}, **update} if "$set" not in update else update)
    assert caught.value.code == code
    assert tasks.find_one({"_id": 1}) == before


def test_finds_and_modifies_one(tasks: Tasks) -> None:
    tasks.insert_many([{"_id": i, "state": "queued", "rank": i % 3, "lease": None} for i in range(6)])
    order = [("rank", DESCENDING), ("_id", ASCENDING)]
    claim = {"$set": {"state": "running"}, "$inc": {"attempt": 1}}
    old = tasks.find_one_and_update({"state": "queued"}, claim, sort=order)
    assert old == {"_id": 2, "state": "queued", "rank": 2, "lease": None}
    new = tasks.find_one_and_update(
        {"state": "queued"}, claim, sort=order, return_document=ReturnDocument.AFTER, projection={"_id": 0, "lease": 0}
    )
    assert new == {"state": "running", "rank": 2, "attempt": 1}
    assert tasks.find_one({"_id": 5}, {"state": 1}) == {"_id": 5, "state": "running"}
    assert tasks.find_one_and_update({"state": "lost"}, claim) is None
    made = tasks.find_one_and_update(
        {"_id": "new"}, {"$setOnInsert": {"state": "queued"}}, upsert=True, return_document=ReturnDocument.AFTER
    )
    assert made == {"_id": "new", "state": "queued"}
    assert tasks.find_one_and_update({"_id": "newer"}, {"$set": {"n": 1}}, upsert=True) is None
    assert tasks.find_one_and_delete({"_id": "new"}) == made
    assert tasks.find_one_and_replace({"_id": 0}, {"n": 1}, return_document=ReturnDocument.AFTER) == {"_id": 0, "n": 1}


def test_finds_by_the_filters_we_use(tasks: Tasks) -> None:
    now = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
    later = now + datetime.timedelta(minutes=1)
    tasks.insert_many(
        [
            {"_id": "none"},
            {"_id": "null", "lease": None, "tags": []},
            {"_id": "old", "lease": now, "state": "running", "tags": ["a", "b"]},
            {"_id": "new", "lease": later, "state": "queued", "at": {"place": 3}},
        ]
    )

    def ids(query: dict[str, Any]) -> set[str]:
        return {document["_id"] for document in tasks.find(query)}

    assert ids({"lease": {"$not": {"$gt": now}}}) == {"none", "null", "old"}
    assert ids({"lease": None}) == {"none", "null"}
    assert ids({"lease": {"$exists": False}}) == {"none"}
    assert ids({"lease": {"$ne": None}}) == {"old", "new"}
    assert ids({"lease": {"$lte": now}}) == {"old"}
    assert ids({"$or": [{"state": "queued"}, {"state": "running", "lease": {"$lt": later}}]}) == {"old", "new"}
    assert ids({"$and": [{"state": "running"}, {"lease": {"$lte": now}}]}) == {"old"}
    assert ids({"state": {"$in": ["queued", "running"]}, "_id": {"$nin": ["old"]}}) == {"new"}
    assert ids({"_id": {"$in": ["new", "old", "lost"]}}) == {"new", "old"}
    assert ids({"_id": {"$gt": "new", "$lt": "null"}}) == {"none"}
    assert ids({"tags": "b"}) == {"old"}
    assert ids({"at.place": {"$gte": 3}}) == {"new"}
    assert ids({"lease.until": {"$not": {"$gt": now}}}) == ids({"lease.until": None}) == {"none", "null", "old", "new"}
    assert ids({"lease.until": {"$exists": True}}) == ids({"lease.until": {"$lt": now}}) == set()
    assert ids({"_id": {"$regex": "^n"}, "state": {"$exists": True}}) == {"new"}


def test_an_index_changes_the_speed_and_not_the_answer(tasks: Tasks) -> None:
    tasks.insert_many([{"_id": i, "a": i % 5, "b": [i % 2, 7]} for i in range(50)])
    queries: list[dict[str, Any]] = [
        {"a": 3},
        {"b": 7},
        {"b": [1, 7]},
        {"a": 3.0, "b": 1},
        {"a": None},
        {"a": {"$eq": 1}},
    ]
    plain = [list(tasks.find(query).sort("_id")) for query in queries]
    tasks.create_index("a")
    tasks.create_index([("a", 1), ("b", -1)])
    tasks.create_index("b")
    assert [list(tasks.find(query).sort("_id")) for query in queries] == plain
    tasks.update_many({"a": 3}, {"$set": {"a": 9}})
    tasks.delete_many({"a": 2})
    assert tasks.count_documents({"a": 3}) == tasks.count_documents({"a": 2}) == 0
    assert tasks.count_documents({"a": 9}) == 10


def test_sorts_by_mixed_directions_and_cuts(tasks: Tasks) -> None:
    tasks.insert_many([{"_id": i, "group": i % 2, "at": i // 2} for i in range(8)])
    found = tasks.find({}, {"_id": 1}).sort([("group", DESCENDING), ("at", ASCENDING)]).skip(1).limit(4)
    assert [document["_id"] for document in found] == [3, 5, 7, 0]
    assert tasks.find_one(sort=[("_id", DESCENDING)]) == {"_id": 7, "group": 1, "at": 3}


def test_projects_in_and_out(tasks: Tasks) -> None:
    tasks.insert_one({"_id": 1, "a": 1, "b": {"c": 2, "d": 3}})
    assert tasks.find_one({}, {"a": 1}) == {"_id": 1, "a": 1}
    assert tasks.find_one({}, {"_id": 0, "b.c": 1}) == {"b": {"c": 2}}
    assert tasks.find_one({}, {"a": 0, "b.d": 0}) == {"_id": 1, "b": {"c": 2}}
    assert tasks.find_one({}, {"_id": 0}) == {"a": 1, "b": {"c": 2, "d": 3}}


def test_counts_groups_and_lists_distinct_values(tasks: Tasks) -> None:
    tasks.insert_many([{"_id": i, "state": ["queued", "running", "done"][i % 3], "n": i} for i in range(10)])
    assert tasks.count_documents({}) == tasks.estimated_document_count() == 10
    assert tasks.count_documents({"state": "queued"}) == 4
    assert tasks.count_documents({"n": {"$gte": 2}}, limit=5) == 5
    assert tasks.count_documents({"state": "lost"}) == 0
    groups = tasks.aggregate([{"$match": {"n": {"$lt": 9}}}, {"$group": {"_id": "$state", "n": {"$sum": 1}}}])
    assert {group["_id"]: group["n"] for group in groups} == {"queued": 3, "running": 3, "done": 3}
    assert set(tasks.distinct("state", {"n": {"$lt": 2}})) == {"queued", "running"}


def test_hands_out_long_results_in_batches(tasks: Tasks) -> None:
    tasks.insert_many([{"_id": i} for i in range(1000)])
    assert [document["_id"] for document in tasks.find()] == list(range(1000))
    with tasks.find(batch_size=10) as cursor:
        assert [next(cursor)["_id"] for _ in range(25)] == list(range(25))
    big = "x" * 3_000_000
    tasks.insert_many([{"_id": f"big{i}", "text": big} for i in range(8)])
    assert sum(len(document["text"]) for document in tasks.find({"text": big})) == 8 * len(big)


#: Without true and NaN: in a search of all, where mongomock compares, true is 1 and NaN is not itself.
ODD: list[Any] = [[], [1, "a"], {"x": 1}, b"bytes", bson.ObjectId(b"0" * 12), 2.5, 1, 1.0]


@pytest.mark.parametrize("odd", [[], ODD], ids=["plain values", "values of any type"])
def test_ordered_indexes_answer_as_a_search_of_all_would(client: Client, odd: list[Any]) -> None:
    """Equalities, bounds and orders of all sorts, over documents that come, change and go."""
    dice = random.Random(7)
    moments = [datetime.datetime(2026, 1, 1, 0, 0, second, tzinfo=datetime.UTC) for second in range(4)]
    values: list[Any] = [None, "", "a", "b", *moments, *odd]
    plain, indexed = client["test"][f"plain_{uuid.uuid4().hex}"], client["test"][f"indexed_{uuid.uuid4().hex}"]
    indexed.create_index([("a", ASCENDING), ("b", DESCENDING), ("_id", DESCENDING)])
    indexed.create_index([("a", ASCENDING), ("c", ASCENDING), ("b", ASCENDING)])
    indexed.create_index([("c", ASCENDING), ("b", ASCENDING)])

    def anything() -> dict[str, Any]:
        return {name: dice.choice(values) for name in "abc" if dice.random() < 0.9}

    def condition() -> Any:
        if dice.random() < 0.6:
            return dice.choice(values)
        bounds = {operator: dice.choice(values) for operator in dice.sample(["$lt", "$lte", "$gt", "$gte"], 2)}
        return dice.choice([bounds, {"$not": {"$gt": dice.choice(moments)}}, {"$eq": dice.choice(values)}])

    for number in range(150):
        for collection, document in zip((plain, indexed), [{"_id": f"{number:03}", **anything()}] * 2, strict=True):
            collection.insert_one(dict(document))
    for number in range(150):
        changed, gone = f"{dice.randrange(150):03}", f"{dice.randrange(150):03}"
        change = {"$set": anything() or {"a": None}}
        query = {name: condition() for name in dice.sample("abc", dice.randrange(1, 4))}
        order = dice.choice([[("b", -1), ("_id", -1)], [("b", 1), ("_id", 1)], [("_id", 1)], [("c", 1), ("_id", -1)]])
        limit = dice.choice([0, 3])
        for collection in (plain, indexed):
            collection.update_one({"_id": changed}, change)
            if number % 5 == 0:
                collection.delete_one({"_id": gone})
        answers = []
        for collection in (plain, indexed):
            try:
                answers.append([found["_id"] for found in collection.find(query).sort(order).limit(limit)])
            except OperationFailure as error:
                answers.append([str(error.code)])
        assert answers[0] == answers[1], (query, order, limit)


def test_comparisons_of_fields_say_what_the_whole_language_would() -> None:
    dice = random.Random(11)
    moments = [datetime.datetime(2026, 1, 1, 0, 0, second, tzinfo=datetime.UTC) for second in range(2)]
    values: list[Any] = [None, "", "a", 0, 1, 2.0, bson.Int64(1), True, *moments, [], ["a", None], {"x": 1}, b"a"]

    def condition() -> Any:
        value = dice.choice(values)
        operator = dice.choice(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"])
        given = {operator: dice.sample(values, dice.randrange(4)) if operator in ("$in", "$nin") else value}
        return dice.choice([value, given, {"$not": given}, {**given, "$gte": dice.choice(values)}])

    for _ in range(5000):
        document = {name: dice.choice(values) for name in "abc" if dice.random() < 0.8}
        query = {name: condition() for name in dice.sample(["a", "b", "c", "c.x"], dice.randrange(1, 4))}
        assert matcher(query)(document) == applies(query, document), (query, document)


def test_setting_whole_fields_does_what_the_whole_language_would() -> None:
    dice = random.Random(12)
    values: list[Any] = [None, "a", 1, 2.5, bson.Int64(2**40), True, [1], {"x": 1}]
    for _ in range(1000):
        document = {"_id": 1, **{name: dice.choice(values) for name in "abc" if dice.random() < 0.8}}
        update = {
            "$set": {name: dice.choice(values) for name in dice.sample("abc", dice.randrange(3))},
            "$inc": {
                name: dice.choice([1, -2, 0.5, True, None, "x"]) for name in dice.sample("bcd", dice.randrange(2))
            },
        }
        outcomes: list[Any] = []
        before = bson.encode(document)
        for more in ({}, {"$unset": {"other": ""}}):  # which is not seen to at once
            try:
                outcomes.append(bson.encode(updated(document, {}, {**update, **more}, inserting=False)))
            except CommandError as error:
                outcomes.append(error.code)
        assert outcomes[0] == outcomes[1], (document, update)
        assert bson.encode(document) == before


def test_explains_whether_an_index_serves_a_query(client: Client) -> None:
    name = f"tasks_{uuid.uuid4().hex}"
    client["test"][name].create_index([("a", ASCENDING), ("b", DESCENDING)])
    client["test"][name].insert_many([{"_id": number, "a": number % 2, "b": number} for number in range(20)])

    def explained(query: dict[str, Any], sort: dict[str, int], limit: int = 0) -> tuple[Any, int]:
        command = {"find": name, "filter": query, "sort": sort, "limit": limit}
        found = client["test"].command("explain", command)
        return found["queryPlanner"]["winningPlan"], found["executionStats"]["totalDocsExamined"]

    scan = {"stage": "IXSCAN", "indexName": "a_1_b_-1"}
    assert explained({"a": 1}, {"b": -1}, 3) == (scan, 3)
    assert explained({"a": 1}, {"b": 1}, 3) == (scan, 3), "backwards"
    assert explained({"a": 1, "b": {"$lt": 5}}, {"b": -1}) == (scan, 2)
    assert explained({"a": 1}, {"_id": 1}, 3) == ({"stage": "SORT", "inputStage": scan}, 10)
    assert explained({"b": 1}, {"b": 1}) == ({"stage": "SORT", "inputStage": {"stage": "COLLSCAN"}}, 20)
    assert explained({"_id": 1}, {}) == ({"stage": "IDHACK"}, 0)


def test_manages_indexes_and_collections(client: Client) -> None:
    database = client[f"db_{uuid.uuid4().hex}"]
    assert database.list_collection_names() == []
    assert list(database["tasks"].list_indexes()) == []
    assert database["tasks"].create_index([("a", 1), ("b", -1)]) == "a_1_b_-1"
    assert database["tasks"].create_index([("a", 1), ("b", -1)]) == "a_1_b_-1"
    with pytest.raises(OperationFailure) as caught:
        database["tasks"].create_index([("a", 1), ("b", -1)], unique=True)
    assert caught.value.code == 85
    database["tasks"].create_indexes([pymongo.IndexModel("c", unique=True), pymongo.IndexModel("d")])
    assert set(database["tasks"].index_information()) == {"_id_", "a_1_b_-1", "c_1", "d_1"}
    assert database["tasks"].index_information()["c_1"]["unique"] is True
    with pytest.raises(OperationFailure) as caught:
        database["tasks"].create_index("late", expireAfterSeconds=2**31)
    assert caught.value.code == 67
    database["tasks"].drop_index("c_1")
    with pytest.raises(OperationFailure) as caught:
        database["tasks"].drop_index("c_1")
    assert caught.value.code == 27
    database["tasks"].insert_many([{"same": 1}, {"same": 1}])
    with pytest.raises(DuplicateKeyError):
        database["tasks"].create_index("same", unique=True)
    database["other"].insert_one({})
    assert set(database.list_collection_names()) == {"tasks", "other"}
    assert database.list_collection_names(filter={"name": "other"}) == ["other"]
    database["other"].drop()
    assert database.list_collection_names() == ["tasks"]
    client.drop_database(database.name)
    assert database.name not in client.list_database_names()


def test_deletes_what_is_past_its_time(tasks: Tasks) -> None:
    now = datetime.datetime.now(datetime.UTC)
    tasks.create_index("expires", expireAfterSeconds=0)
    tasks.insert_many(
        [
            {"_id": "gone", "expires": now},
            {"_id": "stays", "expires": now + datetime.timedelta(hours=1)},
            {"_id": "never"},
        ]
    )
    deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=10)
    while tasks.count_documents({}) == 3 and datetime.datetime.now(datetime.UTC) < deadline:
        threading.Event().wait(0.1)
    assert {document["_id"] for document in tasks.find()} == {"stays", "never"}


def test_takes_unacknowledged_and_bulk_writes(tasks: Tasks) -> None:
    silent = tasks.with_options(write_concern=pymongo.WriteConcern(w=0))
    for i in range(20):
        silent.insert_one({"_id": i})
    deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=10)
    while tasks.count_documents({}) < 20 and datetime.datetime.now(datetime.UTC) < deadline:
        threading.Event().wait(0.02)
    result = tasks.bulk_write(
        [
            pymongo.InsertOne({"_id": 20}),
            pymongo.UpdateOne({"_id": 3}, {"$set": {"n": 1}}),
            pymongo.DeleteOne({"_id": 4}),
        ]
    )
    assert (result.inserted_count, result.modified_count, result.deleted_count) == (1, 1, 1)
    assert tasks.count_documents({}) == 20


def message(command: dict[str, Any], number: int = 1) -> bytes:
    return frame(number, 0, OP_MSG, bytes(5) + bson.encode({**command, "$db": "test"}))


def answer(stream: BinaryIO) -> tuple[int, dict[str, Any]]:
    """The next answer on a connection, and the number of the message that it answers."""
    length, _, number, _ = HEADER.unpack(stream.read(HEADER.size))
    return number, bson.decode(stream.read(length - HEADER.size)[5:])


def test_takes_messages_in_pieces_and_several_at_once(server: WireMongo, tasks: Tasks) -> None:
    with socket.create_connection((LOOPBACK, server.port), 10) as connection, connection.makefile("rb") as stream:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in message({"ping": 1}, 1):
            connection.send(bytes([byte]))
        assert answer(stream) == (1, {"ok": 1.0})
        insert, count = {"insert": tasks.name, "documents": [{"_id": 1}]}, {"count": tasks.name}
        connection.sendall(message(insert, 2) + message(count, 3))
        assert answer(stream) == (2, {"n": 1, "ok": 1.0})
        assert answer(stream) == (3, {"n": 1, "ok": 1.0})


@pytest.mark.parametrize("nonsense", [bytes(16), struct.pack("<iiii", 20, 1, 0, 7) + bytes(4), b"\x20" + bytes(40)])
def test_hangs_up_on_what_is_no_message_and_serves_the_others(server: WireMongo, tasks: Tasks, nonsense: bytes) -> None:
    with socket.create_connection((LOOPBACK, server.port), 10) as connection:
        connection.sendall(nonsense)
        assert connection.recv(1) == b""
    assert tasks.count_documents({}) == 0


def test_a_client_that_does_not_read_keeps_nobody_waiting(server: WireMongo, tasks: Tasks) -> None:
    text = "x" * 3_000_000
    tasks.insert_many([{"_id": number, "text": text} for number in range(5)])
    with socket.create_connection((LOOPBACK, server.port), 10) as connection, connection.makefile("rb") as stream:
        connection.sendall(message({"find": tasks.name}, 1))
        for _ in range(10):
            assert tasks.count_documents({}) == 5
        number, found = answer(stream)
        assert number == 1
        assert [document["text"] for document in found["cursor"]["firstBatch"]] == [text] * 5
        connection.sendall(message({"ping": 1}, 2))
        assert answer(stream) == (2, {"ok": 1.0})


def test_lets_one_of_many_claim_a_task(tasks: Tasks) -> None:
    tasks.insert_many([{"_id": i, "state": "queued"} for i in range(100)])
    claimed: list[int] = []

    def claim() -> None:
        while task := tasks.find_one_and_update({"state": "queued"}, {"$set": {"state": "running"}, "$inc": {"n": 1}}):
            claimed.append(task["_id"])

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(100))
    assert tasks.count_documents({"n": 1}) == 100


def test_a_long_journal_is_begun_anew_and_still_tells_everything(tmp_path: Path) -> None:
    path = tmp_path / "journal.bson"
    with WireMongo(tmp_path) as server, connect(server) as client:
        tasks = client["test"]["tasks"]
        tasks.create_index("state")
        tasks.insert_many([{"_id": i, "state": 0} for i in range(1000)])
        for state in range(1, LONG_JOURNAL // 1000 + 1):
            tasks.update_many({}, {"$set": {"state": state}})
        before = list(tasks.find())
        for _ in range(2):
            server.restart()
            assert list(tasks.find()) == before
        tasks.update_one({"_id": 0}, {"$set": {"state": "last"}})
    assert len(parts_of(path)) == 2, "only the long one"
    written = [document["state"] for document in documents_written(path, ".tasks") if document["_id"] == 0]
    assert written == [*range(LONG_JOURNAL // 1000 + 1), "last"]


def test_keeps_what_it_acknowledged_over_a_kill(tmp_path: Path) -> None:
    with WireMongo(tmp_path) as server, connect(server) as client:
        tasks = client["test"]["tasks"]
        tasks.create_index("key", unique=True)
        tasks.insert_many([{"_id": i, "key": f"k{i}"} for i in range(200)])
        tasks.update_many({"_id": {"$lt": 100}}, {"$set": {"state": "done"}, "$currentDate": {"at": True}})
        tasks.delete_one({"_id": 199})
        made = tasks.update_one({"key": "made"}, {"$set": {"state": "new"}}, upsert=True).upserted_id
        with pytest.raises(DuplicateKeyError):
            tasks.insert_one({"key": "k1"})
        client["test"]["gone"].insert_one({})
        client["test"]["gone"].drop()
        before = list(tasks.find())
        server.kill()
        with (tmp_path / "journal.bson").open("ab") as journal:
            journal.write(struct.pack("<i", 5000) + b"a torn record")
        server.start()
        assert list(tasks.find()) == before
        assert tasks.find_one({"_id": made}) == {"_id": made, "key": "made", "state": "new"}
        assert client["test"].list_collection_names() == ["tasks"]
        with pytest.raises(DuplicateKeyError):
            tasks.insert_one({"key": "k1"})
        tasks.insert_one({"_id": "after", "key": "after"})
        server.restart()
        assert tasks.count_documents({}) == 201


def test_keeps_every_acknowledged_write_of_a_busy_moment(tmp_path: Path) -> None:
    with WireMongo(tmp_path) as server, connect(server, serverSelectionTimeoutMS=200) as client:
        tasks, acknowledged = client["test"]["tasks"], []

        def write() -> None:
            with contextlib.suppress(ConnectionFailure):
                while True:
                    acknowledged.append(tasks.insert_one({}).inserted_id)

        threads = [threading.Thread(target=write) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(acknowledged) < 200:
            threading.Event().wait(0.01)
        server.kill()
        for thread in threads:
            thread.join()
        server.start()
        with connect(server) as again:
            assert again["test"]["tasks"].count_documents({"_id": {"$in": acknowledged}}) == len(acknowledged)


def test_times_out_while_frozen_and_recovers_when_thawed(tmp_path: Path) -> None:
    with WireMongo(tmp_path) as server, connect(server, socketTimeoutMS=300, serverSelectionTimeoutMS=300) as client:
        tasks = client["test"]["tasks"]
        tasks.insert_one({"_id": 1})
        server.freeze()
        with pytest.raises((NetworkTimeout, ServerSelectionTimeoutError)):
            tasks.find_one({"_id": 1})
        server.thaw()
        with connect(server) as again:
            assert again["test"]["tasks"].find_one({"_id": 1}) == {"_id": 1}
        server.freeze()
        assert server.stop() == 0
