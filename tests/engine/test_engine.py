"""The whole engine, over a queue and a database in memory: all that its threads do together."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from functions.engine import engine as engine_module
from functions.engine.engine import Engine
from functions.engine.handler import Failed, Retry, Step
from functions.engine.health import HealthServer
from functions.engine.kinds import Handler, find_handler
from offline_model import OfflineModel
from sluice import sweep as sweep_module
from sluice import waiting
from sluice.broker import Message, OnDelivery, Queue, Topology
from sluice.errors import BrokerUnavailable
from sluice.memory import InMemoryConsumer, InMemoryTaskBroker
from sluice.requests import read_new_task
from sluice.service import add_task, cancel_task, retry_task
from sluice.services import Services
from sluice.settings import Settings
from sluice.store import MongoTaskStore
from sluice.sweep import fail_overdue
from sluice.task import Document, Task, utc_now
from tests.engine.doubles import Database, a_task, message_of, without_model
from tests.waiting import eventually


@dataclass
class World:
    """One queue and one database, and the engines around them."""

    settings: Settings = field(default_factory=without_model)
    database: Database = field(default_factory=Database)
    engines: list[Engine] = field(default_factory=list)
    #: Set at the test's end: handlers that wait for something wait for this too.
    over: threading.Event = field(default_factory=threading.Event)
    broker: InMemoryTaskBroker = field(init=False)
    store: MongoTaskStore = field(init=False)

    def __post_init__(self) -> None:
        self.broker = InMemoryTaskBroker(Topology("tasks", self.settings.task_ttl_seconds))
        self.store = MongoTaskStore(self.database)

    @property
    def services(self) -> Services:
        return Services(self.settings, self.store, self.broker)

    def engine(self, handler: Handler | None = None, **changes: Any) -> Engine:
        """An engine at work. Every kind has this handler; without one, its own."""
        find = find_handler if handler is None else lambda _kind: handler
        settings = self.settings.model_copy(update=changes)
        engine = Engine(Services(settings, self.store, self.broker), find)
        engine.start()
        self.engines.append(engine)
        return engine

    def add(self, count: int = 1, **fields: Any) -> list[Task]:
        wanted = read_new_task({"user_id": "ada", "kind": "message", "text": "Hello, Sluice.", **fields})
        return [waiting.run(add_task(self.services, wanted)) for _ in range(count)]

    def now(self, task: Task) -> Document:
        return self.database.document(task.id)

    def statuses(self, tasks: list[Task]) -> list[str]:
        return [self.now(task).get("status", "") for task in tasks]

    def all_are(self, status: str, tasks: list[Task], seconds: float = 10) -> None:
        eventually(lambda: set(self.statuses(tasks)) == {status}, seconds, f"{status}, not {self.statuses(tasks)}")

    def waiting(self) -> int:
        return self.broker.ready(self.broker.topology.tasks)

    def close(self) -> None:
        self.over.set()
        for engine in self.engines:
            engine.drain(0)
        self.broker.close()


@contextmanager
def a_world(**settings: Any) -> Iterator[World]:
    world = World(without_model(**settings))
    try:
        yield world
    finally:
        world.close()


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not obey at a test's end is not waited for."""
    monkeypatch.setattr(engine_module, "OBEY_SECONDS", 2.0)


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what the watch does, but not when."""
    monkeypatch.setattr(engine_module, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(engine_module, "HOLD_SECONDS", 0.1)


@pytest.fixture
def world() -> Iterator[World]:
    with a_world() as made:
        yield made


def echo(inputs: Any, _step: Step) -> Document:
    return {"message": inputs.text}


class Hold:
    """A handler that waits until it may go on, or is told to stop."""

    def __init__(self, world: World) -> None:
        self._over = world.over
        self._lock = threading.Lock()
        self.go = threading.Event()
        self.started: list[str] = []
        self.stopped: list[tuple[float, str]] = []
        self.ended: list[str] = []
        self.most = 0

    def __call__(self, inputs: Any, step: Step) -> Document:
        with self._lock:
            self.started.append(step.task_id)
            self.most = max(self.most, len(self.started) - len(self.ended))
        told = threading.Event()
        try:
            with step.on_stop(told.set):
                while not (self.go.wait(0.01) or told.is_set() or self._over.is_set()):
                    pass
            step.check()
            return {"message": inputs.text}
        finally:
            with self._lock:
                self.ended.append(step.task_id)
                if told.is_set():
                    self.stopped.append((time.monotonic(), step.task_id))


# --- the life of a task ----------------------------------------------------------------------------------------------


def test_a_task_that_is_added_is_completed(world: World) -> None:
    world.engine()
    [task] = world.add()
    world.all_are("completed", [task])
    done = world.now(task)
    assert (done["message"], done["attempts"], done["progress"]) == ("Hello, Sluice.", 1, 100)


def test_code_is_written_by_a_model() -> None:
    with (
        OfflineModel(seconds_per_answer=0.05) as model,
        a_world(openai_base_url=model.base_url, openai_api_key="none") as world,
    ):
        world.engine()
        task = _add_code(world)
        world.all_are("completed", [task])
        done = world.now(task)
        compile(done["code"], "answer", "exec")
        assert done["model"] == "offline-model"
        assert done["usage"]["total_tokens"] > 0
        assert model.calls() == {task.id: 1}


def _add_code(world: World) -> Task:
    wanted = read_new_task({"user_id": "ada", "objective": "Add three numbers."})
    return waiting.run(add_task(world.services, wanted))


def test_tasks_that_wait_for_an_engine_are_done_when_one_comes(world: World) -> None:
    tasks = world.add(25)
    assert world.waiting() == 25
    world.engine(echo)
    world.all_are("completed", tasks)
    assert world.waiting() == 0


def test_ten_tasks_are_worked_on_really_at_once_and_never_more(world: World) -> None:
    together = threading.Barrier(10)
    inside: list[int] = []
    lock = threading.Lock()

    def handler(inputs: Any, step: Step) -> Document:
        with lock:
            inside.append(inside[-1] + 1 if inside else 1)
        together.wait(10)
        with lock:
            inside.append(inside[-1] - 1)
        return echo(inputs, step)

    world.engine(handler)
    tasks = world.add(20)
    world.all_are("completed", tasks)
    assert max(inside) == 10
    assert [world.now(task)["attempts"] for task in tasks] == [1] * 20


def test_each_message_settles_alone(world: World) -> None:
    hold = Hold(world)

    def handler(inputs: Any, step: Step) -> Document:
        return hold(inputs, step) if inputs.text == "slow" else echo(inputs, step)

    world.engine(handler)
    slow = world.add(9, text="slow")
    fast = world.add(50)
    world.all_are("completed", fast)
    assert set(world.statuses(slow)) == {"running"}
    hold.go.set()
    world.all_are("completed", slow)


def test_a_transient_error_is_tried_again_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.engine.worker.FIRST_PAUSE", 1.0)
    tries: list[str] = []

    def handler(inputs: Any, step: Step) -> Document:
        tries.append(step.task_id)
        if len(tries) == 1:
            raise Retry("busy", "It is busy.")
        return echo(inputs, step)

    world.engine(handler)
    [task] = world.add()
    eventually(lambda: world.now(task)["error"] == {"code": "busy", "message": "It is busy."}, 5)
    world.all_are("completed", [task])
    assert tries == [task.id, task.id]


def test_a_pause_holds_none_of_the_ten_places(world: World) -> None:
    def handler(inputs: Any, step: Step) -> Document:
        if inputs.text == "later":
            raise Retry("busy", "It is busy.", after=60)
        return echo(inputs, step)

    world.engine(handler)
    later = world.add(30, text="later")
    now = world.add(5)
    world.all_are("completed", now)
    world.all_are("pending", later)


def test_a_task_that_failed_can_be_retried_by_its_user(world: World) -> None:
    answers: list[str] = []

    def handler(inputs: Any, step: Step) -> Document:
        answers.append(step.task_id)
        if len(answers) == 1:
            raise Failed("refused", "No.")
        return echo(inputs, step)

    world.engine(handler)
    [task] = world.add()
    world.all_are("failed", [task])
    retry_task(world.services, task.id)
    world.all_are("completed", [task])
    assert world.now(task)["attempts"] == 2


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_cancelling_a_running_task_stops_its_handler_within_two_seconds(world: World) -> None:
    hold = Hold(world)
    world.engine(hold)
    tasks = world.add(3)
    eventually(lambda: len(hold.started) == 3)
    cancelled = time.monotonic()
    cancel_task(world.store, tasks[1].id)
    eventually(lambda: hold.stopped, 5)
    [(stopped, task_id)] = hold.stopped
    assert task_id == tasks[1].id
    assert stopped - cancelled < 2
    hold.go.set()
    world.all_are("completed", [tasks[0], tasks[2]])
    assert world.now(tasks[1])["status"] == "cancelled"


def test_cancelling_stops_a_handler_that_reports_all_the_time_too(world: World) -> None:
    stopped: list[float] = []

    def handler(_inputs: Any, step: Step) -> Document:
        number = 0
        while not world.over.wait(0.01):
            number += 1
            step.show(message=str(number))
            try:
                step.check()
            except BaseException:
                stopped.append(time.monotonic())
                raise
        return {}

    world.engine(handler)
    [task] = world.add()
    eventually(lambda: world.now(task)["message"])
    cancelled = time.monotonic()
    cancel_task(world.store, task.id)
    eventually(lambda: stopped, 5)
    assert stopped[0] - cancelled < 2
    assert world.now(task)["status"] == "cancelled"


def test_cancelling_closes_the_call_to_the_model() -> None:
    with (
        OfflineModel(scriptable=True) as model,
        a_world(openai_base_url=model.base_url, openai_api_key="none") as world,
    ):
        model.script([{"fault": "hang"}])
        world.engine()
        task = _add_code(world)
        eventually(lambda: model.open_calls() == 1)
        cancel_task(world.store, task.id)
        eventually(lambda: model.closed_early() == 1, 2.5)
        assert world.now(task)["status"] == "cancelled"


def test_a_task_that_is_cancelled_and_retried_at_once_stops_its_old_attempt(world: World) -> None:
    hold = Hold(world)
    world.engine(hold)
    [task] = world.add()
    eventually(lambda: len(hold.started) == 1)
    cancel_task(world.store, task.id)
    retry_task(world.services, task.id)
    eventually(lambda: len(hold.started) == 2)
    eventually(lambda: len(hold.stopped) == 1, 4, "the old attempt is stopped")
    assert world.now(task)["status"] == "running"
    hold.go.set()
    world.all_are("completed", [task])
    assert world.now(task)["attempts"] == 2


def test_a_queued_task_that_is_cancelled_is_never_started(world: World) -> None:
    tasks = world.add(3)
    cancel_task(world.store, tasks[0].id)
    hold = Hold(world)
    hold.go.set()
    world.engine(hold)
    world.all_are("completed", tasks[1:])
    assert sorted(hold.started) == sorted(task.id for task in tasks[1:])
    assert world.now(tasks[0])["status"] == "cancelled"
    assert world.now(tasks[0])["attempts"] == 0


# --- reports and time limits -----------------------------------------------------------------------------------------


def test_what_a_handler_shows_is_written_at_most_twice_a_second(world: World) -> None:
    ended = threading.Event()

    def handler(_inputs: Any, step: Step) -> Document:
        number = 0
        while not ended.wait(0.005) and not world.over.is_set():
            number += 1
            step.show(message=f"part {number}")
            step.progress(number / 10)
        return {"message": "whole"}

    world.engine(handler)
    [task] = world.add()

    def reports() -> list[float]:
        found = []
        for moment, name, arguments in list(world.database.operations):
            if name == "update_one" and str(arguments[1]["$set"].get("message", "")).startswith("part"):
                found.append(moment)
        return found

    eventually(lambda: len(reports()) >= 4)
    seen = world.now(task)
    assert seen["message"].startswith("part")
    assert 0 < seen["progress"] < 100
    ended.set()
    world.all_are("completed", [task])
    assert world.now(task)["message"] == "whole"
    moments = reports()
    assert all(later - earlier >= 0.45 for earlier, later in pairwise(moments))


def test_a_quiet_handler_keeps_its_lease() -> None:
    with a_world(lease_seconds=2) as world:
        hold = Hold(world)
        world.engine(hold)
        [task] = world.add()
        eventually(lambda: hold.started)
        first = world.now(task)["lease_until"]
        eventually(lambda: world.now(task)["lease_until"] > first + timedelta(seconds=0.9), 6)
        assert world.now(task)["attempts"] == 1


def test_a_handler_that_shows_what_can_not_be_stored_keeps_its_lease() -> None:
    with a_world(lease_seconds=2) as world:
        ended = threading.Event()

        def handler(inputs: Any, step: Step) -> Document:
            number = 0
            while not ended.wait(0.01) and not world.over.is_set():
                number += 1
                step.show(message=f"{number} \ud83d")
            return echo(inputs, step)

        world.engine(handler)
        [task] = world.add()
        eventually(lambda: world.now(task)["status"] == "running")
        first = world.now(task)["lease_until"]
        eventually(lambda: world.now(task)["lease_until"] > first + timedelta(seconds=0.9), 6, "the lease is renewed")
        ended.set()
        world.all_are("completed", [task])
        assert world.now(task)["attempts"] == 1


@pytest.mark.usefixtures("quick_watch")
def test_an_attempt_that_takes_too_long_fails() -> None:
    with a_world(attempt_timeout_seconds=0.5) as world:
        hold = Hold(world)
        world.engine(hold)
        [task] = world.add()
        world.all_are("failed", [task], 5)
        assert world.now(task)["error"]["code"] == "timed_out"
        assert hold.ended == [task.id]


@pytest.mark.usefixtures("quick_watch")
def test_a_handler_that_fails_to_stop_harms_no_other() -> None:
    def fail() -> None:
        raise OSError("closed already")

    with a_world(attempt_timeout_seconds=0.5) as world:
        hold = Hold(world)

        def handler(inputs: Any, step: Step) -> Document:
            with step.on_stop(fail):
                return hold(inputs, step)

        engine = world.engine(handler)
        tasks = world.add(3)
        world.all_are("failed", tasks, 6)
        assert [world.now(task)["error"]["code"] for task in tasks] == ["timed_out"] * 3
        assert engine.complaints() == []


# --- draining --------------------------------------------------------------------------------------------------------


def test_a_draining_engine_finishes_what_it_has_and_leaves_the_rest_to_others(
    world: World, beside: ThreadPoolExecutor
) -> None:
    hold = Hold(world)
    first = world.engine(hold)
    tasks = world.add(15)
    eventually(lambda: len(hold.started) == 10)
    drained = beside.submit(first.drain, 20)
    eventually(lambda: not first.is_consuming)
    world.engine(echo)
    others = [task for task in tasks if task.id not in hold.started]
    world.all_are("completed", others)
    assert not drained.done()
    hold.go.set()
    assert drained.result(5) is True
    world.all_are("completed", tasks)
    assert [world.now(task)["attempts"] for task in tasks] == [1] * 15
    assert {world.now(task)["engine"] for task in tasks if task.id in hold.started} == {first.name}
    assert first.complaints() == []


def test_a_draining_engine_stops_handlers_that_do_not_end_and_hands_their_tasks_back(world: World) -> None:
    hold = Hold(world)
    engine = world.engine(hold)
    tasks = world.add(3)
    eventually(lambda: len(hold.started) == 3)
    assert engine.drain(0.1) is True
    assert len(hold.stopped) == 3
    for task in tasks:
        left = world.now(task)
        assert (left["status"], left["retry_at"], left["attempts"]) == ("pending", None, 1)
        assert (left.get("crashes", 0), left.get("failures", 0)) == (0, 0)
    assert world.waiting() == 3
    world.engine(echo)
    world.all_are("completed", tasks)


def test_a_handler_that_obeys_nobody_does_not_keep_the_engine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "OBEY_SECONDS", 0.2)
    started = threading.Event()

    def deaf(inputs: Any, step: Step) -> Document:
        started.set()
        assert world.over.wait(20)
        return echo(inputs, step)

    engine = world.engine(deaf)
    [task] = world.add()
    assert started.wait(5)
    began = time.monotonic()
    assert engine.drain(0.1) is False
    assert time.monotonic() - began < 2
    assert world.waiting() == 1
    assert world.now(task)["status"] == "running"


def test_an_idle_engine_drains_at_once(world: World) -> None:
    engine = world.engine(echo)
    began = time.monotonic()
    assert engine.drain(10) is True
    assert time.monotonic() - began < 1
    [task] = world.add()
    assert world.now(task)["status"] == "pending"
    assert world.waiting() == 1


def test_draining_does_not_wait_for_a_message_that_a_worker_has_just_taken(
    monkeypatch: pytest.MonkeyPatch, beside: ThreadPoolExecutor
) -> None:
    class Contested(queue.SimpleQueue[Any]):
        """Between a look at it and a hand in it, somebody else takes what is inside."""

        def empty(self) -> bool:
            was_empty = super().empty()
            eventually(super().empty, 5)
            return was_empty

    monkeypatch.setattr(engine_module, "SimpleQueue", Contested)

    class Late(InMemoryTaskBroker):
        def consume(self, prefetch: int, on_task: OnDelivery, on_dead: OnDelivery) -> InMemoryConsumer:
            consumer = super().consume(prefetch, on_task, on_dead)
            consumer.cancel = lambda: self._last(consumer)  # type: ignore[method-assign]
            return consumer

        def _last(self, consumer: InMemoryConsumer) -> None:
            for _ in range(10):
                self.send(Message("x", b"no task"), self.topology.tasks)
            InMemoryConsumer.cancel(consumer)

    broker = Late(Topology())
    engine = Engine(Services(without_model(), MongoTaskStore(Database()), broker), lambda _kind: echo)
    engine.start()
    drained = threading.Thread(target=engine.drain, args=(1,), daemon=True)
    drained.start()
    drained.join(10)
    broker.close()
    assert not drained.is_alive()


# --- messages that are not fit ---------------------------------------------------------------------------------------


def test_a_message_that_is_no_task_is_kept_apart_and_does_not_stop_the_line(world: World) -> None:
    world.engine(echo)
    bodies = [b"", b"no task", b"[]", b'{"_id": 1}', b"\xff" * 100]
    for body in bodies:
        world.broker.send(Message("x", body), world.broker.topology.tasks)
    tasks = world.add(12)
    world.all_are("completed", tasks)
    eventually(lambda: world.broker.ready(world.broker.topology.unreadable) == len(bodies))
    assert world.waiting() == 0
    assert world.broker.ready(world.broker.topology.dead) == 0


def test_a_message_that_is_no_task_is_let_go_only_when_it_is_kept_elsewhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storm lost one that was rejected: the broker makes it a dead letter without a confirm."""
    really, refused = world.broker.send, threading.Event()

    def send(message: Message, queue: Queue) -> Future[None]:
        if queue is world.broker.topology.unreadable and not refused.is_set():
            refused.set()
            raise BrokerUnavailable("not now")
        return really(message, queue)

    world.broker.send(Message("x", b"no task"), world.broker.topology.tasks)
    monkeypatch.setattr(world.broker, "send", send)
    world.engine(echo)
    eventually(lambda: world.broker.ready(world.broker.topology.unreadable) == 1)
    assert refused.is_set()


def test_a_task_that_no_database_can_hold_is_kept_apart_too(world: World) -> None:
    world.engine(echo)
    body = json.dumps({**a_task().to_json(), "user_id": "\ud83d"}).encode()
    world.broker.send(Message("x", body), world.broker.topology.tasks)
    [task] = world.add()
    world.all_are("completed", [task])
    eventually(lambda: world.broker.ready(world.broker.topology.unreadable) == 1, 5, "the message is kept apart")


def test_tasks_that_expired_without_an_engine_say_so_as_soon_as_there_is_one() -> None:
    with a_world(task_ttl_seconds=1) as world:
        tasks = world.add(5)
        eventually(lambda: world.broker.ready(world.broker.topology.dead) == 5, 5)
        world.engine(echo)
        world.all_are("failed", tasks, 5)
        assert {world.now(task)["error"]["code"] for task in tasks} == {"expired"}
        retry_task(world.services, tasks[0].id)
        world.all_are("completed", tasks[:1])


def test_a_message_that_was_handed_out_too_often_comes_back(world: World) -> None:
    [task] = world.add()
    dead: list[Any] = []
    consumer = world.broker.consume(1, lambda delivery: delivery.requeue(), dead.append)
    eventually(lambda: dead)
    consumer.close()
    world.engine(echo)
    world.all_are("completed", [task])


# --- outages ---------------------------------------------------------------------------------------------------------


def test_an_engine_goes_on_by_itself_when_the_database_comes_back(world: World) -> None:
    hold = Hold(world)
    engine = world.engine(hold)
    tasks = world.add(15)
    eventually(lambda: len(hold.started) == 10)
    world.database.away = {"all"}
    hold.go.set()
    eventually(lambda: len(hold.ended) == 10)
    assert engine.complaints() == []
    world.database.away = set()
    world.all_are("completed", tasks)
    assert [world.now(task)["attempts"] for task in tasks] == [1] * 15


def test_an_engine_that_waits_for_the_database_with_all_it_has_is_not_deaf(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "DEAF_SECONDS", 0.1)
    world.database.away = {"update_one", "bulk_write"}  # it can be read, but not written: a full disk, an election
    tasks = world.add(15)
    engine = world.engine(echo, sweep_seconds=0.1)
    sweeps: Callable[[], int] = lambda: sum(name == "find" for _, name, _ in list(world.database.operations))  # noqa: E731
    eventually(lambda: world.waiting() == 5)
    before = sweeps()
    eventually(lambda: sweeps() > before + 16, 10)
    assert engine.complaints() == []
    world.database.away = set()
    world.all_are("completed", tasks)


# --- the sweep -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world whose sweep is quick to see a fault."""
    monkeypatch.setattr(sweep_module, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(sweep_module, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(sweep_module, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(engine_module, "random", SimpleNamespace(uniform=lambda low, _high: low))
    with a_world(sweep_seconds=0.2) as made:
        yield made


def test_a_task_that_the_queue_missed_is_sent_by_the_sweep(hasty: World) -> None:
    task = hasty.store.insert(a_task(queued_at=None))
    hasty.engine(echo)
    hasty.all_are("completed", [task])
    assert hasty.now(task)["queued_at"] is not None
    assert hasty.now(task)["attempts"] == 1


def test_a_task_whose_message_was_lost_is_sent_again(hasty: World) -> None:
    task = hasty.store.insert(a_task(queued_at=utc_now() - timedelta(seconds=5)))
    hasty.engine(echo)
    hasty.all_are("completed", [task])


def test_a_task_that_is_overdue_without_a_message_is_failed(hasty: World) -> None:
    past = utc_now() - timedelta(seconds=5)
    task = hasty.store.insert(a_task(queued_at=past, deadline=past))
    hasty.engine(echo)
    hasty.all_are("failed", [task])
    assert hasty.now(task)["error"]["code"] == "expired"


def test_an_overdue_task_says_what_went_wrong_in_its_last_try(world: World) -> None:
    past = utc_now() - timedelta(seconds=60)
    error = {"code": "rate_limited", "message": "The model is busy."}
    task = world.store.insert(a_task(queued_at=past, deadline=past, attempts=2, failures=2, error=error))
    fail_overdue(world.store)
    failed = world.now(task)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "expired")
    assert "The model is busy." in failed["error"]["message"]


def test_a_running_task_whose_engine_is_gone_is_taken_over(hasty: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.engine.worker.run_isolated", lambda _task, inputs, step: echo(inputs, step))
    past = utc_now() - timedelta(seconds=60)
    task = hasty.store.insert(a_task(queued_at=past, status="running", attempts=1, engine="gone", lease_until=past))
    hasty.engine(echo)
    hasty.all_are("completed", [task])
    done = hasty.now(task)
    assert (done["attempts"], done["crashes"]) == (2, 1)


def test_a_task_of_a_killed_engine_is_completed_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.engine.worker.run_isolated", lambda _task, inputs, step: echo(inputs, step))
    task = world.store.insert(
        a_task(
            queued_at=utc_now(), status="running", attempts=1, engine="x", lease_until=utc_now() + timedelta(seconds=1)
        )
    )
    world.broker.send(message_of(task), world.broker.topology.tasks)
    world.engine(echo)
    world.all_are("completed", [task])
    assert world.now(task)["attempts"] == 2


def test_the_sweep_leaves_alone_what_is_well(hasty: World) -> None:
    hold = Hold(hasty)
    hasty.engine(hold)
    tasks = hasty.add(3)
    eventually(lambda: len(hold.started) == 3)
    before = len(hasty.database.operations)
    eventually(lambda: sum(name == "find" for _, name, _ in list(hasty.database.operations)[before:]) > 12)
    assert len(hold.started) == 3
    hold.go.set()
    hasty.all_are("completed", tasks)
    assert [hasty.now(task)["attempts"] for task in tasks] == [1] * 3


# --- health ----------------------------------------------------------------------------------------------------------


def test_a_well_engine_has_no_complaints(world: World) -> None:
    hold = Hold(world)
    engine = world.engine(hold)
    assert engine.complaints() == []
    world.add(10)
    eventually(lambda: len(hold.started) == 10)
    assert engine.complaints() == []
    world.database.away = {"all"}
    assert engine.complaints() == []


@pytest.mark.usefixtures("quick_watch")
def test_a_watch_that_is_stuck_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = Hold(world)
    engine = world.engine(hold)
    world.add()
    eventually(lambda: hold.started)
    blocked = threading.Event()

    def block(*_: Any, **__: Any) -> set[str]:
        blocked.set()
        world.over.wait(20)
        return set()

    monkeypatch.setattr(world.store, "hold", block)
    assert blocked.wait(5)
    monkeypatch.setattr(engine_module, "STUCK_SECONDS", 0.05)
    eventually(lambda: engine.complaints() == ["the watch is stuck"], 5)


def test_a_dead_consumer_is_noticed(world: World) -> None:
    engine = world.engine(echo)
    world.broker.close()
    [complaint] = engine.complaints()
    assert "connection" in complaint


def test_an_engine_that_is_up_but_deaf_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "DEAF_SECONDS", 0.1)

    def consume(self: InMemoryTaskBroker, prefetch: int, on_task: OnDelivery, on_dead: OnDelivery) -> InMemoryConsumer:
        return InMemoryConsumer(self, prefetch, {"tasks": on_task, "tasks.dead": on_dead})

    monkeypatch.setattr(InMemoryTaskBroker, "consume", consume)
    with a_world(sweep_seconds=0.1) as world:
        engine = world.engine(echo)
        assert engine.complaints() == []
        world.add()
        eventually(lambda: engine.complaints() == ["messages wait, but none arrives"], 5)


def test_an_engine_with_nothing_to_hear_is_not_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "DEAF_SECONDS", 0.05)
    with a_world(sweep_seconds=0.05) as world:
        hold = Hold(world)
        engine = world.engine(hold)
        counted = len(world.database.operations)
        eventually(lambda: len(world.database.operations) > counted + 20)
        assert engine.complaints() == []
        tasks = world.add(15)
        eventually(lambda: len(hold.started) == 10)
        counted = len(world.database.operations)
        eventually(lambda: len(world.database.operations) > counted + 20)
        assert engine.complaints() == []
        hold.go.set()
        world.all_are("completed", tasks)


@pytest.mark.usefixtures("quick_watch")
def test_handlers_that_do_not_obey_are_noticed_when_they_hold_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_world(attempt_timeout_seconds=0.1, engine_concurrency=2) as world:

        def deaf(inputs: Any, step: Step) -> Document:
            world.over.wait(20)
            return echo(inputs, step)

        engine = world.engine(deaf)
        world.add(2)
        monkeypatch.setattr(engine_module, "STUCK_SECONDS", 0.3)
        eventually(lambda: engine.complaints() == ["no handler obeys"], 5)


@pytest.fixture
def ask(world: World) -> Iterator[Callable[[str], tuple[int, str, bytes]]]:
    """Ask the health server of an engine: status, content type and body."""
    server = HealthServer(world.engine(echo), world.services, "127.0.0.1", 0)
    server.start()

    def get(path: str) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.headers["Content-Type"], response.read()
        finally:
            connection.close()

    yield get
    server.close()


Ask = Callable[[str], tuple[int, str, bytes]]


def test_who_asks_for_the_health_of_an_engine_that_starts_is_answered_once_it_has(world: World) -> None:
    server = HealthServer(world.engine(echo), world.services, "127.0.0.1", 0)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", "/healthz")
        server.start()
        assert connection.getresponse().status == 200
    finally:
        connection.close()
        server.close()


def test_an_engine_that_never_got_to_answer_lets_go_of_its_port(world: World) -> None:
    engine = world.engine(echo)
    server = HealthServer(engine, world.services, "127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        HealthServer(engine, world.services, "127.0.0.1", server.port)
    server.close()
    HealthServer(engine, world.services, "127.0.0.1", server.port).close()


def test_a_healthy_engine_says_ok(ask: Ask) -> None:
    status, content_type, body = ask("/healthz")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(body) == {"status": "ok", "complaints": []}


def test_an_engine_that_a_restart_would_mend_says_what_is_wrong(ask: Ask, world: World) -> None:
    world.broker.close()
    status, _, body = ask("/healthz")
    assert status == 503
    assert json.loads(body)["complaints"] == world.engines[0].complaints() != []


def test_an_engine_is_ready_while_queue_and_database_are_there(ask: Ask, world: World) -> None:
    assert ask("/readyz")[0] == 200
    world.database.away = {"all"}
    status, _, body = ask("/readyz")
    assert (status, json.loads(body)["database"], json.loads(body)["queue"]) == (503, "away", "ok")
    assert ask("/healthz")[0] == 200
    world.database.away = set()
    assert ask("/readyz")[0] == 200
    world.engines[0].drain(1)
    status, _, body = ask("/readyz")
    assert (status, json.loads(body)["database"], json.loads(body)["queue"]) == (503, "ok", "away")


def test_the_metrics_count_what_the_engine_does(ask: Ask, world: World) -> None:
    def completed() -> float:
        status, content_type, body = ask("/metrics")
        assert status == 200
        assert content_type.startswith("text/plain")
        wanted = 'sluice_tasks_finished_total{kind="message",reason="completed"} '
        return sum(float(line.removeprefix(wanted)) for line in body.decode().splitlines() if line.startswith(wanted))

    before = completed()
    tasks = world.add(3)
    world.all_are("completed", tasks)
    eventually(lambda: completed() == before + 3)


def test_anything_else_is_not_found(ask: Ask) -> None:
    assert [ask(path)[0] for path in ("/", "/health", "/healthz/x", "/../metrics")] == [404] * 4
