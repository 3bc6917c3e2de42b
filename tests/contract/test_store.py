"""What every store promises, held against mongomock, against pymongo's real network path, and against real servers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import Any

import mongomock
import pymongo
import pytest
from pymongo.errors import NetworkTimeout
from pymongo.monitoring import CommandListener, CommandStartedEvent

from sluice.errors import InvalidSettings, StoreUnavailable, Unstorable
from sluice.store import SUSPICIOUS_SECONDS, Cursor, MongoTaskStore, open_mongodb
from sluice.task import STATUSES, Task, new_id
from tests.contract.stores import LEASE, NOW, SERVERS, Clock, claimed, read, task
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually


def test_a_task_is_read_as_it_was_stored(store: MongoTaskStore, clock: Clock) -> None:
    fresh = task(clock, text="𝄞 <b>“quoted”</b> \u202e\u05e9\u05dc", created_at=NOW + timedelta(milliseconds=123))
    assert store.insert(fresh) is fresh
    assert read(store, fresh).document == fresh.document
    assert list(read(store, fresh).document) == list(fresh.document), "fields keep their order"
    assert store.get(new_id()) is None


def test_inserting_twice_keeps_the_first(store: MongoTaskStore, clock: Clock) -> None:
    first = task(clock)
    store.insert(first)
    second = Task({**first.document, "text": "other"})
    assert store.insert(second).document["text"] == "hi"
    assert read(store, first).document["text"] == "hi"


def test_a_claim_starts_the_next_attempt_once(store: MongoTaskStore, clock: Clock) -> None:
    pending = store.insert(task(clock, error={"code": "rate_limited", "message": "busy"}))
    mine = store.claim(pending.id, engine="e1", lease=LEASE)
    assert mine is not None
    assert (mine.status, mine.attempts, mine.document["error"]) == ("running", 1, None)
    assert mine.document["started_at"] == clock()
    assert mine.is_leased(clock())
    assert store.claim(pending.id, engine="e2", lease=LEASE) is None
    assert store.claim(new_id(), engine="e2", lease=LEASE) is None


def test_of_many_engines_that_claim_at_once_one_wins(store: MongoTaskStore, clock: Clock) -> None:
    for _ in range(10):
        pending = store.insert(task(clock))
        with ThreadPoolExecutor(8) as pool:
            winners = list(pool.map(lambda n, i=pending.id: store.claim(i, engine=f"e{n}", lease=LEASE), range(8)))
        assert sum(winner is not None for winner in winners) == 1
        assert read(store, pending).attempts == 1


def test_a_task_is_started_as_its_message_has_it(store: MongoTaskStore, clock: Clock) -> None:
    fresh = store.insert(task(clock, text="𝄞"))
    message = Task.from_message(fresh.replace(progress=7, steps=[{}], error={}, started_at=clock()).to_message())
    mine = store.start(message, engine="e1", lease=LEASE, token="t1")
    assert mine is not None
    assert read(store, fresh).document == mine.document
    assert (mine.status, mine.attempts, mine.document["started_at"]) == ("running", 1, clock())
    assert mine.is_leased(clock())
    assert store.start(message, engine="e2", lease=LEASE, token="t2") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, {"text": "other"}),
        ({}, {"text": {"$gt": ""}}),
        ({}, {"$bogus": 1}),
        ({}, {"a.b": 1}),
        ({}, {"text": 2**70}),
        ({}, {"text": "\ud800"}),
        ({}, {"message": "done"}),
        ({}, {"deadline": NOW + timedelta(seconds=301)}),
        ({}, {"created_at": NOW + timedelta(seconds=1)}),
        ({}, {"user_id": "bob"}),
        ({}, {"kind": "code"}),
        ({}, {"more": None, "text": ""}),
        ({"attempts": 1}, {}),
        ({"attempts": 1}, {"attempts": 0}),
        ({"status": "cancelled"}, {"status": "pending"}),
        ({"retry_at": NOW + timedelta(seconds=1)}, {"retry_at": None}),
        ({"deadline": NOW}, {}),
    ],
)
def test_a_task_that_is_otherwise_than_its_message_says_is_not_started_so(
    store: MongoTaskStore, clock: Clock, changes: dict[str, Any], message: dict[str, Any]
) -> None:
    stored = store.insert(task(clock, **changes))
    assert store.start(stored.replace(**message), engine="e1", lease=LEASE, token="t1") is None
    assert read(store, stored).document == stored.document


def test_a_task_past_its_deadline_or_before_its_pause_is_over_is_not_claimed(
    store: MongoTaskStore, clock: Clock
) -> None:
    waiting = store.insert(task(clock, retry_at=clock() + timedelta(seconds=5)))
    assert store.claim(waiting.id, engine="e1", lease=LEASE) is None
    clock.pass_(seconds=5)
    assert store.claim(waiting.id, engine="e1", lease=LEASE) is not None
    late = store.insert(task(clock))
    clock.pass_(seconds=300)
    assert store.claim(late.id, engine="e1", lease=LEASE) is None


def test_a_task_is_taken_over_only_when_its_lease_has_run_out(store: MongoTaskStore, clock: Clock) -> None:
    mine = claimed(store, clock)
    assert store.take_over(mine, engine="e2", lease=LEASE) is None
    clock.pass_(seconds=11)
    theirs = store.take_over(mine, engine="e2", lease=LEASE)
    assert theirs is not None
    assert (theirs.attempts, theirs.crashes, theirs.document["engine"]) == (2, 1, "e2")
    assert store.take_over(mine, engine="e3", lease=LEASE) is None


def test_an_older_attempt_can_write_nothing_any_more(store: MongoTaskStore, clock: Clock) -> None:
    old = claimed(store, clock)
    clock.pass_(seconds=11)
    new = store.take_over(old, engine="e2", lease=LEASE)
    assert new is not None
    assert not store.report(old, {"progress": 99}, lease=LEASE)
    assert not store.put_off(old, {}, count="failures")
    assert not store.finish(old, "completed", {"message": "old"})
    assert store.hold([old], engine="e1", lease=LEASE) == set()
    assert read(store, new).document == new.document
    assert store.finish(new, "completed", {"message": "new"})
    assert not store.finish(new, "failed", {"error": {"code": "x", "message": "x"}})
    assert (read(store, new).status, read(store, new).document["message"]) == ("completed", "new")


def test_reports_and_holds_renew_the_lease(store: MongoTaskStore, clock: Clock) -> None:
    reporting, quiet, cancelled = claimed(store, clock), claimed(store, clock), claimed(store, clock)
    store.cancel(cancelled.id)
    clock.pass_(seconds=9)
    assert store.report(reporting, {"progress": 40, "message": "so far"}, lease=LEASE)
    assert store.hold([quiet, cancelled], engine="e1", lease=LEASE) == {(quiet.id, quiet.attempts)}
    clock.pass_(seconds=9)
    assert read(store, reporting).is_leased(clock())
    assert read(store, reporting).document["message"] == "so far"
    assert read(store, quiet).is_leased(clock())
    assert not read(store, cancelled).is_leased(clock())


def test_a_put_off_task_waits_and_remembers_why(store: MongoTaskStore, clock: Clock) -> None:
    mine = claimed(store, clock)
    retry_at = clock() + timedelta(seconds=4)
    error = {"code": "rate_limited", "message": "busy"}
    assert store.put_off(mine, {"error": error}, retry_at=retry_at, count="failures")
    back = read(store, mine)
    assert (back.status, back.attempts, back.failures, back.retry_at) == ("pending", 1, 1, retry_at)
    assert back.document["error"] == error
    assert not back.is_leased(clock())


def test_cancelling_works_until_a_task_is_finished(store: MongoTaskStore, clock: Clock) -> None:
    waiting, running, done = store.insert(task(clock)), claimed(store, clock), claimed(store, clock)
    store.finish(done, "completed", {})
    for unfinished in (waiting, running):
        cancelled = store.cancel(unfinished.id)
        assert cancelled is not None
        assert (cancelled.status, cancelled.document["completed_at"]) == ("cancelled", clock())
        assert store.cancel(unfinished.id) is None
    assert store.cancel(done.id) is None
    assert store.cancel(new_id()) is None
    assert not store.finish(running, "completed", {"message": "too late"})
    assert store.claim(waiting.id, engine="e1", lease=LEASE) is None


def test_a_restarted_task_is_as_new_but_for_its_number_of_attempts(store: MongoTaskStore, clock: Clock) -> None:
    mine = claimed(store, clock)
    assert store.restart(mine.id, deadline=NOW, outputs={}) is None
    store.finish(mine, "failed", {"error": {"code": "x", "message": "x"}, "message": "half", "steps": [{}]})
    clock.pass_(seconds=1000)
    deadline = clock() + timedelta(seconds=300)
    fresh = store.restart(mine.id, deadline=deadline, outputs={"message": ""})
    assert fresh is not None
    assert (fresh.status, fresh.attempts, fresh.deadline, fresh.queued_at) == ("pending", 1, deadline, None)
    assert [fresh.document[name] for name in ("message", "error", "steps", "completed_at")] == ["", None, [], None]
    again = store.claim(mine.id, engine="e2", lease=LEASE)
    assert again is not None
    assert again.attempts == 2
    assert not store.finish(mine, "completed", {"message": "from before"})


def test_giving_up_spares_what_has_moved_on(store: MongoTaskStore, clock: Clock) -> None:
    error = {"code": "expired", "message": "over"}
    pending, running = store.insert(task(clock)), claimed(store, clock)
    moved = store.insert(task(clock))
    store.claim(moved.id, engine="e1", lease=LEASE)
    assert store.fail(pending, error)
    assert not store.fail(running, error), "its lease is alive"
    assert not store.fail(moved, error), "it was pending when it was read"
    clock.pass_(seconds=11)
    assert store.fail(read(store, running), error)
    assert read(store, running).document["error"] == error


def test_pages_are_newest_first_and_stable_while_tasks_are_added(store: MongoTaskStore, clock: Clock) -> None:
    store.create_indexes()
    ids = []
    for number in range(7):
        ids.append(store.insert(task(clock)).id)
        if number % 2:
            clock.pass_(milliseconds=1)  # some tasks share their millisecond
    store.insert(task(clock, user_id="bob"))
    seen: list[Task] = []
    after: Cursor | None = None
    while True:
        page, after = store.page("ada", limit=2, after=after)
        seen += page
        clock.pass_(seconds=1)
        store.insert(task(clock))
        if after is None:
            break
    order = [(t.document["created_at"], t.id) for t in seen]
    assert sorted(t.id for t in seen) == sorted(ids)
    assert order == sorted(order, reverse=True)


def test_pages_are_filtered_by_kind_and_status(store: MongoTaskStore, clock: Clock) -> None:
    running, pending = claimed(store, clock), store.insert(task(clock))
    other = store.insert(task(clock, kind="code"))
    assert [t.id for t in store.page("ada", status="running")[0]] == [running.id]
    assert [t.id for t in store.page("ada", kind="code")[0]] == [other.id]
    assert [t.id for t in store.page("ada", kind="message", status="pending")[0]] == [pending.id]


def test_a_page_of_some_fields_reads_no_others(store: MongoTaskStore, clock: Clock) -> None:
    fields = ["_id", "created_at", "text", "language"]
    tasks = [store.insert(task(clock, message="x" * 1000)) for _ in range(3)]
    tasks.sort(key=lambda task: task.id, reverse=True)
    page, after = store.page("ada", limit=2, fields=fields)
    assert [t.document for t in page] == [{"_id": t.id, "created_at": NOW, "text": "hi"} for t in tasks[:2]]
    page, after = store.page("ada", limit=2, after=after, fields=fields)
    assert ([t.id for t in page], after) == ([tasks[2].id], None)


def test_a_page_holds_what_is_made_of_each_task(store: MongoTaskStore, clock: Clock) -> None:
    tasks = sorted((store.insert(task(clock)).id for _ in range(3)), reverse=True)
    page, after = store.page("ada", limit=2, shape=lambda document: {"_id": document["_id"], "seen": True})
    assert page == [{"_id": task_id, "seen": True} for task_id in tasks[:2]]
    page, after = store.page("ada", limit=2, after=after, shape=lambda document: document["_id"])
    assert (page, after) == ([tasks[2]], None)


def test_a_page_whose_texts_are_too_long_together_ends_sooner(store: MongoTaskStore, clock: Clock) -> None:
    tasks = sorted((store.insert(task(clock, message="x" * 1000)).id for _ in range(7)), reverse=True)
    made: list[str] = []

    def shape(document: dict[str, Any]) -> dict[str, Any]:
        made.append(document["_id"])
        return document

    walked: list[str] = []
    after: Cursor | None = None
    while after is not None or not walked:
        made.clear()
        page, after = store.page("ada", limit=6, after=after, shape=shape, max_bytes=3500)
        assert len(made) <= len(page) + 1, "what does not fit is not made, but for the one that shows it"
        walked += [document["_id"] for document in page]
        assert len(page) == 3 or after is None
    assert walked == tasks
    page, after = store.page("ada", limit=6, shape=shape, max_bytes=10)
    assert ([document["_id"] for document in page], after is None) == (tasks[:1], False), "one that is too long alone"


def test_of_long_texts_a_page_reads_one_batch_and_gives_the_rest_back(
    wire_mongo: WireMongo, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Commands(CommandListener):
        def __init__(self) -> None:
            self.sent: list[Any] = []

        def started(self, event: CommandStartedEvent) -> None:
            self.sent.append((event.command_name, event.command.get("batchSize")))

        def succeeded(self, event: Any) -> None: ...

        def failed(self, event: Any) -> None: ...

    monkeypatch.setattr("sluice.store.BATCH", 4)
    commands = Commands()
    database = f"test_{uuid.uuid4().hex[:8]}"
    with pymongo.MongoClient[dict[str, Any]](wire_mongo.uri, event_listeners=[commands]) as client:
        store = MongoTaskStore(client, database, clock=clock)
        for _ in range(20):
            store.insert(task(clock, message="x" * 1000))
        commands.sent.clear()
        page, _ = store.page("ada", limit=15, shape=lambda document: document, max_bytes=3500)
        assert len(page) == 3
        assert commands.sent == [("find", 4), ("killCursors", None)]
        commands.sent.clear()
        assert len(store.page("ada", limit=15)[0]) == 15
        assert [name for name, _ in commands.sent] == ["find", "getMore", "getMore", "getMore"]
        client.drop_database(database)


def test_the_tasks_of_a_user_are_counted_by_status_up_to_a_limit(store: MongoTaskStore, clock: Clock) -> None:
    store.create_indexes()
    assert store.count_by_status("ada", 10) == dict.fromkeys(STATUSES, 0)
    for number in range(7):
        store.insert(task(clock, status="failed" if number else "cancelled"))
    store.insert(task(clock, user_id="bob"))
    assert store.count_by_status("ada", 10) == {**dict.fromkeys(STATUSES, 0), "failed": 6, "cancelled": 1}
    assert store.count_by_status("ada", 3) == {**dict.fromkeys(STATUSES, 0), "failed": 3, "cancelled": 1}
    assert store.count_by_status("bob", 3) == {**dict.fromkeys(STATUSES, 0), "pending": 1}
    assert store.count_by_status(None, 5) == {**dict.fromkeys(STATUSES, 0), "failed": 5, "cancelled": 1, "pending": 1}


def test_engines_are_counted_while_they_hold_a_task(store: MongoTaskStore, clock: Clock) -> None:
    store.create_indexes()
    assert store.count_engines() == 0
    tasks = [store.insert(task(clock, user_id=user)) for user in ("ada", "ada", "bob", "bob")]
    for number, pending in enumerate(tasks):
        store.claim(pending.id, engine=f"e{number // 2}", lease=LEASE * (1 + number // 2))
    assert store.count_engines() == 2
    clock.pass_(seconds=10)
    assert store.count_engines() == 1, "the lease of the first has run out"
    for waiting in tasks[2:]:
        store.cancel(waiting.id)
    assert store.count_engines() == 0


def test_the_sweep_finds_each_sort_of_trouble_and_nothing_else(store: MongoTaskStore, clock: Clock) -> None:
    unqueued = store.insert(task(clock).replace(queued_at=None))
    quiet = store.insert(task(clock))
    store.insert(task(clock, retry_at=clock() + timedelta(seconds=100)))
    abandoned = claimed(store, clock)
    finished = claimed(store, clock)
    store.finish(finished, "completed", {})
    clock.pass_(seconds=60)
    store.insert(task(clock))
    before = clock() - timedelta(seconds=30)
    assert [t.id for t in store.unqueued(10)] == [unqueued.id]
    assert [t.id for t in store.quiet(before, 10)] == [quiet.id]
    assert [t.id for t in store.abandoned(before, 10)] == [abandoned.id]
    assert store.overdue(clock(), 10) == []
    clock.pass_(seconds=245)
    assert len(store.overdue(clock(), 10)) == 3


def test_each_mend_is_won_once(store: MongoTaskStore, clock: Clock) -> None:
    unqueued = store.insert(task(clock).replace(queued_at=None))
    assert store.mark_queued(unqueued, clock())
    assert not store.mark_queued(unqueued, clock())
    abandoned = claimed(store, clock)
    clock.pass_(seconds=60)
    assert store.mark_swept(abandoned)
    assert not store.mark_swept(abandoned)
    assert store.abandoned(clock() - timedelta(seconds=30), 10) == []


@pytest.mark.parametrize("store", SERVERS[1:], indirect=True)
def test_what_can_not_be_stored_is_an_error_of_its_own(store: MongoTaskStore, clock: Clock) -> None:
    with pytest.raises(Unstorable):
        store.finish(claimed(store, clock), "completed", {"message": 2**70})


def test_indexes_are_created_once_and_again(store: MongoTaskStore) -> None:
    store.create_indexes()
    store.create_indexes()


def test_a_database_that_is_away_is_reported_in_time_and_then_quickly(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With a timeout of one second: the first operation waits that long, those after it a third of it."""
    with (
        WireMongo(tmp_path_factory.mktemp("mongo")) as server,
        closing(open_mongodb(server.uri, "test", timeout=1)) as store,
    ):
        fresh = store.insert(task(Clock()))

        def is_back() -> bool:
            with suppress(StoreUnavailable):
                return read(store, fresh).id == fresh.id
            return False

        server.stop()
        for at_most in (1.9, 0.9, 0.9):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.get(fresh.id)
            assert time.monotonic() - started < at_most
        server.start()
        eventually(is_back)
        server.freeze()
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.get(fresh.id)
        assert time.monotonic() - started < 1.9
        server.thaw()
        eventually(is_back)


@pytest.mark.parametrize("uri", ["", "http://u:secret@host/", "mongodb://u:secret@host:port/"])
def test_a_wrong_uri_is_refused_without_showing_it(uri: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        open_mongodb(uri, "test")
    assert "secret" not in str(caught.value)


def test_a_slow_database_is_trusted_again_after_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """An impatient call that fails must not be the reason for the next one to be impatient."""
    client = mongomock.MongoClient(tz_aware=True)
    store = MongoTaskStore(client, timeout=2, one_at_a_time=True)
    given: list[float] = []

    @contextmanager
    def timeout(seconds: float) -> Iterator[None]:
        given.append(seconds)
        if seconds < 0.4:  # this database needs 0.4 s for an answer
            raise NetworkTimeout("too slow")
        yield

    monkeypatch.setattr("sluice.store.pymongo.timeout", timeout)
    now = [1000.0]
    monkeypatch.setattr("sluice.store.time.monotonic", lambda: now[0])
    store._failed_at = now[0]  # a stall, just now
    answered = []
    for _ in range(20):
        now[0] += 0.5
        try:
            store.ping()
            answered.append(now[0])
        except StoreUnavailable:
            pass
    assert answered[0] <= 1000 + SUSPICIOUS_SECONDS + 0.5
    assert len(answered) >= 10
