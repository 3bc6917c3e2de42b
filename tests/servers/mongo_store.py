"""Collections with indexes, kept in memory and in a journal.

The journal holds results, not commands (this document is now so, that one is gone), so that replaying it needs neither
a clock nor the ids that were made up on the way.
"""

import datetime
import itertools
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.errors import BSONError
from sortedcontainers import SortedList

from tests.servers.mongo_language import (
    CommandError,
    Document,
    equalities,
    is_missing,
    is_operators,
    matcher,
    sorted_by,
    values_at,
)

#: The largest document, in bytes: MongoDB's own limit.
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024

Key = tuple[Any, ...]


#: Records of a journal beyond which a start begins a new one, if that is much shorter: to replay them all takes about a
#: second.
LONG_JOURNAL = 20_000

#: Changed documents that an index waits for before it takes them in: few enough for nobody to notice when it does.
MAX_LAG = 64


class Journal:
    """A file of BSON records, appended to with one write for the commands of a turn, which the kernel has at once.

    That survives SIGKILL of this process; it is not synced to the disk, which only a crash of the machine would need.
    What was written before a `begin_anew` is kept beside it: `documents_written` reads it all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._cut_torn_record()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def records(self) -> Iterator[Document]:
        with self._path.open("rb") as file:
            yield from bson.decode_file_iter(file)

    def append(self, records: list[bytes]) -> None:
        rest = b"".join(records)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def begin_anew(self, records: list[bytes]) -> None:
        """Puts these records in the place of all those so far, which stay in a file of their own."""
        begun = self._path.with_suffix(".new")
        begun.write_bytes(b"".join(records))
        os.link(self._path, self._path.with_suffix(f".{len(parts_of(self._path)):06}"))
        begun.replace(self._path)
        os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def _cut_torn_record(self) -> None:
        """Drops the end of a write that SIGKILL interrupted; nobody has been told that it succeeded."""
        size, whole = self._path.stat().st_size, 0
        with self._path.open("r+b") as file:
            while len(head := file.read(4)) == 4 and whole + (length := int.from_bytes(head, "little")) <= size:
                whole += length
                file.seek(whole)
            file.truncate(whole)


def parts_of(journal: Path) -> list[Path]:
    """All files of a journal, the oldest first."""
    return [*sorted(journal.parent.glob(f"{journal.stem}.[0-9]*")), journal]


def documents_written(
    journal: Path, namespace: str, options: CodecOptions[Document] = DEFAULT_CODEC_OPTIONS
) -> Iterator[Document]:
    """Every version of every document that was ever written to collections whose full names end so, in order."""
    latest: dict[Key, Document] = {}
    for part in parts_of(journal):
        with part.open("rb") as file:
            for record in bson.decode_file_iter(file, options):
                if "put" not in record or not record["ns"].endswith(namespace):
                    continue
                document = record["put"]
                identity = (record["ns"], hashable(document["_id"]))
                if latest.get(identity) != document:  # a journal that begins anew says again what there is
                    latest[identity] = document
                    yield document


class Index:
    """An index: the documents' identities in the order of their values, as in the B-tree of a real server."""

    def __init__(self, spec: Document) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.paths = list(spec["key"])
        self.unique = bool(spec.get("unique"))
        self.sparse = bool(spec.get("sparse"))
        self.partial = spec.get("partialFilterExpression")
        self._fields = {path.partition(".")[0] for path in self.paths}
        self._has_plain_paths = self.covers_all and not any("." in path for path in self.paths)
        self._entries: SortedList = SortedList()
        #: Such entries: with one of them, the index can be looked into, but not gone through in order.
        self._odd = 0

    @property
    def covers_all(self) -> bool:
        """Whether every document is in it, so that it can answer a query."""
        return not self.sparse and self.partial is None

    @property
    def is_odd(self) -> bool:
        """Whether there are entries whose order here need not be MongoDB's, or several of one document."""
        return self._odd > 0

    def keys(self, document: Document) -> list[Key]:
        if (key := self._plain_key(document)) is not None:
            return [key]
        if self.partial is not None and not matcher(self.partial)(document):
            return []
        if self.sparse and all(is_missing(path, document) for path in self.paths):
            return []
        values = itertools.product(*([place(value) for value in values_at(path, document)] for path in self.paths))
        return list({tuple(itertools.chain.from_iterable(key)) for key in values})

    def depends_on(self, fields: set[str]) -> bool:
        return self.partial is not None or not self._fields.isdisjoint(fields)

    def enter(self, document: Document, identity: Any) -> None:
        for key in self._counted(document, 1):
            self._entries.add((*key, 0, identity))

    def enter_all(self, documents: Mapping[Any, Document]) -> None:
        """Enter many at once, by their identities: sorted once."""
        self._entries.update(
            [(*key, 0, identity) for identity, document in documents.items() for key in self._counted(document, 1)]
        )

    def leave(self, document: Document, identity: Any) -> None:
        for key in self._counted(document, -1):
            self._entries.remove((*key, 0, identity))

    def _plain_key(self, document: Document) -> Key | None:
        """The only key of most documents; None if it takes more to tell."""
        if not self._has_plain_paths:
            return None
        key: list[Any] = []
        for path in self.paths:
            value = document.get(path)
            rank = RANKS.get(type(value))
            if rank is None or value != value:
                return None
            key += (rank, 0 if value is None else value)
        return tuple(key)

    def _counted(self, document: Document, count: int) -> list[Key]:
        """The keys of a document that comes (1) or goes (-1)."""
        if (key := self._plain_key(document)) is not None:
            return [key]
        keys = self.keys(document)
        if len(keys) > 1 or any(rank not in ORDERED for key in keys for rank in key[::2]):
            self._odd += count * len(keys)
        return keys

    def under(self, prefix: Key) -> Iterator[Any]:
        """The identities of the documents whose first values are these."""
        return self.between(prefix, (*prefix, math.inf))

    def between(self, low: Key, high: Key, *, backwards: bool = False) -> Iterator[Any]:
        return (entry[-1] for entry in self._entries.irange(low, high, reverse=backwards))

    def plan(self, wanted: Document, query: Document, order: Document | None) -> "Plan | None":
        """How this index would help with a query that has `wanted` as its equalities; None if it would not."""
        prefix: list[Any] = []
        for path in self.paths:
            if path not in wanted or isinstance(wanted[path], (list, bson.Regex)):
                break
            prefix.extend(place(wanted[path]))
        equal = len(prefix) // 2
        low, high = tuple(prefix), (*prefix, math.inf)
        is_bounded = False
        rest = self.paths[equal:]
        if rest and not self._odd and is_operators(operators := query.get(rest[0])):
            for name, value in operators.items():
                rank, _ = bound = place(value)
                if rank not in ORDERED or value is None or name not in ("$gt", "$gte", "$lt", "$lte"):
                    continue
                is_bounded = True  # to values of the same type, as MongoDB compares
                at, after = (*prefix, *bound), (*prefix, *bound, math.inf)
                if name in ("$gt", "$gte"):
                    low, high = max(low, after if name == "$gt" else at), min(high, (*prefix, rank + 0.5))
                else:
                    low, high = max(low, (*prefix, rank)), min(high, at if name == "$lt" else after)
        if not equal and not is_bounded:
            return None
        direction = self._direction(order, equal) if order and not self._odd else 0
        is_whole = (
            not is_bounded and set(query) <= set(self.paths[:equal]) and not any(map(is_operators, query.values()))
        )
        return Plan(self, low, high, equal, is_bounded, direction, is_whole)

    def _direction(self, order: Document, equal: int) -> int:
        """1 or -1 when going through the entries so gives the documents in this order already, else 0."""
        fields = {path: way for path, way in order.items() if path not in self.paths[:equal]}
        if list(fields) != self.paths[equal : equal + len(fields)] or len(set(fields.values())) > 1:
            return 0
        # All ways are the same, or a real server, whose index has its own, could not go through it in one.
        if len({self.spec["key"][path] * way for path, way in fields.items()}) > 1:
            return 0
        return -1 if -1 in fields.values() else 1


@dataclass(frozen=True)
class Plan:
    """A way through an index: the part of it between two keys."""

    index: Index
    low: Key
    high: Key
    #: How many of the index's fields are given.
    equal: int
    is_bounded: bool
    #: 1 or -1 where it gives the documents in the order that is asked for.
    direction: int
    #: Whether every document in it matches.
    is_whole: bool

    @property
    def rank(self) -> tuple[float, bool]:
        return self.equal + self.is_bounded / 2, self.direction != 0

    def identities(self) -> Iterator[Any]:
        found = self.index.between(self.low, self.high, backwards=self.direction < 0)
        # A document is there once for each value of an array.
        return iter(dict.fromkeys(found)) if self.index.is_odd else found


class Stored(Document):
    """A document as it is in a collection, and, encoded, as it is sent."""

    __slots__ = ("_encoded",)

    def __init__(self, document: Document, encoded: bytes | None = None) -> None:
        super().__init__(document)
        self._encoded = encoded

    @property
    def encoded(self) -> bytes:
        if self._encoded is None:
            self._encoded = bson.encode(self)
        return self._encoded


class Collection:
    """The documents of one collection by their hashable _id, in order of insertion; replaced, never changed.

    Its indexes may lag behind: documents that changed enter them when one is asked next, or when there are many. A task
    that is added, taken and finished within a moment enters once.
    """

    def __init__(self, namespace: str, pending: list[bytes]) -> None:
        self.namespace = namespace
        self.documents: dict[Any, Stored] = {}
        self.indexes: dict[str, Index] = {}
        #: Documents that have changed, as the indexes have them; None for those that they do not have.
        self._lagging: dict[Any, Document | None] = {}
        self._pending = pending
        #: How a record of a document begins, after its length.
        self._put_record = bson.encode({"ns": namespace})[4:-1] + b"\x03put\0"

    def find(self, query: Document, order: Document | None = None, limit: int | None = None) -> list[Stored]:
        """The documents that match, in `order`; no more than `limit`."""
        return self._search(query, order, limit, Costs())

    def explain(self, query: Document, order: Document | None, limit: int | None) -> "Costs":
        """What `find` has to do for its answer."""
        costs = Costs()
        costs.returned = len(self._search(query, order, limit, costs))
        return costs

    def _search(self, query: Document, order: Document | None, limit: int | None, costs: "Costs") -> list[Stored]:
        matches = matches_all if len(query) == 1 and type(query.get("_id")) is str else matcher(query)
        found: Iterable[Document]
        if (identities := self._identities(query)) is not None:
            costs.stage = "IDHACK"
            found = self._by_identity(identities)
        elif (plan := self._plan(query, order)) is not None:
            costs.stage, costs.index = "IXSCAN", plan.index.name
            found = costs.counted(self.documents[identity] for identity in plan.identities())
            order = None if plan.direction else order
            if plan.is_whole:
                matches = matches_all
        else:
            found = costs.counted(self.documents.values())
        found = (document for document in found if matches(document))
        if order:
            costs.sorts = True
            return sorted_by(found, order)[:limit]
        return list(itertools.islice(found, limit))

    def insert(self, document: Document) -> Stored:
        """Adds a document, as it will be read again. Raises CommandError 11000."""
        if "_id" not in document:
            document = {"_id": bson.ObjectId(), **document}
        if hashable(document["_id"]) in self.documents:
            raise self._duplicate("_id_", {"_id": 1}, document)
        return self._put(document)

    def replace(self, old: Document, new: Document) -> bool:
        """Puts `new` in the place of `old`, of the same _id; False if they are alike. Raises CommandError 11000."""
        if not changed_fields(old, new) and list(old) == list(new):
            return False
        self._put(new, old)
        return True

    def delete(self, document: Document) -> None:
        self._forget(document)
        self._record(remove=document["_id"])

    def create_index(self, spec: Document) -> bool:
        """Adds an index. False if it is there. Raises CommandError for one that clashes or that the documents break."""
        ttl = spec.get("expireAfterSeconds")
        if ttl is not None and (len(spec["key"]) > 1 or isinstance(ttl, bool) or not isinstance(ttl, (int, float))):
            raise CommandError(67, "expireAfterSeconds needs a number, and an index of one field")
        if ttl is not None and not 0 <= ttl < 2**31:
            raise CommandError(67, "expireAfterSeconds has to be between 0 and 2147483647")
        if list(spec["key"]) == ["_id"]:
            return False
        for index in self.indexes.values():
            if index.spec == spec:
                return False
            if index.name == spec["name"] or list(index.spec["key"].items()) == list(spec["key"].items()):
                raise CommandError(85, f"An index like {spec['name']} already exists with other options: {index.spec}")
        self._catch_up()
        index = Index(spec)
        index.enter_all(self.documents)
        for document in self.documents.values() if index.unique else ():
            self._refuse_duplicate(index, document)
        self.indexes[index.name] = index
        self._record(index=spec)
        return True

    def drop_index(self, name: str) -> None:
        if name not in self.indexes:
            raise CommandError(27, f"index not found with name [{name}]")
        del self.indexes[name]
        self._record(drop_index=name)

    def delete_expired(self, now: datetime.datetime) -> None:
        """Deletes what the TTL indexes say is over."""
        for index in self.indexes.values():
            if "expireAfterSeconds" in index.spec:
                horizon = now - datetime.timedelta(seconds=index.spec["expireAfterSeconds"])
                for document in self.find({index.paths[0]: {"$lte": horizon}}):
                    self.delete(document)

    def replay(self, record: Document) -> None:
        """Does again what a record says was done."""
        if "put" in record:
            document = Stored(record["put"])
            self._remember(document, self.documents.get(hashable(document["_id"])))
        elif "remove" in record:
            self._forget(self.documents[hashable(record["remove"])])
        elif "index" in record:
            self.create_index(record["index"])
        elif "drop_index" in record:
            self.drop_index(record["drop_index"])

    def _put(self, document: Document, old: Document | None = None) -> Stored:
        try:
            encoded = bson.encode(document)
        except (BSONError, OverflowError) as error:
            raise CommandError(2, str(error)) from error
        if len(encoded) > MAX_DOCUMENT_BYTES:
            raise CommandError(10334, f"object to insert too large: {len(encoded)} bytes")
        stored = Stored(bson.decode(encoded), encoded)  # a copy, with its times cut to milliseconds
        for index in self.indexes.values():
            self._refuse_duplicate(index, stored)
        self._remember(stored, old)
        self._pending.append(embedded(self._put_record + encoded))
        return stored

    def _remember(self, document: Stored, old: Document | None) -> None:
        identity = hashable(document["_id"])
        self.documents[identity] = document
        self._lag(identity, old)

    def _forget(self, document: Document) -> None:
        identity = hashable(document["_id"])
        del self.documents[identity]
        self._lag(identity, document)

    def _lag(self, identity: Any, old: Document | None) -> None:
        self._lagging.setdefault(identity, old)
        if len(self._lagging) > MAX_LAG:
            self._catch_up()

    def _catch_up(self) -> None:
        """Has the indexes take in what has changed."""
        for identity, old in self._lagging.items():
            new = self.documents.get(identity)
            changed = None if old is None or new is None else changed_fields(old, new)
            for index in self.indexes.values():
                if changed is None or index.depends_on(changed):
                    if old is not None:
                        index.leave(old, identity)
                    if new is not None:
                        index.enter(new, identity)
        self._lagging.clear()

    def _refuse_duplicate(self, index: Index, document: Document) -> None:
        if index.unique:
            self._catch_up()
            identity = hashable(document["_id"])
            for key in index.keys(document):
                if any(other != identity for other in index.under(key)):
                    raise self._duplicate(index.name, index.spec["key"], document)

    def _duplicate(self, name: str, pattern: Document, document: Document) -> CommandError:
        value = {path: values_at(path, document)[0] for path in pattern}
        message = f"E11000 duplicate key error collection: {self.namespace} index: {name} dup key: {value}"
        return CommandError(11000, message, keyPattern=dict(pattern), keyValue=value)

    def _identities(self, query: Document) -> list[Any] | None:
        """The _ids among which those of all matching documents are, if the query says so."""
        identity: Any = query.get("_id")
        if type(identity) is str:
            return [identity]
        wanted = equalities(query)
        identities = [wanted["_id"]] if "_id" in wanted else identity.get("$in") if is_operators(identity) else None
        if isinstance(identities, list) and not any(isinstance(value, bson.Regex) for value in identities):
            return identities
        return None

    def _plan(self, query: Document, order: Document | None) -> Plan | None:
        """The best way through an index; None if all documents have to be looked at."""
        self._catch_up()
        wanted = equalities(query)
        plans = [index.plan(wanted, query, order) for index in self.indexes.values() if index.covers_all]
        return max((plan for plan in plans if plan is not None), key=lambda plan: plan.rank, default=None)

    def _by_identity(self, identities: Iterable[Any]) -> list[Document]:
        keys = dict.fromkeys(hashable(identity) for identity in identities)
        return [self.documents[key] for key in keys if key in self.documents]

    def _record(self, **what: Any) -> None:
        self._pending.append(bson.encode({"ns": self.namespace, **what}))


@dataclass
class Costs:
    """What a search did: the words are those of MongoDB's explain."""

    stage: str = "COLLSCAN"
    index: str | None = None
    sorts: bool = False
    examined: int = 0
    returned: int = 0

    def counted(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            self.examined += 1
            yield document


class Store:
    """All collections by their full names, for one thread, which calls `commit` before it tells what it has done."""

    def __init__(self, journal: Journal) -> None:
        self._pending: list[bytes] = []
        self._journal = journal
        self.collections: dict[str, Collection] = {}
        length = 0
        for length, record in enumerate(journal.records(), 1):  # noqa: B007 - what is left of it is used
            if "drop" in record:
                self.drop(record["ns"])
            else:
                self.collection(record["ns"]).replay(record)
        self._pending.clear()
        if length > max(LONG_JOURNAL, 2 * sum(len(collection.documents) for collection in self.collections.values())):
            journal.begin_anew(list(self._snapshot()))

    def _snapshot(self) -> Iterator[bytes]:
        """Records that make what there is now."""
        for name, collection in self.collections.items():
            yield bson.encode({"ns": name, "create": True})
            yield from (bson.encode({"ns": name, "index": index.spec}) for index in collection.indexes.values())
            yield from (bson.encode({"ns": name, "put": document}) for document in collection.documents.values())

    def collection(self, namespace: str) -> Collection:
        """The collection of that name, made if need be."""
        if namespace not in self.collections:
            self.collections[namespace] = Collection(namespace, self._pending)
            self._pending.append(bson.encode({"ns": namespace, "create": True}))
        return self.collections[namespace]

    def existing(self, namespace: str) -> Collection:
        """The collection of that name, or an empty one that is not kept."""
        return self.collections.get(namespace) or Collection(namespace, [])

    def drop(self, namespace: str) -> None:
        if self.collections.pop(namespace, None) is not None:
            self._pending.append(bson.encode({"ns": namespace, "drop": True}))

    def delete_expired(self) -> None:
        """Deletes what is past the time of its TTL index, in every collection."""
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        for collection in self.collections.values():
            collection.delete_expired(now)

    def commit(self) -> None:
        """Writes to the journal what has been done since the last time."""
        if self._pending:
            self._journal.append(self._pending)
            self._pending.clear()


#: The order of types in an index, as far as values of the same type are ordered here as in MongoDB: the Comparison/Sort
#: Order of its manual.
RANKS: dict[type, int] = {
    type(None): 1,
    int: 2,
    float: 2,
    bson.Int64: 2,
    str: 3,
    bson.ObjectId: 7,
    bool: 8,
    datetime.datetime: 9,
}
ORDERED = frozenset(RANKS.values())


def place(value: Any) -> tuple[int, Any]:
    """Where a value stands in an index: a rank and what is compared with others of that rank."""
    rank = RANKS.get(type(value))
    if rank is None or value != value:  # NaN has no place
        return 99, repr(hashable(value))
    return rank, 0 if value is None else value


def matches_all(_: Document) -> bool:
    return True


def embedded(elements: bytes) -> bytes:
    """A BSON document, or array, of these encoded elements: https://bsonspec.org/spec.html"""
    return struct.pack("<i", len(elements) + 5) + elements + b"\0"


def changed_fields(old: Document, new: Document) -> set[str]:
    """The fields whose values are not the same, in BSON, in both."""
    changed = old.keys() ^ new.keys()
    for name, value in new.items():
        if (before := old.get(name)) is value:
            continue
        if isinstance(value, (dict, list)):
            if bson.encode({"": before}) != bson.encode({"": value}):
                changed.add(name)
        elif type(before) is not type(value) or before != value:
            changed.add(name)
    return changed


def hashable(value: Any) -> Any:
    """A stand-in for `value` that can be a key; equal for what MongoDB calls equal (1 and 1.0, but not 1 and true)."""
    if type(value) is str:
        return ("str", value)
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, (int, float)):
        return ("number", value)
    if isinstance(value, dict):
        return ("document", tuple((key, hashable(part)) for key, part in value.items()))
    if isinstance(value, list):
        return ("array", tuple(hashable(part) for part in value))
    if isinstance(value, bson.Regex):
        return ("regex", repr(value))
    return (type(value).__name__, value)
