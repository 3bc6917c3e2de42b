"""The tasks in MongoDB. This is the only module that knows pymongo, and the only writer of tasks.

Every change is one conditional update of one document, so that no two writers can both win, and needs nothing but what
MongoDB 4.4, FerretDB 1.24 and mongomock have in common. Who may write what, and why attempts are fenced by their
number: docs/decisions/0004-claims-leases-fences.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import pymongo
from bson.errors import InvalidDocument
from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from sluice.combining import Combiner
from sluice.errors import InvalidSettings, SluiceError, StoreUnavailable, Unstorable
from sluice.task import (
    RESERVED_FIELDS,
    STATUSES,
    TERMINAL,
    Document,
    Status,
    Task,
    statuses_before,
    utc_now,
    weight,
)
from sluice.writer import GroupWriter

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

#: After a failure, seconds during which an operation waits only `IMPATIENT_SECONDS` for the database: a database that
#: is away must not hold every request for the full timeout.
SUSPICIOUS_SECONDS, IMPATIENT_SECONDS = 5.0, 0.3

#: The codes by which a server says that it will never take a document, as opposed to not now (MongoDB's error codes):
#: BadValue, FailedToParse, TypeMismatch, Overflow, InvalidBSON, PathNotViable, ConflictingUpdateOperators,
#: DollarPrefixedFieldName, EmptyFieldName, DottedFieldName, BSONObjectTooLarge, and one without a name for the same.
REFUSALS = frozenset({2, 9, 14, 15, 22, 28, 40, 52, 56, 57, 10334, 17419})

#: The code by which a server says that there is a document with this id.
DUPLICATE = 11000

INDEXES: dict[str, list[tuple[str, int]]] = {
    # The lists of a user: newest first, alone or with one filter.
    "user_newest": [("user_id", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)],
    "user_status_newest": [
        ("user_id", ASCENDING),
        ("status", ASCENDING),
        ("created_at", DESCENDING),
        ("_id", DESCENDING),
    ],
    "user_kind_newest": [("user_id", ASCENDING), ("kind", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)],
    # The sweep: what is not finished, by what makes it suspicious.
    "status_queued_created": [("status", ASCENDING), ("queued_at", ASCENDING), ("created_at", ASCENDING)],
    "status_deadline": [("status", ASCENDING), ("deadline", ASCENDING)],
    "status_lease": [("status", ASCENDING), ("lease_until", ASCENDING)],
}


#: The order of a list, and how many tasks of one come in one answer of the database: enough for a page as most are.
NEWEST_FIRST, BATCH = [("created_at", DESCENDING), ("_id", DESCENDING)], 51

#: Round trips with what engines' threads change at the same time that may be on their way at once. One would gather the
#: most in each, but have everybody wait twice as long for a database that is far away. And how many changes, of up to 1
#: MiB, go in one: more could take longer than its timeout.
ROUNDS_AT_ONCE, MAX_ROUND = 2, 16

#: Why an attempt came to nothing: a transient error, or the death of its process.
Setback = Literal["failures", "crashes"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last task of a page: the next page starts after it, wherever new tasks have been added meanwhile."""

    created_at: datetime
    task_id: str


@dataclass(frozen=True, slots=True)
class _Change:
    """A conditional update of one task."""

    query: Document
    update: Document
    #: What the task has once this change is made, and would not have otherwise.
    proof: Document


def cursor_of(document: Document) -> Cursor:
    """The place of a task, which has its `_id` and `created_at`, in a list."""
    _aware(document)
    return Cursor(document["created_at"], str(document["_id"]))


def open_mongodb(uri: str, database: str, *, timeout: float = 2.0, name: str = "sluice") -> MongoTaskStore:
    """A store on a MongoDB server; connects on first use. Raises InvalidSettings for a URI that can't be read."""
    try:
        client: pymongo.MongoClient[Document] = pymongo.MongoClient(
            uri,
            tz_aware=False,  # `_aware` gives times their zone; a list, which only writes them out, goes without
            appname=name,
            connect=False,  # a client that has connected must not be forked
            connectTimeoutMS=int(timeout * 1000),
            serverSelectionTimeoutMS=int(timeout * 1000),
        )
    except (ConfigurationError, InvalidURI, ValueError, TypeError):
        raise InvalidSettings("MONGODB_URI is not a URI like mongodb://user:password@host:27017/") from None
    return MongoTaskStore(client, database, timeout=timeout)


class MongoTaskStore:
    """The tasks in one collection of a MongoDB (or mongomock) client. Methods may be called from any thread; all raise
    StoreUnavailable when the database does not answer within `timeout` seconds."""

    def __init__(
        self,
        client: Any,
        database: str = "sluice",
        *,
        timeout: float = 2.0,
        clock: Callable[[], datetime] = utc_now,
        one_at_a_time: bool = False,
    ) -> None:
        """`one_at_a_time` is for a client that bears no concurrent use, as mongomock's."""
        self._client = client
        self._tasks = client[database].get_collection(
            "tasks",
            # Whatever the URI says: a claim that could be lost, or a look at an old state, would break the promises.
            write_concern=pymongo.WriteConcern(w="majority"),
            read_preference=pymongo.ReadPreference.PRIMARY,
        )
        self._timeout = timeout
        #: One clock for all who work with this store: it decides about deadlines, pauses and leases.
        self.clock = clock
        self._failed_at = float("-inf")
        self._turn: AbstractContextManager[Any] = threading.RLock() if one_at_a_time else nullcontext()
        self._writer = GroupWriter(self._insert_group)
        self._make: Callable[[_Change], bool | SluiceError]
        if one_at_a_time:
            self._make = self._change_alone
        else:
            self._make = Combiner(self._make_changes, at_once=ROUNDS_AT_ONCE, most=MAX_ROUND)

    def ping(self) -> None:
        with self._answering():
            self._client.admin.command("ping")

    def create_indexes(self) -> None:
        """Create the indexes that are missing. Cheap when there are none missing."""
        with self._answering(patience=30):
            for name, keys in INDEXES.items():
                self._tasks.create_index(keys, name=name)

    def close(self) -> None:
        """Write what still waits to be inserted, and let go of the database."""
        self._writer.close()
        self._client.close()

    # --- people ------------------------------------------------------------------------------------------------------

    def insert(self, task: Task) -> Task:
        """Store a new task. Returns the one that is stored under its id: this one, or one that was there before."""
        with self._answering():
            try:
                self._tasks.insert_one(dict(task.document))
            except DuplicateKeyError:
                return self.get(task.id) or task
        return task

    def insert_soon(self, task: Task) -> Future[Task]:
        """As `insert`, together with all others that are on their way at the same time, in one round trip. Raises
        StoreUnavailable here when too many wait already; the future raises StoreUnavailable or Unstorable.

        A database that hangs is reported after `timeout` seconds; whoever comes while it does waits for that, and for
        IMPATIENT_SECONDS more at most. Cancelling the future takes a task back that was not sent yet.
        """
        return self._writer.add(task)

    def get(self, task_id: str) -> Task | None:
        with self._answering():
            return _task(self._tasks.find_one({"_id": task_id}))

    def page(
        self,
        user_id: str,
        *,
        kind: str | None = None,
        status: Status | None = None,
        limit: int = 50,
        after: Cursor | None = None,
        fields: Iterable[str] | None = None,
        shape: Callable[[Document], Any] | None = None,
        max_bytes: int | None = None,
    ) -> tuple[list[Any], Cursor | None]:
        """One page of a user's tasks, newest first, and where the next one starts (None after the last). With `fields`
        only these are read; `_id` and `created_at` have to be among them.

        `shape` makes of each document, as soon as it is read, what the page shall hold, by default a Task; the times
        that it is given may have no zone. It has to be a document when there are `max_bytes`: a page whose texts would
        be longer ends sooner, but holds something, and no more than BATCH tasks are read in vain."""
        query: Document = {"user_id": user_id}
        if kind is not None:
            query["kind"] = kind
        if status is not None:
            query["status"] = status
        if after is not None:
            query["created_at"] = {"$lte": after.created_at}
            query["$or"] = [{"created_at": {"$lt": after.created_at}}, {"_id": {"$lt": after.task_id}}]
        page: list[Any] = []
        last: Document | None = None
        size = 0
        with self._answering():
            found = self._tasks.find(query, None if fields is None else dict.fromkeys(fields, 1))
            found = found.sort(NEWEST_FIRST).limit(limit + 1).batch_size(min(limit + 1, BATCH))
            with closing(found):
                for document in found:
                    item: Any = Task(_aware(document)) if shape is None else shape(document)
                    if max_bytes is not None:
                        size += weight(item)
                    if last is not None and (len(page) == limit or (max_bytes is not None and size > max_bytes)):
                        return page, cursor_of(last)
                    page.append(item)
                    last = document
        return page, None

    def count_by_status(self, user_id: str | None, at_most: int) -> dict[Status, int]:
        """How many tasks of each status a user has, or all users have (None). No count goes on beyond `at_most`, so
        that none takes long."""
        whose: Document = {} if user_id is None else {"user_id": user_id}
        with self._answering():
            return {
                status: self._tasks.count_documents({**whose, "status": status}, limit=at_most) for status in STATUSES
            }

    def count_engines(self) -> int:
        """How many engines are at work on tasks now."""
        running = {"status": "running", "lease_until": {"$gt": self.clock()}}
        with self._answering():  # FerretDB's `distinct` takes no time limit
            return len(list(self._tasks.aggregate([{"$match": running}, {"$group": {"_id": "$engine"}}])))

    def cancel(self, task_id: str) -> Task | None:
        """Cancel a task that is not finished. None when there is no such task or it is finished."""
        return self._change(
            {"_id": task_id, "status": {"$in": statuses_before("cancelled")}},
            {"status": "cancelled", "completed_at": self.clock(), "lease_until": None, "retry_at": None},
        )

    def restart(self, task_id: str, *, deadline: datetime, outputs: Document) -> Task | None:
        """Make a finished task pending again, with a new deadline. None when there is no such task or it is not
        finished. The number of attempts goes on, so that an attempt from before stays fenced."""
        return self._change(
            {"_id": task_id, "status": {"$in": sorted(TERMINAL)}},
            {
                "status": "pending",
                "deadline": deadline,
                "queued_at": None,
                "started_at": None,
                "completed_at": None,
                "retry_at": None,
                "lease_until": None,
                "progress": 0,
                "steps": [],
                "error": None,
                "crashes": 0,
                "failures": 0,
                **outputs,
            },
        )

    # --- engines -----------------------------------------------------------------------------------------------------

    def start(self, task: Task, *, engine: str, lease: timedelta, token: str) -> Task | None:
        """`claim` for a task that nobody has started yet, as its message has it: what it is to do needs not be read.
        None when the database does not have it just so; then try `claim`. The `token` has to be new."""
        now = self.clock()
        asked = {name: value for name, value in task.document.items() if name not in RESERVED_FIELDS}
        if task.attempts or task.deadline <= now or any(name.startswith("$") for name in asked):
            return None
        claim = _claim(now, engine, token, lease)
        told = {name: task.document[name] for name in ("user_id", "kind", "created_at", "deadline")}
        same = {name: {"$eq": value} for name, value in {**told, **asked}.items()}
        query = {"_id": task.id, "status": "pending", "attempts": 0, "retry_at": _not_after(now), **same}
        update = {"$set": claim, "$inc": {"attempts": 1}}
        try:
            if not self._changed(_Change(query, update, {"status": "running", "token": token})):
                return None
        except Unstorable:  # what it says can't be in the database
            return None
        return task.replace(completed_at=None, progress=0, steps=[], attempts=1, **claim)

    def claim(self, task_id: str, *, engine: str, lease: timedelta, token: str = "") -> Task | None:
        """Start a pending task that is due: the next attempt is this engine's. None when it is not to be had so. The
        `token` tells the claimer, if the database's answer was lost, that this claim was its own."""
        now = self.clock()
        return self._claim(
            {"_id": task_id, "status": "pending", "retry_at": _not_after(now)}, now, engine, token, lease
        )

    def take_over(self, task: Task, *, engine: str, lease: timedelta, token: str = "") -> Task | None:
        """Start a running task whose engine is gone. None when somebody was faster.

        The first time this makes the task a suspect (`crashes` is 1). Later it says nothing about the task: a suspect
        runs in a process of its own, and only the death of that one counts."""
        now = self.clock()
        fence = {"_id": task.id, "status": "running", "attempts": task.attempts, "lease_until": _not_after(now)}
        return self._claim(fence, now, engine, token, lease, {"crashes": max(1, task.crashes)})

    def _claim(
        self, query: Document, now: datetime, engine: str, token: str, lease: timedelta, more: Document | None = None
    ) -> Task | None:
        with self._answering():
            return _task(
                self._tasks.find_one_and_update(
                    {**query, "deadline": {"$gt": now}},
                    {"$set": {**_claim(now, engine, token, lease), **(more or {})}, "$inc": {"attempts": 1}},
                    return_document=ReturnDocument.AFTER,
                )
            )

    def report(self, task: Task, changes: Document, *, lease: timedelta) -> bool:
        """Write what an attempt has so far, and hold on to the task. False when it is no longer this attempt's."""
        with self._answering():
            result = self._tasks.update_one(_fence(task), {"$set": {**changes, "lease_until": self.clock() + lease}})
        return bool(result.matched_count)

    def hold(self, tasks: Sequence[Task], *, engine: str, lease: timedelta) -> set[tuple[str, int]]:
        """Hold on to many running tasks at once. Returns the ids and attempts of those that still run."""
        with self._answering():
            query = {"_id": {"$in": [task.id for task in tasks]}, "status": "running", "engine": engine}
            self._tasks.update_many(query, {"$set": {"lease_until": self.clock() + lease}})
            return {(found["_id"], found["attempts"]) for found in self._tasks.find(query, {"attempts": 1})}

    def finish(self, task: Task, status: Literal["completed", "failed"], changes: Document) -> bool:
        """Write the result of an attempt. False, and nothing written, when it is no longer this attempt's."""
        final = {"status": status, "completed_at": self.clock(), "lease_until": None, **changes}
        proof = {"status": status, "attempts": task.attempts, "error": changes.get("error")}
        return self._changed(_Change(_fence(task), {"$set": final}, proof))

    def put_off(
        self, task: Task, changes: Document, *, retry_at: datetime | None = None, count: Setback | None = None
    ) -> bool:
        """Make a running attempt's task pending again, to be tried at `retry_at` or at once, and count what went wrong.
        False, and nothing written, when it is no longer this attempt's."""
        back = {"status": "pending", "retry_at": retry_at, "lease_until": None, "queued_at": self.clock(), **changes}
        update: Document = {"$set": back}
        if count is not None:
            update["$inc"] = {count: 1}
        with self._answering():
            return bool(self._tasks.update_one(_fence(task), update).matched_count)

    def fail(self, task: Task, error: Document) -> bool:
        """Give up a task that nobody is at work on: pending, or running with a lease that has run out. False, and
        nothing written, when it has moved on since it was read."""
        now = self.clock()
        query = {
            "_id": task.id,
            "status": task.status,
            "attempts": task.attempts,
            "deadline": task.deadline,
            "lease_until": _not_after(now),
        }
        final = {"status": "failed", "completed_at": now, "lease_until": None, "retry_at": None, "error": error}
        with self._answering():
            return bool(self._tasks.update_one(query, {"$set": final}).matched_count)

    # --- the sweep ---------------------------------------------------------------------------------------------------

    def unqueued(self, limit: int) -> list[Task]:
        """Tasks that were accepted while the queue was away, oldest first."""
        return self._find({"status": "pending", "queued_at": None}, "created_at", limit)

    def quiet(self, before: datetime, limit: int) -> list[Task]:
        """Pending tasks whose message was sent, and due, before this moment: taken, or lost."""
        query = {"status": "pending", "queued_at": {"$lt": before}, "retry_at": _not_after(before)}
        return self._find(query, "queued_at", limit)

    def overdue(self, before: datetime, limit: int) -> list[Task]:
        """Pending tasks whose deadline lies before this moment."""
        return self._find({"status": "pending", "deadline": {"$lt": before}}, "deadline", limit)

    def abandoned(self, before: datetime, limit: int) -> list[Task]:
        """Running tasks whose engine has not given a sign of life since this moment."""
        query = {"status": "running", "lease_until": {"$lt": before}, "swept_at": _not_after(before)}
        return self._find(query, "lease_until", limit)

    def mark_queued(self, task: Task, queued_at: datetime | None) -> bool:
        """Note when a pending task's message was sent (None: not at all). False when somebody else was faster."""
        query = {"_id": task.id, "status": "pending", "queued_at": task.queued_at, "deadline": task.deadline}
        with self._answering():
            return bool(self._tasks.update_one(query, {"$set": {"queued_at": queued_at}}).matched_count)

    def mark_swept(self, task: Task) -> bool:
        """Note that an abandoned task's message is sent again now. False when somebody else was faster."""
        query = {**_fence(task), "swept_at": task.document.get("swept_at")}
        with self._answering():
            return bool(self._tasks.update_one(query, {"$set": {"swept_at": self.clock()}}).matched_count)

    def count_unfinished(self) -> int:
        """How many tasks are not at their end."""
        with self._answering():
            return int(self._tasks.count_documents({"status": {"$nin": sorted(TERMINAL)}}))

    # -----------------------------------------------------------------------------------------------------------------

    def _together(self, items: Sequence[T], many: Callable[[Sequence[T]], list[R]], alone: Callable[[T], R]) -> list[R]:
        """Do the same with many things in one round trip, or with each alone where one of them can't be stored."""
        if len(items) == 1:
            return [alone(items[0])]
        with self._answering():  # one bound for all that follows
            with suppress(Unstorable):  # one of them is: each for itself finds out which
                return many(items)
            return [alone(item) for item in items]

    def _changed(self, change: _Change) -> bool:
        """Make a change, together with those that other threads make at the same time. False when its condition does
        not hold."""
        outcome = self._make(change)
        if isinstance(outcome, SluiceError):
            raise outcome
        return outcome

    def _make_changes(self, changes: Sequence[_Change]) -> list[bool | SluiceError]:
        """For each change whether it was made, or why it can't be. Raises StoreUnavailable for all of them."""
        return self._together(changes, self._change_many, self._change_alone)

    def _change_many(self, changes: Sequence[_Change]) -> list[bool | SluiceError]:
        wrong: dict[int, SluiceError] = {}
        with self._answering():
            try:
                updates = [pymongo.UpdateOne(change.query, change.update) for change in changes]
                if self._tasks.bulk_write(updates, ordered=False).matched_count == len(changes):
                    return [True] * len(changes)
            except BulkWriteError as error:
                wrong = {index: _refusal(code) for index, code in _codes(error).items()}
            # The server says how many it has changed, not which.
            fields = {name for change in changes for name in change.proof}
            whole = self._tasks.find(
                {"_id": {"$in": [change.query["_id"] for change in changes]}}, dict.fromkeys(fields, 1)
            )
            found = {document["_id"]: document for document in whole}
        return [
            wrong.get(index) or change.proof.items() <= found.get(change.query["_id"], {}).items()
            for index, change in enumerate(changes)
        ]

    def _change_alone(self, change: _Change) -> bool | SluiceError:
        try:
            with self._answering():
                return bool(self._tasks.update_one(change.query, change.update).matched_count)
        except Unstorable as error:
            return error

    def _insert_group(self, tasks: Sequence[Task]) -> list[Task | SluiceError]:
        """For each task the one that is stored, or why it is not. Raises StoreUnavailable for all of them."""
        return self._together(tasks, self._insert_many, self._insert_alone)

    def _insert_many(self, tasks: Sequence[Task]) -> list[Task | SluiceError]:
        outcomes: list[Task | SluiceError] = list(tasks)
        with self._answering():
            try:
                self._tasks.insert_many([dict(task.document) for task in tasks], ordered=False)
            except BulkWriteError as error:
                codes = _codes(error)
                known = [tasks[index].id for index, code in codes.items() if code == DUPLICATE]
                earlier = {each["_id"]: Task(_aware(each)) for each in self._tasks.find({"_id": {"$in": known}})}
                for index, code in codes.items():
                    is_known = code == DUPLICATE
                    outcomes[index] = earlier.get(tasks[index].id, tasks[index]) if is_known else _refusal(code)
        return outcomes

    def _insert_alone(self, task: Task) -> Task | SluiceError:
        try:
            return self.insert(task)
        except Unstorable as error:
            return error

    def _find(self, query: Document, order: str, limit: int) -> list[Task]:
        with self._answering():
            found = self._tasks.find(query).sort(order, ASCENDING).limit(limit)
            return [Task(_aware(document)) for document in found]

    def _change(self, query: Document, changes: Document) -> Task | None:
        with self._answering():
            return _task(
                self._tasks.find_one_and_update(query, {"$set": changes}, return_document=ReturnDocument.AFTER)
            )

    @contextmanager
    def _answering(self, patience: float | None = None) -> Iterator[None]:
        """Bound the time of an operation, and translate the driver's errors."""
        suspicious = time.monotonic() - self._failed_at < SUSPICIOUS_SECONDS
        seconds = patience or (min(IMPATIENT_SECONDS, self._timeout) if suspicious else self._timeout)
        try:
            with self._turn, pymongo.timeout(seconds):
                yield
        except DuplicateKeyError:
            raise
        except (InvalidDocument, OverflowError, UnicodeEncodeError) as error:
            raise Unstorable("the database has no form for this") from error
        except PyMongoError as error:
            if isinstance(error, OperationFailure) and error.code in REFUSALS:
                raise Unstorable("the database does not take this") from error
            if not suspicious:  # an impatient failure says nothing new: the next patient try must come
                self._failed_at = time.monotonic()
                log.warning("the database fails: %s %s", type(error).__name__, getattr(error, "code", None) or "")
            raise StoreUnavailable("The database does not answer.") from error
        else:
            self._failed_at = float("-inf")


def _codes(error: BulkWriteError) -> dict[int, int]:
    """Which of many writes failed, by their places, and the codes by which the server says why. Raises the error again
    when a majority has not confirmed those that did not."""
    if error.details.get("writeConcernErrors"):
        raise error
    return {each["index"]: each["code"] for each in error.details["writeErrors"]}


def _refusal(code: int) -> SluiceError:
    if code in REFUSALS:
        return Unstorable("the database does not take this")
    log.warning("the database did not write a task: code %s", code)
    return StoreUnavailable("The database does not answer.")


def _claim(now: datetime, engine: str, token: str, lease: timedelta) -> Document:
    """What a claim says of a task."""
    return {
        "status": "running",
        "started_at": now,
        "engine": engine,
        "token": token,
        "lease_until": now + lease,
        "retry_at": None,
        "error": None,
    }


def _fence(task: Task) -> Document:
    """Matches a running task only while this attempt is the newest one."""
    return {"_id": task.id, "status": "running", "attempts": task.attempts}


def _not_after(moment: datetime) -> Document:
    """Matches a time that is not after this one, and no time at all."""
    return {"$not": {"$gt": moment}}


def _task(document: Document | None) -> Task | None:
    return None if document is None else Task(_aware(document))


def _aware(document: Document) -> Document:
    """Times come without a zone; all that we store are UTC."""
    for field, value in document.items():
        if isinstance(value, datetime) and value.tzinfo is None:
            document[field] = value.replace(tzinfo=UTC)
    return document
