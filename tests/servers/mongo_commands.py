"""MongoDB's commands over the store: a command document in, a reply document out."""

import datetime
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument

from tests.servers.mongo_language import (
    CODE_NAMES,
    CommandError,
    Document,
    aggregated,
    is_operators,
    projected,
    updated,
    upsert_seed,
    values_at,
)
from tests.servers.mongo_store import MAX_DOCUMENT_BYTES, Collection, Store, Stored, embedded, hashable

#: Documents in a cursor's first batch, if the client does not say.
FIRST_BATCH = 101

#: What the server says it is: the wire version of MongoDB 7.0, alone (no replica set, so no sessions and no retries).
HELLO = {
    "maxBsonObjectSize": MAX_DOCUMENT_BYTES,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "readOnly": False,
}
BUILD_INFO = {"version": "7.0.0", "versionArray": [7, 0, 0, 0], "maxBsonObjectSize": MAX_DOCUMENT_BYTES}


class Commands:
    """Runs commands one after the other; what they wrote is in the journal after the next `commit`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cursors: dict[int, tuple[str, list[Document]]] = {}
        self._cursor_ids = itertools.count(1)
        self._commands: dict[str, Callable[[Document], Document]] = {
            "aggregate": self._aggregate,
            "buildInfo": lambda _: dict(BUILD_INFO),
            "count": self._count,
            "create": self._create,
            "createIndexes": self._create_indexes,
            "delete": self._delete,
            "distinct": self._distinct,
            "drop": self._drop,
            "dropDatabase": self._drop_database,
            "dropIndexes": self._drop_indexes,
            "endSessions": lambda _: {},
            "explain": self._explain,
            "find": self._find,
            "findAndModify": self._find_and_modify,
            "getMore": self._get_more,
            "hello": lambda _: {"isWritablePrimary": True, "helloOk": True, "localTime": now(), **HELLO},
            "insert": self._insert,
            "isMaster": lambda _: {"ismaster": True, "helloOk": True, "localTime": now(), **HELLO},
            "killCursors": self._kill_cursors,
            "listCollections": self._list_collections,
            "listDatabases": self._list_databases,
            "listIndexes": self._list_indexes,
            "ping": lambda _: {},
            "update": self._update,
        }
        for old, name in {"ismaster": "isMaster", "buildinfo": "buildInfo", "findandmodify": "findAndModify"}.items():
            self._commands[old] = self._commands[name]

    def run(self, command: Document) -> Document:
        """The reply to `command`, whose first field is its name and whose `$db` is the database."""
        name = next(iter(command))
        try:
            if name not in self._commands:
                raise CommandError(59, f"no such command: '{name}'")
            if "txnNumber" in command:
                raise CommandError(20, "Transaction numbers are only allowed on a replica set member or mongos")
            return {**self._commands[name](command), "ok": 1.0}
        except CommandError as error:
            return {"ok": 0.0, **error.document(), "codeName": CODE_NAMES.get(error.code, "Location")}

    def commit(self) -> None:
        """Writes down what the commands so far have done, those too that failed halfway."""
        self._store.commit()

    def delete_expired(self) -> None:
        """What the TTL monitor of a real server does once a minute."""
        self._store.delete_expired()
        self._store.commit()

    # -- writing ------------------------------------------------------------------------------------------------------

    def _insert(self, command: Document) -> Document:
        collection = self._writable(command, "insert")
        return run_each(command, command["documents"], lambda document, _: 1 if collection.insert(document) else 0)

    def _update(self, command: Document) -> Document:
        collection = self._writable(command, "update")
        modified, upserted = 0, []

        def update(statement: Document, position: int) -> int:
            nonlocal modified
            refuse(statement, "collation", "arrayFilters")
            query, change = statement["q"], statement["u"]
            found = collection.find(query, statement.get("sort"))
            if statement.get("multi"):
                if isinstance(change, dict) and not is_operators(change):
                    raise CommandError(9, "multi update is not supported for replacement-style update")
            else:
                found = found[:1]
            for document in found:
                modified += collection.replace(document, updated(document, query, change, inserting=False))
            if not found and statement.get("upsert"):
                upserted.append({"index": position, "_id": upsert(collection, query, change)["_id"]})
                return 1
            return len(found)

        reply = run_each(command, command["updates"], update)
        return {**reply, "nModified": modified, **({"upserted": upserted} if upserted else {})}

    def _delete(self, command: Document) -> Document:
        collection = self._writable(command, "delete")

        def delete(statement: Document, _: int) -> int:
            refuse(statement, "collation")
            found = collection.find(statement["q"])
            if statement["limit"]:
                found = found[:1]
            for document in found:
                collection.delete(document)
            return len(found)

        return run_each(command, command["deletes"], delete)

    def _find_and_modify(self, command: Document) -> Document:
        refuse(command, "collation", "arrayFilters")
        collection = self._writable(command, next(iter(command)))
        query, change, fields = command.get("query") or {}, command.get("update"), command.get("fields")
        if bool(change is not None) == bool(command.get("remove")):
            raise CommandError(9, "Either an update or remove=true must be specified")
        if command.get("remove") and (command.get("new") or command.get("upsert")):
            raise CommandError(9, "Cannot specify both new=true or upsert=true and remove=true")
        result: Document | None
        old = next(iter(collection.find(query, command.get("sort"), 1)), None)
        outcome: Document = {"n": 0 if old is None else 1}
        if change is None:
            result = old
            if old is not None:
                collection.delete(old)
        elif old is not None:
            new = updated(old, query, change, inserting=False)
            collection.replace(old, new)
            outcome["updatedExisting"] = True
            result = collection.documents[hashable(old["_id"])] if command.get("new") else old
        elif command.get("upsert"):
            new = upsert(collection, query, change)
            outcome |= {"n": 1, "updatedExisting": False, "upserted": new["_id"]}
            result = new if command.get("new") else None
        else:
            outcome["updatedExisting"] = False
            result = None
        if result is not None and fields:
            result = projected(result, fields)
        if isinstance(result, Stored):
            result = RawBSONDocument(result.encoded)
        return {"lastErrorObject": outcome, "value": result}

    # -- reading ------------------------------------------------------------------------------------------------------

    def _find(self, command: Document) -> Document:
        refuse(command, "collation", "let", "min", "max")
        collection = self._readable(command, "find")
        start, limit = int(command.get("skip") or 0), int(command.get("limit") or 0)
        query, end = command.get("filter") or {}, start + limit if limit else None
        found: Iterable[Document] = itertools.islice(collection.find(query, command.get("sort"), end), start, end)
        if projection := command.get("projection"):
            found = (projected(document, projection) for document in found)
        return self._open_cursor(command, found, command.get("batchSize"), single=bool(command.get("singleBatch")))

    def _aggregate(self, command: Document) -> Document:
        refuse(command, "collation", "let", "explain")
        pipeline = command["pipeline"]
        collection = self._readable(command, "aggregate")
        first = pipeline[0].get("$match") if pipeline else None
        documents = collection.find(first or {})  # through an index, where there is one
        results = aggregated(documents, pipeline if first is None else pipeline[1:])
        return self._open_cursor(command, results, command.get("cursor", {}).get("batchSize"))

    def _get_more(self, command: Document) -> Document:
        identity = command["getMore"]
        if identity not in self._cursors:
            raise CommandError(43, f"cursor id {identity} not found")
        namespace, rest = self._cursors.pop(identity)
        return self._next_batch(identity, namespace, rest, command.get("batchSize") or len(rest), "nextBatch")

    def _kill_cursors(self, command: Document) -> Document:
        known = [identity for identity in command["cursors"] if self._cursors.pop(identity, None)]
        unknown = [identity for identity in command["cursors"] if identity not in known]
        return {"cursorsKilled": known, "cursorsNotFound": unknown, "cursorsAlive": [], "cursorsUnknown": []}

    def _count(self, command: Document) -> Document:
        refuse(command, "collation")
        start, limit = int(command.get("skip") or 0), abs(int(command.get("limit") or 0))
        end = start + limit if limit else None
        found = self._readable(command, "count").find(command.get("query") or {}, None, end)
        return {"n": len(found[start:end])}

    def _explain(self, command: Document) -> Document:
        """What a `find` costs; of what MongoDB answers, the parts that say whether an index serves it."""
        explained = {"$db": command["$db"], **command["explain"]}
        collection = self._readable(explained, "find")
        limit = int(explained.get("limit") or 0) or None
        costs = collection.explain(explained.get("filter") or {}, explained.get("sort"), limit)
        stage: Document = {"stage": costs.stage, **({"indexName": costs.index} if costs.index else {})}
        winning = {"stage": "SORT", "inputStage": stage} if costs.sorts else stage
        stats = {"nReturned": costs.returned, "totalDocsExamined": costs.examined}
        return {"queryPlanner": {"winningPlan": winning}, "executionStats": stats}

    def _distinct(self, command: Document) -> Document:
        refuse(command, "collation")
        path, values = command["key"], {}
        for document in self._readable(command, "distinct").find(command.get("query") or {}):
            for value in values_at(path, document):
                if value is not None:
                    values[hashable(value)] = value
        return {"values": list(values.values())}

    # -- collections and indexes --------------------------------------------------------------------------------------

    def _create(self, command: Document) -> Document:
        namespace = namespace_of(command, "create")
        if namespace in self._store.collections:
            raise CommandError(48, f"Collection {namespace} already exists.")
        refuse(command, "capped", "timeseries", "validator", "viewOn", "collation")
        self._store.collection(namespace)
        return {}

    def _create_indexes(self, command: Document) -> Document:
        made = namespace_of(command, "createIndexes") not in self._store.collections
        collection = self._writable(command, "createIndexes")
        before = len(collection.indexes) + 1
        for spec in command["indexes"]:
            refuse(spec, "collation", "wildcardProjection")
            collection.create_index({"v": 2, **spec})
        counts = {"numIndexesBefore": before, "numIndexesAfter": len(collection.indexes) + 1}
        return {**counts, "createdCollectionAutomatically": made}

    def _drop_indexes(self, command: Document) -> Document:
        namespace, wanted = namespace_of(command, "dropIndexes"), command["index"]
        if namespace not in self._store.collections:
            raise CommandError(26, f"ns not found {namespace}")
        collection = self._store.collections[namespace]
        before = len(collection.indexes) + 1
        if isinstance(wanted, dict):
            names = [index.name for index in collection.indexes.values() if index.spec["key"] == wanted] or [
                str(wanted)
            ]
        elif wanted == "*":
            names = list(collection.indexes)
        else:
            names = [wanted] if isinstance(wanted, str) else wanted
        for name in names:
            collection.drop_index(name)
        return {"nIndexesWas": before}

    def _list_indexes(self, command: Document) -> Document:
        namespace = namespace_of(command, "listIndexes")
        if namespace not in self._store.collections:
            raise CommandError(26, f"ns does not exist: {namespace}")
        specs = [index.spec for index in self._store.collections[namespace].indexes.values()]
        return self._open_cursor(command, [{"v": 2, "key": {"_id": 1}, "name": "_id_"}, *specs], None)

    def _list_collections(self, command: Document) -> Document:
        database = command["$db"] + "."
        names = [name.removeprefix(database) for name in self._store.collections if name.startswith(database)]
        wanted = command.get("filter") or {}
        listing = [{"name": name, "type": "collection", "options": {}, "info": {"readOnly": False}} for name in names]
        kept = Collection("listing", [])
        for entry in listing:
            kept.insert({"_id": entry["name"], **entry})
        found = [projected(entry, {"_id": 0}) for entry in kept.find(wanted)]
        return self._open_cursor({**command, "listCollections": "$cmd.listCollections"}, found, None)

    def _list_databases(self, _: Document) -> Document:
        names = sorted({name.partition(".")[0] for name in self._store.collections})
        databases = [{"name": name, "sizeOnDisk": 0, "empty": False} for name in names]
        return {"databases": databases, "totalSize": 0}

    def _drop(self, command: Document) -> Document:
        self._store.drop(namespace_of(command, "drop"))
        return {}

    def _drop_database(self, command: Document) -> Document:
        for namespace in [name for name in self._store.collections if name.startswith(command["$db"] + ".")]:
            self._store.drop(namespace)
        return {"dropped": command["$db"]}

    # -- used by several ----------------------------------------------------------------------------------------------

    def _writable(self, command: Document, name: str) -> Collection:
        return self._store.collection(namespace_of(command, name))

    def _readable(self, command: Document, name: str) -> Collection:
        return self._store.existing(namespace_of(command, name))

    def _open_cursor(
        self, command: Document, documents: Iterable[Document], batch_size: int | None, *, single: bool = False
    ) -> Document:
        """The first batch; the rest waits for getMore: later writes, which replace documents, do not show in it."""
        namespace = namespace_of(command, next(iter(command)))
        identity = 0 if single else next(self._cursor_ids)
        count = FIRST_BATCH if batch_size is None else batch_size
        return self._next_batch(identity, namespace, list(documents), count, "firstBatch")

    def _next_batch(self, identity: int, namespace: str, documents: list[Document], count: int, name: str) -> Document:
        """As many documents as asked for, and as fit into a message. Without an identity, no others are kept."""
        items, size = [], 0
        for document in documents[:count]:
            encoded = document.encoded if isinstance(document, Stored) else bson.encode(document)
            size += len(encoded)
            if items and size > MAX_DOCUMENT_BYTES:
                break
            items.append(b"\x03%d\0%b" % (len(items), encoded))
        if rest := documents[len(items) :] if identity else []:
            self._cursors[identity] = namespace, rest
        head = bson.encode({"id": bson.Int64(identity if rest else 0), "ns": namespace})
        batch = b"\x04%b\0%b" % (name.encode(), embedded(b"".join(items)))
        return {"cursor": RawBSONDocument(embedded(head[4:-1] + batch))}


def namespace_of(command: Document, name: str) -> str:
    collection = command[name] if name != "getMore" else command["collection"]
    if not isinstance(collection, str):
        raise CommandError(2, f"{name} needs the name of a collection, not {collection!r}")
    return f"{command['$db']}.{collection}"


def run_each(command: Document, statements: list[Document], run: Callable[[Document, int], int]) -> Document:
    """Runs the statements of a write command: adds up what they return, and notes those that fail, by position."""
    count, errors = 0, []
    for position, statement in enumerate(statements):
        try:
            count += run(statement, position)
        except CommandError as error:
            errors.append({"index": position, **error.document()})
            if command.get("ordered", True):
                break
    return {"n": count, **({"writeErrors": errors} if errors else {})}


def upsert(collection: Collection, query: Document, change: Document | list[Document]) -> Document:
    new = updated(upsert_seed(query, change), query, change, inserting=True)
    identity = {"_id": new.pop("_id")} if "_id" in new else {}
    return collection.insert({**identity, **new})


def refuse(options: Document, *names: str) -> None:
    """Says no to options that this server would otherwise ignore, and answer wrongly."""
    for name in names:
        if options.get(name):
            raise CommandError(2, f"this server has no {name}")


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def internal_error(error: Exception) -> Document:
    """The reply for a fault of this server."""
    details: dict[str, Any] = {"errmsg": f"{type(error).__name__}: {error}", "code": 1, "codeName": "InternalError"}
    return {"ok": 0.0, **details}
