"""MongoDB's query, update, projection and aggregation language, as mongomock speaks it; mongomock is used nowhere else.

What most queries and updates say is said without it, at a tenth of its cost: comparisons of fields with values of their
own type, and new values for whole fields. Documents that come in are never changed: what changes is a copy, which
shares what did not. All of mongomock's errors leave as CommandError.
"""

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import eq, ge, gt, le, lt
from types import NoneType
from typing import Any

import bson
import mongomock
import mongomock.filtering
from mongomock.aggregate import process_pipeline
from mongomock.filtering import NOTHING, filter_applies, resolve_sort_key

Document = dict[str, Any]

#: Names of the error codes this server gives.
CODE_NAMES = {
    2: "BadValue",
    9: "FailedToParse",
    14: "TypeMismatch",
    20: "IllegalOperation",
    26: "NamespaceNotFound",
    27: "IndexNotFound",
    28: "PathNotViable",
    40: "ConflictingUpdateOperators",
    43: "CursorNotFound",
    48: "NamespaceExists",
    59: "CommandNotFound",
    66: "ImmutableField",
    67: "CannotCreateIndex",
    85: "IndexOptionsConflict",
    10334: "BSONObjectTooLarge",
    11000: "DuplicateKey",
}

#: Stages that reach outside of the documents handed in.
FOREIGN_STAGES = {"$lookup", "$graphLookup", "$unionWith", "$out", "$merge", "$changeStream", "$currentOp"}

#: Stages that leave the documents they are given as they are.
READING_STAGES = {"$match", "$group", "$count", "$limit", "$skip", "$sort", "$project"}

#: Types of values that Python compares, with others of the same type, as MongoDB does.
PLAIN = frozenset({str, int, float, bool, datetime.datetime, bson.ObjectId})

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": eq,
    "$gt": gt,
    "$gte": ge,
    "$in": lambda value, wanted: value in wanted,
    "$lt": lt,
    "$lte": le,
}

#: A field, what it is compared by and with, the type that both have to be of, and whether it is not to be so.
Comparison = tuple[str, Callable[[Any, Any], bool], Any, type, bool]

#: Operators that make the path they are given.
PATH_MAKERS = {"$set", "$setOnInsert", "$inc", "$mul", "$min", "$max", "$currentDate", "$push", "$addToSet"}

_candidates = mongomock.filtering.iter_key_candidates


def iter_key_candidates(path: str, document: Any) -> Any:
    """mongomock's own, except that below null or a number there is a missing field, and not nothing to be held true.

    With mongomock's, `{"a.b": None}` and `{"a.b": {"$not": ...}}` do not find `{"a": None}`.
    """
    if path and not isinstance(document, (dict, list)):
        return [NOTHING]
    return _candidates(path, document)


mongomock.filtering.iter_key_candidates = iter_key_candidates  # it calls itself, and is called, by this name

_database: Any = mongomock.MongoClient()["language"]
_collection = _database["language"]


class CommandError(Exception):
    """An error document: its code, its message and what else belongs in it."""

    def __init__(self, code: int, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.details = details

    def document(self) -> Document:
        """As it goes into `writeErrors`, or, with `ok: 0`, into the reply of a command that failed as a whole."""
        return {"code": self.code, "errmsg": str(self), **self.details}


@contextmanager
def translated() -> Iterator[None]:
    """Turns what mongomock raises into the error that a server would answer with, or the nearest to it."""
    try:
        yield
    except CommandError:
        raise
    except mongomock.OperationFailure as error:
        raise CommandError(error.code or 2, str(error)) from error
    except (NotImplementedError, ValueError) as error:
        raise CommandError(2, str(error)) from error
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        raise CommandError(14, f"{type(error).__name__}: {error}") from error


def matcher(query: Document) -> Callable[[Document], bool]:
    """The query as a function. Raises CommandError for one that no document could be held against."""
    comparisons, rest = split(query)
    if rest and "$expr" not in rest:  # mongomock cannot hold one against a document that lacks its fields
        with translated():
            filter_applies(rest, {})

    def matches(document: Document) -> bool:
        for path, compare, wanted, kind, is_negated in comparisons:
            value = document.get(path)
            if (found := type(value)) is kind:
                if compare(value, wanted) is is_negated:
                    return False
            elif value is not None and not (kind is NoneType and found in PLAIN):
                return applies(query, document)
            elif not is_negated:
                return False
        return not rest or applies(rest, document)

    return matches


def split(query: Document) -> tuple[list[Comparison], Document]:
    """The comparisons of fields with plain values in a query, and the rest of it."""
    comparisons: list[Comparison] = []
    rest: Document = {}
    for path, wanted in query.items():
        found = [] if "." in path or path.startswith("$") else _comparisons(path, wanted)
        comparisons += found
        if not found:
            rest[path] = wanted
    return comparisons, rest


def _comparisons(path: str, wanted: Any) -> list[Comparison]:
    """What a query says of one field; nothing if that is more than comparisons with plain values."""
    found: list[Comparison] = []
    for name, value in wanted.items() if is_operators(wanted) else [("$eq", wanted)]:
        is_negated = name == "$not"
        if is_negated:
            if not isinstance(value, dict) or len(value) != 1:
                return []
            [(name, value)] = value.items()
        kinds = set(map(type, value)) if name == "$in" and isinstance(value, list) else {type(value)}
        kind = kinds.pop() if len(kinds) == 1 else None
        if name not in COMPARISONS or not (kind in PLAIN or (kind is NoneType and name == "$eq")):
            return []
        found.append((path, COMPARISONS[name], value, kind, is_negated))
    return found


def applies(query: Document, document: Document) -> bool:
    with translated():
        return bool(filter_applies(query, document))


def values_at(path: str, document: Document) -> list[Any]:
    """The values an index has for `path`: several for an array, None for a missing field."""
    values: list[Any] = []
    for value in iter_key_candidates(path, document):
        if isinstance(value, list) and value:
            values.extend(value)
        else:
            values.append(None if value is NOTHING else value)
    return values or [None]


def is_missing(path: str, document: Document) -> bool:
    return all(value is NOTHING for value in iter_key_candidates(path, document))


def equalities(query: Document) -> Document:
    """The fields that `query` demands one value of, also inside `$and`."""
    found: Document = {}
    for key, wanted in query.items():
        if key == "$and":
            for part in wanted:
                found |= equalities(part)
        elif not key.startswith("$"):
            if is_operators(wanted):
                if "$eq" in wanted:
                    found[key] = wanted["$eq"]
            else:
                found[key] = wanted
    return found


def is_operators(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and next(iter(value)).startswith("$")


def sorted_by(documents: Iterable[Document], order: Mapping[str, Any]) -> list[Document]:
    """The documents in the order that `sort` asks for."""
    result = list(documents)
    with translated():
        for path, direction in reversed(list(order.items())):
            if path == "$natural":
                if direction < 0:
                    result.reverse()
            elif not isinstance(direction, (int, float)):
                raise CommandError(2, f"unsupported sort: {{{path}: {direction}}}")
            else:
                result.sort(key=lambda document: resolve_sort_key(path, document), reverse=direction < 0)
    return result


def projected(document: Document, projection: Document) -> Document:
    if projection and all(
        isinstance(way, (int, float)) and way == 1 and "." not in path for path, way in projection.items()
    ):
        return {name: value for name, value in document.items() if name in projection or name == "_id"}
    with translated():
        result: Document = _collection._copy_only_fields(document, dict(projection), dict)
    return result


def updated(document: Document, query: Document, update: Document | list[Document], *, inserting: bool) -> Document:
    """What `document` becomes. Raises CommandError, and then nothing has happened to it."""
    if is_operators(update) and not inserting and (result := _set_whole_fields(document, update)) is not None:
        return result
    result = copied(document)
    with translated():
        if isinstance(update, list):
            [result] = process_pipeline([result], _database, update, None)
        elif is_operators(update):
            _refuse_conflicts(update)
            _refuse_dead_ends(result, update, inserting=inserting)
            _collection._apply_update_document(result, query, update, inserting)
        else:
            result = {key: value for key, value in result.items() if key == "_id"} | copied(update)
    if "_id" in document and result.get("_id") != document["_id"]:
        raise CommandError(66, "Performing an update on the path '_id' would modify the immutable field '_id'")
    return result


def _set_whole_fields(document: Document, update: Document) -> Document | None:
    """What `$set` and `$inc` make of the document; None if they go deeper than its fields, or there are others."""
    new, amounts = update.get("$set", {}), update.get("$inc", {})
    if (
        len(update) != ("$set" in update) + ("$inc" in update)
        or not isinstance(new, dict)
        or not isinstance(amounts, dict)
    ):
        return None
    if not amounts.keys().isdisjoint(new) or any(
        "." in path or "$" in path or path == "_id" for path in (*new, *amounts)
    ):
        return None
    result = document | new
    for path, amount in amounts.items():
        if type(amount) is not int or type(count := document.get(path, 0)) is not int:
            return None
        result[path] = count + amount
    return result


def upsert_seed(query: Document, update: Document | list[Document]) -> Document:
    """The document that an upsert's update starts from: the query's equalities, or of a replacement only the _id."""
    if isinstance(update, dict) and not is_operators(update):
        return {key: value for key, value in equalities(query).items() if key == "_id"}
    seed: Document = {}
    for path, value in equalities(query).items():
        *parents, name = path.split(".")
        place = seed
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = copied(value)
    return seed


def copied(value: Any) -> Any:
    """A copy of a value from BSON: of lists and documents, as nothing else in it changes."""
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def aggregated(documents: list[Document], pipeline: list[Document]) -> list[Document]:
    """What comes out of the pipeline. Raises CommandError for stages that would need other collections."""
    stages = {name for stage in pipeline for name in stage}
    if foreign := stages & FOREIGN_STAGES:
        raise CommandError(2, f"this server has no {', '.join(sorted(foreign))}")
    if not stages <= READING_STAGES:
        documents = copied(documents)
    with translated():
        return list(process_pipeline(documents, _database, pipeline, None))


def _refuse_conflicts(update: Document) -> None:
    """Two operators on one path, or on a path and its parent: an error in MongoDB, a matter of order in mongomock."""
    paths: list[str] = []
    for operator, fields in update.items():
        if not operator.startswith("$"):
            raise CommandError(9, f"Unknown modifier: {operator}")
        if not isinstance(fields, dict):
            raise CommandError(9, f"Modifiers operate on fields but we found something else: {operator}")
        for path in fields:
            for other in paths:
                if path == other or path.startswith(other + ".") or other.startswith(path + "."):
                    raise CommandError(40, f"Updating the path '{path}' would create a conflict at '{other}'")
            paths.append(path)


def _refuse_dead_ends(document: Document, update: Document, *, inserting: bool) -> None:
    """A path through null or a number is an error in MongoDB; mongomock leaves it out. So is counting from `true`."""
    for operator, fields in update.items():
        if operator not in PATH_MAKERS or (operator == "$setOnInsert" and not inserting):
            continue
        for path in fields:
            place: Any = document
            *parents, name = path.split(".")
            for parent in parents:
                if not isinstance(place, dict) or parent not in place:
                    break
                place = place[parent]
                if not isinstance(place, (dict, list)):
                    raise CommandError(28, f"Cannot create field '{name}' in element {{{parent}: {place}}}")
            if operator == "$inc" and isinstance(place, dict) and isinstance(place.get(name), bool):
                raise CommandError(14, f"Cannot apply $inc to a value of non-numeric type: {path}")
