"""Whatever somebody puts into the queue, the engine decides what becomes of it, and nobody else's task suffers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st
from pydantic import ValidationError

from functions.engine.worker import HandBack, Settled, Unreadable, Wait
from sluice.broker import Message
from sluice.requests import ListQuery
from sluice.service import get_task, list_tasks
from sluice.store import MongoTaskStore
from sluice.task import STATUSES, TIME_FIELDS, Document, is_id, parse_time
from tests.engine.doubles import DOCUMENT_BYTES, Bench, Database, a_task
from tests.examples import examples

#: Operations of the database that one message may cost.
MOST_OPERATIONS = 50

#: Every character, halves of surrogate pairs and all.
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
NAMES = TEXT | st.sampled_from(["$set", "a.b", "", "_id", "\0", "status", "engine", "lease_until", "crashes"])
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


TIMES = st.datetimes().map(lambda time: f"{time.isoformat()}Z") | st.sampled_from(
    [
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999-23:59",
        "9999-12-31T23:59:59.999Z",
        "1969-12-31T23:59:59.999Z",
        "2026-07-14T00:00:00",
        "2026-07-14",
        "2026-W29-2T00:00:00Z",
        "20260714T000000.5Z",
        "2026-02-30T00:00:00Z",
        "",
    ]
)
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
TASK = a_task(_id="a" * 32, created_at=NOON, queued_at=NOON, deadline=NOON + timedelta(minutes=5))
FIELDS = sorted(TASK.document)
#: What may hold anything, or nothing, without the message being refused at once.
LOOSE = ["text", "message", "progress", "error"]

#: A field, and what is put in its place.
CHANGES: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.sampled_from(FIELDS), ANYTHING),
    st.tuples(st.sampled_from(LOOSE), ANYTHING),
    st.tuples(NAMES, ANYTHING),
    st.tuples(st.sampled_from(TIME_FIELDS), TIMES),
    st.tuples(st.just("status"), st.sampled_from(STATUSES)),
    st.tuples(st.sampled_from(["attempts", "progress"]), NUMBERS),
    st.tuples(st.just("steps"), st.lists(st.dictionaries(NAMES, ANYTHING, max_size=2), max_size=2)),
    st.tuples(st.just("text"), st.integers(1, 200).map(nested)),
    st.tuples(st.just("text"), st.integers(1, 300_000).map("x".__mul__)),
)
HEADERS = st.dictionaries(TEXT | st.just("x-request-id"), ANYTHING | st.binary() | st.datetimes(), max_size=2)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """The message of a task, after one or two accidents."""
    document = {**TASK.to_json(), **dict(draw(st.lists(CHANGES, max_size=2)))}
    for name in draw(st.lists(st.sampled_from(LOOSE + FIELDS), max_size=1)):
        document.pop(name, None)
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))
    accident = draw(st.sampled_from(["none", "none", "none", "a field twice", "other bytes", "another encoding"]))
    if accident == "a field twice":
        text = f"{text[:-1]}, {json.dumps(dict([draw(CHANGES)]))[1:]}"  # the last one counts
    if accident == "another encoding":
        encoding = draw(st.sampled_from(["utf-8-sig", "utf-16", "utf-32-be", "utf-7", "cp037"]))
        return text.encode(encoding, "replace" if encoding in ("utf-7", "cp037") else "surrogatepass")
    body = text.encode("utf-8", "surrogatepass")
    if accident == "other bytes":
        start = draw(st.integers(0, len(body)))
        body = body[:start] + draw(st.binary(max_size=4)) + body[draw(st.integers(start, len(body))) :]
    return body


class Patient(Database):
    """A database that has had enough at some time: nothing may go round in circles."""

    def _operate(self, *arguments: Any) -> Any:
        assert len(self.operations) < MOST_OPERATIONS, "it goes round in circles"
        return super()._operate(*arguments)


@given(bodies(), HEADERS)
@examples(1_000)
def test_whatever_a_message_holds_it_is_decided_on_and_harms_nobody(body: bytes, headers: Document) -> None:
    bench = Bench(database=Patient())
    bench.clock.now = NOON
    neighbour = bench.stored()
    for message in (Message("any", body, headers), Message("other", body.replace(b"a" * 32, b"b" * 32))):
        for _ in range(2):
            worker = bench.worker(lambda _inputs, _step: {})
            decisions = [worker.work(message), worker.bury(message)]
            event(" and ".join(type(decision).__name__ for decision in decisions))
            assert all(isinstance(decision, Settled | Wait | HandBack | Unreadable) for decision in decisions)
            bench.clock.advance(400)
    assert bench.now(neighbour).document == neighbour.document
    shown = [shown_alone(bench.store, task_id) for task_id in bench.database.ids()]
    for user_id in filter(is_user, {task["user_id"] for task in shown}):
        theirs = [task for task in shown if task["user_id"] == user_id]
        assert sorted(shown_in_pages(bench.store, user_id), key=by_id) == sorted(theirs, key=by_id)


@given(st.binary(max_size=100) | ANYTHING.map(lambda value: json.dumps(value).encode()), HEADERS)
@examples(200)
def test_what_never_was_a_task_is_kept_apart(body: bytes, headers: Document) -> None:
    bench = Bench()
    for decide in (bench.worker(lambda _inputs, _step: {}).work, bench.worker(lambda _inputs, _step: {}).bury):
        assert decide(Message("any", body, headers)) == Unreadable()
    assert bench.database.ids() == []


def test_a_message_that_no_database_holds_is_decided_on() -> None:
    bench = Bench()
    body = TASK.replace(text="x" * DOCUMENT_BYTES).to_message()
    assert bench.worker(lambda _inputs, _step: {}).work(Message("any", body)) == Unreadable()
    assert bench.database.ids() == []


def shown_alone(store: MongoTaskStore, task_id: str) -> Document:
    """What the API shows of a task, after a look at its form."""
    shown = strictly(get_task(store, task_id).to_json())
    assert is_id(shown["_id"])
    assert shown["status"] in STATUSES
    assert isinstance(shown["attempts"], int)
    assert 0 <= shown["progress"] <= 100
    assert all(isinstance(step, dict) for step in shown["steps"])
    assert shown["error"] is None or all(isinstance(shown["error"][part], str) for part in ("code", "message"))
    for name in ("created_at", "deadline"):
        parse_time(shown[name])
    for name in ("queued_at", "started_at", "completed_at", "retry_at"):
        assert shown[name] is None or parse_time(shown[name])
    return shown


def shown_in_pages(store: MongoTaskStore, user_id: str) -> list[Document]:
    tasks, cursor = [], None
    while True:
        page = strictly(list_tasks(store, ListQuery(user_id=user_id, limit=1, cursor=cursor)))
        tasks += page["tasks"]
        if (cursor := page["next"]) is None:
            return tasks


def strictly(content: Any) -> Any:
    """What somebody reads who takes JSON at its word."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(json.dumps(content, ensure_ascii=False).encode(), parse_constant=refuse)


def by_id(task: Document) -> str:
    return str(task["_id"])


def is_user(user_id: str) -> bool:
    """Whether somebody could ask for this user's tasks."""
    try:
        return ListQuery(user_id=user_id).user_id == user_id
    except ValidationError:
        return False
