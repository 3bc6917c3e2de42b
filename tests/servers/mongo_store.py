"""Collections with indexes, kept in memory and in a journal.

The journal holds results, not commands (this document is now so, that one is gone), so that replaying it needs neither
a clock nor the ids that were made up on the way.
"""

import datetime
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.errors import BSONError

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


#: Records of a journal beyond which a start begins a new one: to replay them all takes about a second.
LONG_JOURNAL = 20_000


class Journal:
    """A file of BSON records, appended to with one write for each command and handed to the operating system at once.

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
        rest = memoryview(b"".join(records))
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
    """An index: for each key the ids of the documents that have it."""

    def __init__(self, spec: Document) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.paths = list(spec["key"])
        self.unique = bool(spec.get("unique"))
        self.sparse = bool(spec.get("sparse"))
        self.partial = spec.get("partialFilterExpression")
        self.entries: dict[Key, dict[Any, None]] = {}

    @property
    def covers_all(self) -> bool:
        """Whether every document is in it, so that it can answer a query."""
        return not self.sparse and self.partial is None

    def keys(self, document: Document) -> set[Key]:
        if self.partial is not None and not matcher(self.partial)(document):
            return set()
        if self.sparse and all(is_missing(path, document) for path in self.paths):
            return set()
        return {
            tuple(hashable(value) for value in values)
            for values in itertools.product(*(values_at(path, document) for path in self.paths))
        }


class Collection:
    """The documents of one collection by their hashable _id, in order of insertion; replaced, never changed."""

    def __init__(self, namespace: str, pending: list[bytes]) -> None:
        self.namespace = namespace
        self.documents: dict[Any, Document] = {}
        self.indexes: dict[str, Index] = {}
        self._pending = pending

    def find(self, query: Document, order: Document | None = None) -> list[Document]:
        """The documents that match, in `order`."""
        matches = matcher(query)
        found = [document for document in self._candidates(query) if matches(document)]
        return sorted_by(found, order) if order else found

    def insert(self, document: Document) -> Document:
        """Adds a document, as it will be read again. Raises CommandError 11000."""
        if "_id" not in document:
            document = {"_id": bson.ObjectId(), **document}
        if hashable(document["_id"]) in self.documents:
            raise self._duplicate("_id_", {"_id": 1}, document)
        return self._put(document)

    def replace(self, old: Document, new: Document) -> bool:
        """Puts `new` in the place of `old`, of the same _id; False if they are alike. Raises CommandError 11000."""
        if bson.encode(old) == bson.encode(new):
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
        if list(spec["key"]) == ["_id"]:
            return False
        for index in self.indexes.values():
            if index.spec == spec:
                return False
            if index.name == spec["name"] or list(index.spec["key"].items()) == list(spec["key"].items()):
                raise CommandError(85, f"An index like {spec['name']} already exists with other options: {index.spec}")
        index = Index(spec)
        for document in self.documents.values():
            self._refuse_duplicate(index, document)
            self._enter(index, document)
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
            document = record["put"]
            old = self.documents.get(hashable(document["_id"]))
            self._remember(document, old)
        elif "remove" in record:
            self._forget(self.documents[hashable(record["remove"])])
        elif "index" in record:
            self.create_index(record["index"])
        elif "drop_index" in record:
            self.drop_index(record["drop_index"])

    def _put(self, document: Document, old: Document | None = None) -> Document:
        try:
            record = bson.encode({"ns": self.namespace, "put": document})
        except (BSONError, OverflowError) as error:
            raise CommandError(2, str(error)) from error
        if len(record) > MAX_DOCUMENT_BYTES + 4096:
            raise CommandError(10334, f"object to insert too large: {len(record)} bytes")
        stored: Document = bson.decode(record)["put"]  # a copy, with its times cut to milliseconds
        for index in self.indexes.values():
            self._refuse_duplicate(index, stored)
        self._remember(stored, old)
        self._pending.append(record)
        return stored

    def _remember(self, document: Document, old: Document | None) -> None:
        identity = hashable(document["_id"])
        for index in self.indexes.values():
            if old is not None:
                self._leave(index, old)
            self._enter(index, document)
        self.documents[identity] = document

    def _forget(self, document: Document) -> None:
        for index in self.indexes.values():
            self._leave(index, document)
        del self.documents[hashable(document["_id"])]

    def _enter(self, index: Index, document: Document) -> None:
        for key in index.keys(document):
            index.entries.setdefault(key, {})[hashable(document["_id"])] = None

    def _leave(self, index: Index, document: Document) -> None:
        identity = hashable(document["_id"])
        for key in index.keys(document):
            index.entries[key].pop(identity, None)
            if not index.entries[key]:
                del index.entries[key]

    def _refuse_duplicate(self, index: Index, document: Document) -> None:
        if index.unique:
            identity = hashable(document["_id"])
            for key in index.keys(document):
                if any(other != identity for other in index.entries.get(key, ())):
                    raise self._duplicate(index.name, index.spec["key"], document)

    def _duplicate(self, name: str, pattern: Document, document: Document) -> CommandError:
        value = {path: values_at(path, document)[0] for path in pattern}
        message = f"E11000 duplicate key error collection: {self.namespace} index: {name} dup key: {value}"
        return CommandError(11000, message, keyPattern=dict(pattern), keyValue=value)

    def _candidates(self, query: Document) -> list[Document]:
        """A few documents among which all matching ones are: through the _id or an index, else all of them."""
        wanted = equalities(query)
        identity: Any = query.get("_id")
        identities = [wanted["_id"]] if "_id" in wanted else identity.get("$in") if is_operators(identity) else None
        if isinstance(identities, list) and not any(isinstance(value, bson.Regex) for value in identities):
            return self._by_identity(identities)
        for index in self.indexes.values():
            if index.covers_all and all(path in wanted for path in index.paths):
                values = [wanted[path] for path in index.paths]
                if not any(isinstance(value, (list, bson.Regex)) for value in values):
                    found = index.entries.get(tuple(hashable(value) for value in values), {})
                    return [self.documents[key] for key in found]
        return list(self.documents.values())

    def _by_identity(self, identities: Iterable[Any]) -> list[Document]:
        keys = dict.fromkeys(hashable(identity) for identity in identities)
        return [self.documents[key] for key in keys if key in self.documents]

    def _record(self, **what: Any) -> None:
        self._pending.append(bson.encode({"ns": self.namespace, **what}))


class Store:
    """All collections by their full names. Whoever uses it holds one lock over a command and then calls `commit`."""

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
        if length > LONG_JOURNAL:
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


def hashable(value: Any) -> Any:
    """A stand-in for `value` that can be a key; equal for what MongoDB calls equal (1 and 1.0, but not 1 and true)."""
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
