"""Engines, people, a queue and a database, without a thread or a second of their own; and everything that can happen to
them. The code is the real one down to the operations of the queue and of the database, each of which can fail."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import pytest
from pymongo.errors import AutoReconnect

from functions.engine import engine as engine_module
from functions.engine import handler as handler_module
from functions.engine import worker as worker_module
from functions.engine.engine import Engine
from functions.engine.handler import Step, Stopped
from sluice import waiting
from sluice.broker import Message, Queue, Topology
from sluice.errors import BrokerUnavailable, Conflict, KeyReused, TaskNotFound, Unavailable
from sluice.kinds import kinds
from sluice.memory import InMemoryConsumer, InMemoryDelivery, InMemoryTaskBroker
from sluice.requests import NewTask
from sluice.service import add_task, cancel_task, retry_task
from sluice.services import Services
from sluice.store import MongoTaskStore
from sluice.sweep import send_unqueued, sweep
from sluice.task import Document, Task
from tests.engine.doubles import Database, without_model
from tests.machine.ledger import Ledger, Outcome
from tests.machine.strands import Inbox, Process, Signal, Stage, Strand

#: Tasks that one engine has at once. Few, so that places run out.
PLACES = 2

#: How often a message is handed out before it becomes a dead letter. Few, so that some do.
DELIVERY_LIMIT = 4

#: What can go wrong with the next message that is sent: the publisher hears at once that it was not; or hears it
#: later; or hears nothing, although it arrived.
SendFault = Literal["refused", "not taken", "not confirmed"]

#: What can go wrong with the next change in the database: it is not made, or it is and nobody hears of it.
WriteFault = Literal["not made", "answer lost"]


class WatchedDatabase(Database):
    """The twin of MongoDB; the ledger sees every version of every document."""

    def __init__(self, stage: Stage, ledger: Ledger) -> None:
        super().__init__()
        self._stage = stage
        self._ledger = ledger
        self.next_write: WriteFault | None = None

    @property
    def client(self) -> Any:
        """The way in for the test: nothing fails there, and nobody's turn ends."""
        return self._tasks.database.client

    def create_index(self, *_args: Any, **_options: Any) -> None:
        """The twin is quick enough without any."""

    def _operate(self, name: str, run: Callable[[], Any], *arguments: Document) -> Any:
        self._stage.checkpoint()
        changes = name in {"insert_one", "update_one", "update_many", "find_one_and_update"}
        fault = None
        if changes and not self.away:
            fault, self.next_write = self.next_write, None
        if fault == "not made":
            raise AutoReconnect("the database is away for a moment")
        answer = super()._operate(name, run, *arguments)
        if changes and answer is not None and getattr(answer, "matched_count", 1):
            for task_id in _named_in(arguments[0]):
                self._look_at(task_id)
        if fault == "answer lost":
            raise AutoReconnect("the answer is lost")
        return answer

    def _look_at(self, task_id: str) -> None:
        before, after = self._ledger.latest(task_id), self.document(task_id)
        if after and before != after:
            self._ledger.write(before, after)


def _named_in(query: Document) -> Collection[str]:
    named = query["_id"]
    return named["$in"] if isinstance(named, dict) else [named]


class UnreliableBroker(InMemoryTaskBroker):
    """The twin of RabbitMQ; it can be away, lose connections, and do wrong by every message."""

    def __init__(self, stage: Stage, on_ack: Callable[[str], None]) -> None:
        self._stage = stage
        self._on_ack = on_ack
        self._hands_out = True
        self.is_away = False
        self.next_send: SendFault | None = None
        topology = Topology()
        topology.tasks = replace(topology.tasks, delivery_limit=DELIVERY_LIMIT)
        super().__init__(topology, stage.time.monotonic, keeps_time=False)

    def send(self, message: Message, queue: Queue) -> Future[None]:
        self._stage.checkpoint()
        self._check()
        fault, self.next_send = self.next_send, None
        if fault == "refused":
            raise BrokerUnavailable("no connection to the queue")
        if fault != "not taken":
            sent = super().send(message, queue)
        if fault is not None:
            sent = Future()
            sent.set_exception(TimeoutError() if fault == "not confirmed" else BrokerUnavailable("not taken"))
        return sent

    def ready(self, queue: Queue) -> int:
        self._stage.checkpoint()
        self._check()
        return super().ready(queue)

    # --- what happens to it ------------------------------------------------------------------------------------------

    def go_away(self) -> None:
        self.is_away = True
        for consumer in list(self._consumers):
            self.cut(consumer)

    def come_back(self) -> None:
        self.is_away = False
        self.advance()

    def cut(self, consumer: InMemoryConsumer) -> None:
        """A connection is lost, and opened again if the broker is there: what it held is handed out again."""
        self._hands_out = False
        for held in consumer.held.values():
            for delivery in reversed(list(held)):
                delivery.requeue()
        self._hands_out = True
        self.advance()

    def lose(self, pick: int, known: Collection[str]) -> set[str]:
        """A message of one of these tasks, which waits in a queue, is gone. Returns its id."""
        waiting = [(state, entry) for state in self._states.values() for entry in state.ready]
        losable = [(state, entry) for state, entry in waiting if entry.message.id in known]
        if not losable:
            return set()
        state, entry = losable[pick % len(losable)]
        state.ready.remove(entry)
        return {entry.message.id}

    def receive(self, message: Message) -> None:
        """A message comes from somebody else."""
        super().send(message, self.topology.tasks)

    def duplicate(self, pick: int) -> None:
        """A message that waits, or is handed out, is there twice."""
        there = list(self._entries())
        queue, entry = there[pick % len(there)]
        with self._lock:
            self._put(entry.message, queue)
        self.advance()

    # --- what is in it -----------------------------------------------------------------------------------------------

    def messages(self) -> Counter[str]:
        """How many messages there are of each id, wherever they wait, or are."""
        return Counter(entry.message.id for _, entry in self._entries())

    def is_empty(self) -> bool:
        return all(queue is self.topology.unreadable for queue, _ in self._entries())

    def unreadable(self) -> list[str]:
        return [entry.message.id for queue, entry in self._entries() if queue is self.topology.unreadable]

    def _entries(self) -> Iterator[tuple[Queue, Any]]:
        for state in self._states.values():
            yield from ((state.queue, entry) for entry in state.ready)
        for consumer in self._consumers:
            for held in consumer.held.values():
                yield from ((state.queue, entry) for state, entry in held.values())

    # -----------------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.is_away:
            raise BrokerUnavailable("the queue is away")

    def _hand_out(self) -> list[Any]:
        return super()._hand_out() if self._hands_out and not self.is_away else []

    def _settle(self, delivery: InMemoryDelivery, *arguments: Any, requeue: bool = False) -> None:
        self._stage.checkpoint()
        if delivery.is_open and not requeue:
            self._on_ack(delivery.message.id)
        super()._settle(delivery, *arguments, requeue=requeue)


class SteppedStore(MongoTaskStore):
    """The store; its writer is a strand for each task, and each change is a step of its own."""

    def __init__(self, database: WatchedDatabase, stage: Stage) -> None:
        super().__init__(database, clock=stage.time)
        self._stage = stage
        self.writers: list[Strand] = []
        self._make = self._change_alone

    def insert_soon(self, task: Task) -> Future[Task]:
        future: Future[Task] = Future()

        def write() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(self.insert(task))
            except Unavailable as error:
                future.set_exception(error)

        self.writers.append(self._stage.start(f"write {task.id}", write))
        return future


class SteppedEngine(Engine):
    """The engine; its threads are strands."""

    def __init__(self, services: Services, stage: Stage, name: str, find: Callable[[str], Any]) -> None:
        super().__init__(services, find)
        self._stage = stage
        self.name = self._worker._name = name
        self._tasks, self._dead = Inbox(stage), Inbox(stage)
        self._done, self._worker.draining, self._worker.hurry = Signal(stage), Signal(stage), Signal(stage)
        self.process = Process(name)

    def _thread(self, name: str, target: Callable[[], None]) -> None:
        self._threads.append(self._stage.start(name, target, self.process))

    @property
    def is_draining(self) -> bool:
        return self._worker.draining.is_set()

    @property
    def consumer(self) -> InMemoryConsumer:
        return self._consumer

    def strands(self, name: str) -> list[Strand]:
        return [thread for thread in self._threads if thread.name.startswith(name)]


@dataclass(eq=False)
class Handling:
    """A handler at work: it goes on when somebody says how it ends."""

    strand: Strand
    step: Step
    #: In a process of its own, since the task is a suspect.
    is_apart: bool
    outcome: Outcome | None = None


@dataclass
class Call:
    """What a person has asked for, and the HTTP status that was answered (None: no answer yet)."""

    strand: Strand
    status: int | None = None


class Alarm(logging.Handler):
    """Nothing is ever logged as an error, but for handlers that break."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.ERROR)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        if not record.getMessage().startswith("the handler of kind"):
            self._ledger.faults.append(self.format(record))


class World:
    def __init__(self) -> None:
        self.stage = Stage()
        self.settings = without_model(engine_concurrency=PLACES, sweep_seconds=30)
        self.ledger = Ledger(self.stage, self.settings)
        self.database = WatchedDatabase(self.stage, self.ledger)
        self.broker = UnreliableBroker(self.stage, self._on_ack)
        self._store = SteppedStore(self.database, self.stage)
        self.services = Services(self.settings, self._store, self.broker)
        self.engines: list[SteppedEngine] = []
        self.handlings: list[Handling] = []
        #: The tasks of which a message was lost.
        self.bereft: set[str] = set()
        self._calls: list[Call] = []
        self._made: dict[Strand, tuple[str, int]] = {}
        self._hired = 0
        self._patch = pytest.MonkeyPatch()
        for module in (engine_module, handler_module, worker_module):
            self._patch.setattr(module, "time", self.stage.time)
        self._patch.setattr(worker_module, "run_isolated", lambda _task, _inputs, step: self._handle(step, True))
        self._patch.setattr(waiting.Done, "wait", lambda done: self._wait_for(done))
        for name in ("functions", "sluice"):
            self._patch.setattr(logging.getLogger(name), "propagate", False)
            self._patch.setattr(logging.getLogger(name), "handlers", [Alarm(self.ledger)])
        logging.disable(logging.WARNING)

    def close(self) -> None:
        self.stage.close()
        self.broker.close()
        logging.disable(logging.NOTSET)
        self._patch.undo()

    def _wait_for(self, done: waiting.Done) -> None:
        self.stage.wait(done.future.done, done.seconds)

    # --- people ------------------------------------------------------------------------------------------------------

    @property
    def calls(self) -> list[Call]:
        """Those that are not answered yet."""
        self._calls = [call for call in self._calls if not call.strand.is_done]
        return self._calls

    def add(self, user: str, text: str, key: str | None, operations: int | None = None) -> Call:
        def run() -> int:
            task = waiting.run(add_task(self.services, NewTask(user, kinds()["message"], {"text": text}), key=key))
            self.ledger.accept(task, text, key)
            return 202

        call = self._call("add", run, operations)
        writers, self._store.writers = self._store.writers, []
        if operations is None:
            for strand in [*writers, call.strand]:
                while strand.can_go_on:
                    strand.go_on()
        return call

    def cancel(self, task_id: str, operations: int | None = None) -> Call:
        def run() -> int:
            cancel_task(self.services.store, task_id)
            return 200

        return self._call("cancel", run, operations)

    def retry(self, task_id: str, operations: int | None = None) -> Call:
        def run() -> int:
            self.ledger.accepted.add(retry_task(self.services, task_id).id)
            return 202

        return self._call("retry", run, operations)

    def sweep(self, operations: int | None = None) -> Call:
        """The CronJob's, which has seen no message."""

        def run() -> int:
            sweep(self.services.store, self.broker, 2)
            return 200

        return self._call("sweep", run, operations)

    def send_missed(self, operations: int | None = None) -> Call:
        """What a publisher does when its connection is back."""

        def run() -> int:
            send_unqueued(self.services.store, self.broker, 2)
            return 200

        return self._call("send-missed", run, operations)

    def _call(self, name: str, run: Callable[[], int], operations: int | None) -> Call:
        def answered() -> None:
            try:
                call.status = run()
            except TaskNotFound:
                call.status = 404
            except Conflict:
                call.status = 409
            except KeyReused:
                call.status = 422
            except Unavailable:
                call.status = 503

        call = Call(self.stage.start(name, answered))
        self._calls.append(call)
        call.strand.go_on(operations)
        return call

    # --- engines -----------------------------------------------------------------------------------------------------

    def hire(self) -> None:
        self._hired += 1
        name = f"engine-{self._hired}"
        engine = SteppedEngine(self.services, self.stage, name, lambda _kind: lambda _inputs, step: self._handle(step))
        engine.start()
        self.engines.append(engine)

    def kill(self, engine: SteppedEngine) -> None:
        """Its connection is lost, and nothing of what it was at goes on."""
        self.engines.remove(engine)
        for strand in engine.process.strands:
            if strand is not self.stage.current:
                strand.kill()
        engine.consumer.close()

    def drain(self, engine: SteppedEngine, grace: float) -> None:
        def run() -> None:
            engine.drain(grace)
            self.kill(engine)

        self.stage.start("main", run, engine.process).go_on()

    def _handle(self, step: Step, is_apart: bool = False) -> Document:
        """Every task's handler."""
        strand = self.stage.current
        assert strand is not None
        handling = Handling(strand, step, is_apart)
        self._made[strand] = step.task_id, step.attempt
        self.ledger.begin(step.task_id, step.attempt)
        self.handlings.append(handling)
        try:
            with step("work"):
                step.show(message=f"half of attempt {step.attempt}")
                self.stage.wait(lambda: handling.outcome is not None)
        finally:
            self.handlings.remove(handling)
        assert handling.outcome is not None
        if isinstance(handling.outcome, Exception):
            raise handling.outcome
        return handling.outcome

    def end(self, handling: Handling, outcome: Outcome, operations: int | None = None) -> None:
        """A handler ends; its attempt goes on from there."""
        handling.outcome = outcome
        if isinstance(outcome, Exception) and handling.step.stop_reason is not None:
            outcome = Stopped(handling.step.stop_reason)  # whatever it raises now, it raises because it is to stop
        self.ledger.end(handling.step.task_id, handling.step.attempt, outcome)
        handling.strand.go_on(operations)

    def _on_ack(self, message_id: str) -> None:
        task_id, attempt = self._made.pop(self.stage.current, ("", 0)) if self.stage.current else ("", 0)
        if task_id == message_id:
            is_elsewhere = self.broker.messages()[task_id] > 1 or task_id in self.bereft
            self.ledger.acknowledge(task_id, attempt, is_elsewhere=is_elsewhere)

    def mend(self) -> None:
        """All that is away or frozen comes back, and nothing more goes wrong."""
        self.database.away, self.database.next_write, self.broker.next_send = set(), None, None
        for engine in self.engines:
            engine.process.is_frozen = False
        if self.broker.is_away:
            self.broker.come_back()

    def is_at_rest(self) -> bool:
        """Nobody is at anything, no message waits, and every task is at its end."""
        return (
            not self.handlings
            and not self.calls
            and self.broker.is_empty()
            and all(self.ledger.is_over(task_id) for task_id in self.ledger.versions)
        )

    # --- time --------------------------------------------------------------------------------------------------------

    def let_pass(self, seconds: float) -> None:
        """Time passes; nobody has noticed yet but the queue."""
        self.stage.time.advance(seconds)
        self.broker.advance()

    # --- where tasks are ---------------------------------------------------------------------------------------------

    def lost(self) -> set[str]:
        """The accepted tasks that will not come to an end: those that have not, have no message, and that the sweep
        would not find either."""
        lost = {task_id for task_id in self.ledger.accepted if not self.ledger.is_over(task_id)}
        lost -= self.broker.messages().keys()
        return lost - self._found_in_time() if lost else lost

    def _found_in_time(self) -> set[str]:
        """What the sweep would find a minute after the last deadline that there can be now."""
        store = MongoTaskStore(self.database.client, clock=self.stage.time)
        then = self.stage.time() + timedelta(seconds=self.settings.task_ttl_seconds + 60)
        found: list[Task] = [*store.overdue(then, 100), *store.abandoned(then, 100)]
        return {task.id for task in found}
