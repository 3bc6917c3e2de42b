"""What every store promises, held against mongomock, against pymongo's real network path, and against real servers."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import mongomock
import pymongo
import pytest
from pymongo.errors import NetworkTimeout
from pymongo.monitoring import CommandListener, CommandStartedEvent

from sluice.errors import InvalidSettings, SluiceError, StoreUnavailable, Unstorable
from sluice.store import IMPATIENT_SECONDS, SUSPICIOUS_SECONDS, Cursor, MongoTaskStore, open_mongodb
from sluice.task import STATUSES, Task, new_id, new_task
from tests.servers.go import go_command
from tests.servers.mongo_commands import Commands
from tests.servers.mongo_language import Document
from tests.servers.mongo_store import Journal, Store
from tests.servers.ports import LOOPBACK, free_port
from tests.servers.wire_mongo import Server, WireMongo
from tests.waiting import eventually

NOW = datetime(2026, 7, 14, tzinfo=UTC)
LEASE = timedelta(seconds=10)

#: Real servers where there are any: FerretDB where Go can build it, and whatever MONGODB_URI names.
SERVERS = ["mongomock", "wire"]
SERVERS += ["ferretdb"] if go_command() else []
SERVERS += ["MONGODB_URI"] if os.environ.get("MONGODB_URI") else []


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=SERVERS)
def store(request: pytest.FixtureRequest, clock: Clock) -> Iterator[MongoTaskStore]:
    database = f"test_{uuid.uuid4().hex[:8]}"
    if request.param == "mongomock":
        yield MongoTaskStore(mongomock.MongoClient(tz_aware=True), database, clock=clock, one_at_a_time=True)
        return
    if request.param == "MONGODB_URI":
        uri = os.environ["MONGODB_URI"]
    else:
        uri = request.getfixturevalue({"wire": "wire_mongo", "ferretdb": "ferretdb"}[request.param]).uri
    store = open_mongodb(uri, database, timeout=10)
    store.clock = clock
    yield store
    store._client.drop_database(database)
    store.close()


def task(clock: Clock, **changes: Any) -> Task:
    fresh = new_task(
        task_id=new_id(),
        user_id="ada",
        kind="message",
        inputs={"text": "hi"},
        outputs={"message": ""},
        now=clock(),
        ttl=timedelta(seconds=300),
    )
    return fresh.replace(queued_at=clock(), **changes)


def claimed(store: MongoTaskStore, clock: Clock, **changes: Any) -> Task:
    mine = store.claim(store.insert(task(clock, **changes)).id, engine="e1", lease=LEASE)
    assert mine is not None
    return mine


def read(store: MongoTaskStore, task: Task) -> Task:
    found = store.get(task.id)
    assert found is not None
    return found


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


@contextmanager
def one_group(store: MongoTaskStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """What is inserted soon in here is one group. Gives the sizes of the groups, of which the first is not ours."""
    begun, go_on, sizes = Event(), Event(), []
    write = store._writer._write

    def write_later(tasks: Sequence[Task]) -> Sequence[Task | SluiceError]:
        sizes.append(len(tasks))
        begun.set()
        assert go_on.wait(10)
        return write(tasks)

    with monkeypatch.context() as patch:
        patch.setattr(store._writer, "_write", write_later)
        first = store.insert_soon(task(Clock()))
        assert begun.wait(10)
        yield sizes
        go_on.set()
        first.exception(10)


def test_tasks_that_are_inserted_soon_are_stored_as_one_by_one(
    store: MongoTaskStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = task(clock)
    assert store.insert_soon(alone).result(10) is alone
    many = [task(clock, text=f"𝄞 {number}") for number in range(20)]
    with one_group(store, monkeypatch) as sizes:
        futures = [store.insert_soon(one) for one in many]
    assert [future.result(10) for future in futures] == many
    assert sizes == [1, 20]
    for one in (alone, *many):
        assert list(read(store, one).document.items()) == list(one.document.items())


def test_inserting_soon_keeps_the_first_of_an_id(
    store: MongoTaskStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was there before alone, one that was there before in a group, and one that is twice in a group."""
    first, twice, fresh = store.insert(task(clock)), task(clock), task(clock)
    other, second = first.replace(text="other"), twice.replace(text="other")
    assert store.insert_soon(other).result(10).document["text"] == "hi"
    with one_group(store, monkeypatch):
        futures = [store.insert_soon(one) for one in (other, twice, fresh, second)]
    stored = [future.result(10) for future in futures]
    assert [one.document for one in stored] == [first.document, twice.document, fresh.document, twice.document]
    assert [read(store, one).document["text"] for one in (first, twice, fresh)] == ["hi"] * 3


def test_many_threads_insert_soon_and_every_task_is_stored_once(store: MongoTaskStore, clock: Clock) -> None:
    tasks = [task(clock) for _ in range(200)]
    with ThreadPoolExecutor(16) as pool:
        stored = list(pool.map(lambda one: store.insert_soon(one).result(10), tasks + tasks[:50]))
    assert [one.document for one in stored] == [one.document for one in tasks + tasks[:50]]
    assert store.count_by_status("ada", 1000)["pending"] == 200


@pytest.mark.parametrize("store", SERVERS[1:], indirect=True)
@pytest.mark.parametrize("wrong", [{"text": 2**70}, {"a\0b": 1}, {"text": "\ud800"}, {"text": "x" * 17_000_000}])
def test_what_can_not_be_stored_does_not_harm_its_neighbours(
    store: MongoTaskStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, wrong: Document
) -> None:
    before, bad, after = task(clock), task(clock, **wrong), task(clock)
    monkeypatch.setattr("sluice.writer.MAX_GROUP_BYTES", 32 * 1024 * 1024)  # so that the largest is among others
    with one_group(store, monkeypatch) as sizes:
        futures = [store.insert_soon(one) for one in (before, bad, after)]
    assert [futures[0].result(10), futures[2].result(10)] == [before, after]
    assert sizes == [1, 3]
    assert read(store, after).document == after.document
    if isinstance(futures[1].exception(10), Unstorable):
        assert store.get(bad.id) is None
    else:  # FerretDB takes larger documents than MongoDB
        assert len(read(store, futures[1].result(10)).document["text"]) > 16 * 1024 * 1024


def test_an_insert_that_is_taken_back_in_time_never_happens(
    store: MongoTaskStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, taken_back = task(clock), task(clock)
    with one_group(store, monkeypatch):
        futures = [store.insert_soon(kept), store.insert_soon(taken_back)]
        assert futures[1].cancel()
    assert futures[0].result(10) is kept
    assert store.get(taken_back.id) is None


class Answering(Commands):
    """A MongoDB whose answers to an insert can be bent."""

    def __init__(self, journal: Path) -> None:
        super().__init__(Store(Journal(journal)))
        self.more: Document = {}

    def run(self, command: Document) -> Document:
        if next(iter(command)) != "insert" or "ok" not in self.more:
            return {**super().run(command), **(self.more if next(iter(command)) == "insert" else {})}
        return self.more


@pytest.fixture
def bent(tmp_path: Path) -> Iterator[tuple[Answering, MongoTaskStore]]:
    port = free_port()
    commands = Answering(tmp_path / "journal")
    with Server(port, commands) as server:
        Thread(target=server.serve_forever, args=[0.01]).start()
        with closing(open_mongodb(f"mongodb://{LOOPBACK}:{port}/?directConnection=true", "test")) as store:
            yield commands, store
        server.shutdown()


def test_what_a_majority_did_not_write_is_not_stored(
    bent: tuple[Answering, MongoTaskStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, store = bent
    commands.more = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}
    with one_group(store, monkeypatch) as sizes:
        futures = [store.insert_soon(task(clock)) for _ in range(3)]
    alone = store.insert_soon(task(clock))
    for future in (*futures, alone):
        with pytest.raises(StoreUnavailable):
            future.result(10)
    assert sizes == [1, 3]


@pytest.mark.parametrize(("code", "error"), [(2, Unstorable), (10334, Unstorable), (1, StoreUnavailable)])
def test_a_server_that_refuses_one_of_a_group_takes_the_others(
    bent: tuple[Answering, MongoTaskStore], clock: Clock, monkeypatch: pytest.MonkeyPatch, code: int, error: type
) -> None:
    commands, store = bent
    tasks = [task(clock) for _ in range(3)]
    with one_group(store, monkeypatch):
        futures = [store.insert_soon(one) for one in tasks]
        commands.more = {"writeErrors": [{"index": 1, "code": code, "errmsg": "no"}]}
        # The first group is one task, to which there is no index 1.
        monkeypatch.setattr(store, "_insert_alone", lambda one: one)
    assert [futures[0].result(10), futures[2].result(10)] == [tasks[0], tasks[2]]
    with pytest.raises(error):
        futures[1].result(10)


def test_a_server_that_refuses_a_whole_group_is_asked_about_each(
    bent: tuple[Answering, MongoTaskStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, store = bent
    tasks = [task(clock) for _ in range(3)]
    commands.more = {"ok": 0.0, "code": 9, "errmsg": "can't parse"}

    def insert_alone(one: Task) -> Task | SluiceError:
        commands.more = {}
        return MongoTaskStore._insert_alone(store, one)

    monkeypatch.setattr(store, "_insert_alone", insert_alone)
    assert store._insert_group(tasks) == tasks
    assert all(store.get(one.id) for one in tasks)


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


def test_inserts_meet_a_database_that_hangs_and_are_told_within_a_bound(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """With a timeout of one second: those of the group that hangs wait that long; who comes meanwhile waits for it,
    and for one impatient try, even where they are more than one group."""
    with (
        WireMongo(tmp_path_factory.mktemp("mongo")) as server,
        closing(open_mongodb(server.uri, "test", timeout=1)) as store,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("sluice.writer.MAX_GROUP", 2)
        store.insert_soon(task(Clock())).result(10)
        server.freeze()
        began = time.monotonic()
        taken: list[float] = []
        futures: list[Future[Task]] = []
        for _ in range(10):
            since = time.monotonic()
            futures.append(store.insert_soon(task(Clock())))
            futures[-1].add_done_callback(lambda _, since=since: taken.append(time.monotonic() - since))
            time.sleep(0.05)
        for future in futures:
            with pytest.raises(StoreUnavailable):
                future.result(10)
        assert time.monotonic() - began > 0.9
        assert max(taken) < 1 + IMPATIENT_SECONDS + 0.6
        server.thaw()
        eventually(lambda: _is_stored(store, task(Clock())))


def _is_stored(store: MongoTaskStore, fresh: Task) -> bool:
    with suppress(StoreUnavailable):
        return store.insert_soon(fresh).result(10) is fresh
    return False


def test_what_was_said_to_be_inserted_survives_a_database_that_dies(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        WireMongo(tmp_path_factory.mktemp("mongo")) as server,
        closing(open_mongodb(server.uri, "test", timeout=1)) as store,
    ):
        said: list[Task] = []
        failed: list[SluiceError] = []
        stop = Event()

        def insert() -> None:
            while not stop.is_set():
                try:
                    said.append(store.insert_soon(task(Clock())).result(10))
                except StoreUnavailable as error:
                    failed.append(error)

        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(insert)
            for _ in range(2):
                before, failures = len(said), len(failed)
                eventually(lambda before=before: len(said) > before + 100)
                server.kill()
                eventually(lambda failures=failures: len(failed) > failures)
                server.start()
            before = len(said)
            eventually(lambda: len(said) > before + 100)
            stop.set()
        assert len({one.id for one in said}) == len(said)
        assert [one.id for one in said if store.get(one.id) is None] == []


def test_closing_inserts_what_waits(wire_mongo: WireMongo, clock: Clock) -> None:
    with closing(open_mongodb(wire_mongo.uri, f"test_{uuid.uuid4().hex[:8]}", timeout=10)) as store:
        tasks = [task(clock) for _ in range(500)]
        futures = [store.insert_soon(one) for one in tasks]
    assert [future.result(0) for future in futures] == tasks
    with pytest.raises(StoreUnavailable):
        store.insert_soon(task(clock))


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
