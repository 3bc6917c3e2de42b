"""The task: one piece of work and its whole record, and the moves that it may make.

A task *is* its document: one flat mapping that reads the same in MongoDB, in a queue message and in an HTTP answer.
Inside Python times are aware `datetime`s in UTC with millisecond precision (what BSON keeps); in JSON they are
RFC 3339 strings that end in `Z`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from sluice.errors import NotATask

Status = Literal["pending", "running", "completed", "failed", "cancelled"]
Document = dict[str, Any]

STATUSES: tuple[Status, ...] = get_args(Status)
TERMINAL: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})

#: The legal moves. Only `retry` leaves a terminal status; everything else follows the arrows of a task's life.
MOVES: dict[Status, frozenset[Status]] = {
    "pending": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"pending", "running", "completed", "failed", "cancelled"}),
    "completed": frozenset({"pending"}),
    "failed": frozenset({"pending"}),
    "cancelled": frozenset({"pending"}),
}

#: Fields of every task, whatever its kind. A kind's inputs and outputs may not use these names.
TIME_FIELDS = ("created_at", "queued_at", "started_at", "completed_at", "deadline", "retry_at")
#: Those of them that a summary has, in its order.
SUMMARY_FIELDS = ("_id", "user_id", "kind", *TIME_FIELDS, "status", "progress", "attempts", "error")
PUBLIC_FIELDS = frozenset({*SUMMARY_FIELDS, "steps"})
#: Bookkeeping of the engine, never shown: who runs it, by which claim, and until when nobody else may; how often a
#: process died of it, how often it was put off, when the sweep last mended it.
PRIVATE_FIELDS = frozenset({"engine", "token", "lease_until", "crashes", "failures", "swept_at"})
RESERVED_FIELDS = PUBLIC_FIELDS | PRIVATE_FIELDS

#: What no real task exceeds; a database takes neither for ever.
MAX_ATTEMPTS, MAX_DEPTH = 1_000_000, 50

_ID = re.compile(r"[0-9a-f]{32}")


def utc_now() -> datetime:
    """The time, in UTC, cut to the milliseconds that the database keeps."""
    return to_milliseconds(datetime.now(UTC))


def to_milliseconds(moment: datetime) -> datetime:
    beyond = moment.microsecond % 1000
    return moment.replace(microsecond=moment.microsecond - beyond) if beyond else moment


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-07-14T00:00:00.000Z`. A time without a zone is in UTC, as all of BSON
    are."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)  # without a zone it is written in half the time
    return moment.isoformat("T", "milliseconds") + "Z"


def parse_time(text: str) -> datetime:
    """The reverse of `format_time`. Raises ValueError for anything that is not a time with a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone")
    return to_milliseconds(moment if moment.tzinfo is UTC else moment.astimezone(UTC))


def new_id() -> str:
    return secrets.token_hex(16)


def id_from_key(user_id: str, key: str) -> str:
    """The id that an Idempotency-Key stands for: the same user and key always name the same task, so that a request
    repeated after a crash between the two writes can't create a second one."""
    return hashlib.sha256(f"{len(user_id)}:{user_id}{key}".encode()).hexdigest()[:32]


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def statuses_before(status: Status) -> list[Status]:
    """The statuses from which a task may move to this one without being retried by a person."""
    return [source for source in STATUSES if source not in TERMINAL and status in MOVES[source]]


def new_task(
    *,
    task_id: str,
    user_id: str,
    kind: str,
    inputs: Document,
    outputs: Document,
    now: datetime,
    ttl: timedelta,
) -> Task:
    """A pending task. `outputs` are the kind's outputs while they are still empty."""
    return Task(
        {
            "_id": task_id,
            "user_id": user_id,
            "kind": kind,
            **inputs,
            "created_at": now,
            "queued_at": None,
            "started_at": None,
            "completed_at": None,
            "deadline": now + ttl,
            "retry_at": None,
            "status": "pending",
            "progress": 0,
            "steps": [],
            "attempts": 0,
            "error": None,
            **outputs,
        }
    )


def expiry(task: Task, last_error: Document | None) -> Document:
    """The error of a task whose time was over before it was done: it says why, as far as that is known."""
    if last_error is not None:
        message = f"The time for the task was over before it worked. The last try: {last_error['message']}"
    elif task.status == "running" or task.document["started_at"] is not None:
        message = "The time for the task was over: the engine that worked on it went away. Try it again."
    else:
        message = "No engine could take the task before its time was over. Try it again."
    return {"code": "expired", "message": message}


def shown(document: Document) -> Document:
    """A task's document as the API shows it: without the engine's bookkeeping, times as text."""
    if PRIVATE_FIELDS.isdisjoint(document):
        seen = document.copy()
    else:
        seen = {field: value for field, value in document.items() if field not in PRIVATE_FIELDS}
    for field in TIME_FIELDS:
        moment = seen.get(field)
        if moment is not None:
            seen[field] = format_time(moment)
    return seen


def as_json(value: Any) -> bytes:
    """UTF-8 JSON, without blanks."""
    return _encoder.encode(value).encode()


def weight(document: Document) -> int:
    """About how many bytes the texts of a task's document have."""
    return sum([len(value) for value in document.values() if isinstance(value, str)])


class Task:
    """A view on a task's document, which does not change, with names and types for what every kind has."""

    __slots__ = ("_message", "document")

    def __init__(self, document: Document) -> None:
        self.document = document
        self._message: bytes | None = None

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.kind} {self.status}>"

    @property
    def id(self) -> str:
        return str(self.document["_id"])

    @property
    def user_id(self) -> str:
        return str(self.document["user_id"])

    @property
    def kind(self) -> str:
        return str(self.document["kind"])

    @property
    def status(self) -> Status:
        status: Status = self.document["status"]
        return status

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def attempts(self) -> int:
        """How often the task was started. Doubles as the fence: only the newest attempt may write."""
        return int(self.document.get("attempts", 0))

    @property
    def crashes(self) -> int:
        """How many attempts ended with the death of their engine, since the task was last queued by a person."""
        return int(self.document.get("crashes", 0))

    @property
    def failures(self) -> int:
        """How many attempts ended with a transient error, since the task was last queued by a person."""
        return int(self.document.get("failures", 0))

    @property
    def deadline(self) -> datetime:
        deadline: datetime = self.document["deadline"]
        return deadline

    @property
    def queued_at(self) -> datetime | None:
        queued_at: datetime | None = self.document.get("queued_at")
        return queued_at

    @property
    def retry_at(self) -> datetime | None:
        retry_at: datetime | None = self.document.get("retry_at")
        return retry_at

    @property
    def weight(self) -> int:
        """About how many bytes its texts have."""
        return weight(self.document)

    def is_leased(self, now: datetime) -> bool:
        """Whether a living engine says that it is at work on this task."""
        lease_until: datetime | None = self.document.get("lease_until")
        return self.status == "running" and lease_until is not None and lease_until > now

    def replace(self, **changes: Any) -> Task:
        return Task({**self.document, **changes})

    def to_json(self) -> Document:
        """The task as the API shows it: see `shown`."""
        return shown(self.document)

    def to_message(self) -> bytes:
        """The whole task as the body of a queue message (UTF-8 JSON): `to_json`, written once."""
        if self._message is None:
            self._message = as_json(self.to_json())
        return self._message

    @classmethod
    def from_message(cls, body: bytes) -> Task:
        """The reverse of `to_message`.

        Raises NotATask for anything that does not have a task's fields in a task's types. Whether its inputs suit its
        kind is not looked at: that needs the kind, and is the handler's business.
        """
        try:
            document = _decoder.decode(body.decode())
        except (ValueError, RecursionError) as error:
            raise NotATask("not JSON") from error
        if not isinstance(document, dict):
            raise NotATask("not a JSON object")
        for field in PRIVATE_FIELDS & document.keys():
            del document[field]
        _check(document, "_id", isinstance(document.get("_id"), str) and is_id(document["_id"]))
        _check(document, "user_id", isinstance(document.get("user_id"), str) and document["user_id"] != "")
        _check(document, "kind", isinstance(document.get("kind"), str) and document["kind"] != "")
        _check(document, "status", document.get("status") in STATUSES)
        attempts = document.get("attempts")
        _check(document, "attempts", type(attempts) is int and 0 <= attempts <= MAX_ATTEMPTS)
        if _may_be_deep(body) and _depth(document) > MAX_DEPTH:
            raise NotATask("too deeply nested")
        _check(document, "steps", _is_list_of_objects(document.get("steps")))
        for field in TIME_FIELDS:
            text = document.get(field)
            document[field] = None if text is None else _time(text, field)
        for field in ("created_at", "deadline"):
            _check(document, field, document[field] is not None)
        return cls(document)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number that is not finite has no form in JSON")
    return number


#: Made once: `json.loads` and `json.dumps` make new ones for every call with hooks or options.
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_decoder = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _check(document: Document, field: str, holds: bool) -> None:
    if not holds:
        raise NotATask(f"{field} is missing or of the wrong type" if field in document else f"{field} is missing")


def _may_be_deep(body: bytes) -> bool:
    """Whether a text opens enough lists and objects to be too deep. Nearly none does, and counting costs nothing."""
    return body.count(b"[") + body.count(b"{") >= MAX_DEPTH


def _depth(value: Any) -> int:
    """How deep lists and objects lie in each other; no deeper than one more than allowed is looked."""
    deepest, level = 0, [value]
    while level and deepest <= MAX_DEPTH:
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        deepest += 1
    return deepest


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _time(text: Any, field: str) -> datetime:
    try:
        return parse_time(text)
    except (TypeError, ValueError, OverflowError) as error:
        raise NotATask(f"{field} is not a time") from error
