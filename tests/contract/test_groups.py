"""What goes to the database together is as if it had gone one by one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from threading import Event
from typing import Any, TypeVar

import pytest

from sluice.combining import Combiner
from sluice.errors import SluiceError, StoreUnavailable, Unstorable
from sluice.store import IMPATIENT_SECONDS, MongoTaskStore, open_mongodb
from sluice.task import Task
from tests.contract.stores import LEASE, SERVERS, Answering, Clock, claimed, read, task
from tests.servers.mongo_language import Document
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually

T = TypeVar("T")

# --- what is inserted soon -------------------------------------------------------------------------------------------


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


# --- what engines change at the same time ----------------------------------------------------------------------------


class Round:
    """Changes that go in one round, each on a thread of its own."""

    def __init__(self, store: MongoTaskStore, pool: ThreadPoolExecutor) -> None:
        self.sizes: list[int] = []
        self._store = store
        self._pool = pool
        self._begun, self._go_on = Event(), Event()
        self._combiner = Combiner(self._make)
        self._count = 0

    def begin(self) -> Future[bool]:
        """Have a round on its way, so that all that follows goes in the next."""
        first = self._pool.submit(self._store.finish, task(Clock()), "completed", {})
        assert self._begun.wait(10)
        return first

    def __call__(self, change: Callable[..., T], *arguments: Any, **more: Any) -> Future[T]:
        self._count += 1
        future = self._pool.submit(change, *arguments, **more)
        eventually(lambda: len(self._combiner._waiting) == self._count)
        return future

    def go_on(self) -> None:
        self._go_on.set()

    def _make(self, changes: Sequence[Any]) -> Sequence[Any]:
        self.sizes.append(len(changes))
        self._begun.set()
        assert self._go_on.wait(10)
        return self._store._make_changes(changes)


@contextmanager
def one_round(store: MongoTaskStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Round]:
    """What is changed by calling what is given goes in one round."""
    with monkeypatch.context() as patch, ThreadPoolExecutor(8) as pool:
        together = Round(store, pool)
        patch.setattr(store, "_make", together._combiner)
        first = together.begin()
        try:
            yield together
        finally:
            together.go_on()
        first.exception(10)


def claim_of(number: int) -> dict[str, Any]:
    return {"engine": f"e{number}", "lease": LEASE, "token": f"t{number}"}


@pytest.mark.parametrize("store", SERVERS[1:], indirect=True)
def test_tasks_are_started_and_finished_together_as_one_by_one(
    store: MongoTaskStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = [store.insert(task(clock)) for _ in range(3)]
    running = [claimed(store, clock) for _ in range(3)]
    with one_round(store, monkeypatch) as together:
        started = [together(store.start, one, **claim_of(number)) for number, one in enumerate(fresh)]
        finished = [together(store.finish, one, "completed", {"message": one.id}) for one in running]
    for one in started:
        mine = one.result(10)
        assert mine is not None
        assert read(store, mine).document == mine.document
    assert [one.result(10) for one in finished] == [True] * 3
    assert [read(store, one).document["message"] for one in running] == [one.id for one in running]
    assert together.sizes == [1, 6]


@pytest.mark.parametrize("store", SERVERS[1:], indirect=True)
def test_each_of_a_round_is_told_whether_its_own_change_was_made(
    store: MongoTaskStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, taken, missing = store.insert(task(clock)), claimed(store, clock), task(clock)
    running, cancelled = claimed(store, clock), claimed(store, clock)
    store.cancel(cancelled.id)
    messages = [fresh, taken.replace(attempts=0), missing]
    with one_round(store, monkeypatch) as together:
        started = [together(store.start, one, **claim_of(n)) for n, one in enumerate(messages)]
        finished = [together(store.finish, one, "completed", {"message": "x"}) for one in (running, cancelled)]
    mine = started[0].result(10)
    assert mine is not None
    assert read(store, fresh).document == mine.document
    assert [one.result(10) for one in started[1:]] == [None, None]
    assert read(store, taken).document == taken.document
    assert [one.result(10) for one in finished] == [True, False]
    assert (read(store, running).status, read(store, cancelled).status) == ("completed", "cancelled")
    assert store.get(missing.id) is None


@pytest.mark.parametrize("store", SERVERS[1:], indirect=True)
def test_a_failure_that_comes_after_somebody_elses_is_not_taken_for_it(
    store: MongoTaskStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, running = claimed(store, clock), claimed(store, clock)
    clock.pass_(seconds=11)
    assert store.fail(slow, {"code": "crashed", "message": "given up"})
    mine = {"code": "refused", "message": "the model refuses"}
    with one_round(store, monkeypatch) as together:
        finished = [together(store.finish, one, "failed", {"error": mine}) for one in (slow, running)]
    assert [one.result(10) for one in finished] == [False, True]
    assert [read(store, one).document["error"]["code"] for one in (slow, running)] == ["crashed", "refused"]


@pytest.mark.parametrize("store", SERVERS[1:], indirect=True)
def test_of_two_messages_for_a_task_in_one_round_one_starts_it(
    store: MongoTaskStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = store.insert(task(clock))
    with one_round(store, monkeypatch) as together:
        started = [together(store.start, fresh, **claim_of(number)) for number in range(4)]
    assert [one.result(10) is not None for one in started].count(True) == 1
    assert read(store, fresh).attempts == 1


@pytest.mark.parametrize("store", SERVERS[1:], indirect=True)
@pytest.mark.parametrize("wrong", [2**70, "\ud800", "x" * 17_000_000])
def test_a_result_that_can_not_be_stored_does_not_harm_its_round(
    store: MongoTaskStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, wrong: object
) -> None:
    running = [claimed(store, clock) for _ in range(3)]
    results: list[object] = ["a", wrong, "c"]
    with one_round(store, monkeypatch) as together:
        finished = [
            together(store.finish, one, "completed", {"message": result})
            for one, result in zip(running, results, strict=True)
        ]
    for number in (0, 2):
        # Who is asked again, because of the other, finds it done: the engine looks then (`_was_written`).
        finished[number].result(10)
        assert (read(store, running[number]).status, read(store, running[number]).document["message"]) == (
            "completed",
            results[number],
        )
    if isinstance(finished[1].exception(10), Unstorable):
        assert read(store, running[1]).status == "running"
    else:  # FerretDB takes larger documents than MongoDB
        assert isinstance(wrong, str)
        assert len(read(store, running[1]).document["message"]) > 16 * 1024 * 1024


@pytest.mark.parametrize(("code", "error"), [(2, Unstorable), (10334, Unstorable), (1, StoreUnavailable)])
def test_a_server_that_refuses_one_change_of_a_round_makes_the_others(
    bent: tuple[Answering, MongoTaskStore], clock: Clock, monkeypatch: pytest.MonkeyPatch, code: int, error: type
) -> None:
    commands, store = bent
    running = [claimed(store, clock) for _ in range(3)]
    with one_round(store, monkeypatch) as together:
        finished = [together(store.finish, one, "completed", {}) for one in running]
        commands.bends, commands.more = "update", {"writeErrors": [{"index": 1, "code": code, "errmsg": "no"}]}
        monkeypatch.setattr(store, "_change_alone", lambda _change: False)  # the first round, which has no index 1
    assert [finished[0].result(10), finished[2].result(10)] == [True, True]
    with pytest.raises(error):
        finished[1].result(10)


@pytest.mark.parametrize(
    "more",
    [
        {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}},
        {"ok": 0.0, "code": 11600, "errmsg": "interrupted at shutdown"},
    ],
)
def test_a_round_that_a_majority_did_not_write_or_that_failed_is_not_made(
    bent: tuple[Answering, MongoTaskStore], clock: Clock, monkeypatch: pytest.MonkeyPatch, more: Document
) -> None:
    commands, store = bent
    running = [claimed(store, clock) for _ in range(3)]
    with one_round(store, monkeypatch) as together:
        finished = [together(store.finish, one, "completed", {}) for one in running]
        commands.bends, commands.more = "update", more
    for one in finished:
        with pytest.raises(StoreUnavailable):
            one.result(10)


def test_a_round_that_a_server_refuses_as_a_whole_is_made_one_by_one(
    bent: tuple[Answering, MongoTaskStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, store = bent
    running = [claimed(store, clock) for _ in range(3)]
    change_alone = store._change_alone

    def alone(change: Any) -> bool | SluiceError:
        commands.more = {}
        return change_alone(change)

    with one_round(store, monkeypatch) as together:
        finished = [together(store.finish, one, "completed", {}) for one in running]
        eventually(lambda: together.sizes == [1])
        together.go_on()
        monkeypatch.setattr(store, "_change_alone", alone)
        commands.bends, commands.more = "update", {"ok": 0.0, "code": 9, "errmsg": "can't parse"}
    assert [one.result(10) for one in finished] == [True] * 3


def test_many_threads_change_many_tasks_and_each_change_is_made_once(store: MongoTaskStore, clock: Clock) -> None:
    tasks = [store.insert(task(clock)) for _ in range(100)]

    def work(number: int) -> bool:
        mine = store.start(tasks[number], **claim_of(number))
        return mine is not None and store.finish(mine, "completed", {"message": str(number)})

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(100)))
    assert [read(store, one).document["message"] for one in tasks] == [str(number) for number in range(100)]
