"""The broker in memory: the same rules as RabbitMQ's, in one process, lost when it ends.

Time is a function that can be replaced, so that a test can let five minutes pass at once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from sluice.broker import Message, OnDelivery, Queue, Topology
from sluice.errors import BrokerUnavailable

#: More messages than this in one queue are refused, as a full disk would.
CAPACITY = 100_000


@dataclass(slots=True)
class _Entry:
    message: Message
    expires: float | None
    deliveries: int = 0


@dataclass(slots=True)
class _State:
    """A queue and the messages that wait in it, oldest first."""

    queue: Queue
    ready: deque[_Entry] = field(default_factory=deque)


class InMemoryDelivery:
    def __init__(self, broker: InMemoryTaskBroker, state: _State, entry: _Entry, consumer: InMemoryConsumer) -> None:
        self._broker = broker
        self._state = state
        self._entry = entry
        self._consumer = consumer

    @property
    def message(self) -> Message:
        return self._entry.message

    @property
    def is_open(self) -> bool:
        return self in self._consumer.held[self._state.queue.name]

    def ack(self) -> None:
        self._broker._settle(self, self._state, self._entry, self._consumer)

    def requeue(self) -> None:
        self._broker._settle(self, self._state, self._entry, self._consumer, requeue=True)


class InMemoryConsumer:
    def __init__(self, broker: InMemoryTaskBroker, prefetch: int, callbacks: dict[str, OnDelivery]) -> None:
        self._broker = broker
        self.prefetch = prefetch
        self.callbacks = callbacks
        self.cancelled = False
        #: What this consumer holds, by queue.
        self.held: dict[str, OrderedDict[InMemoryDelivery, tuple[_State, _Entry]]] = {
            name: OrderedDict() for name in callbacks
        }

    @property
    def is_consuming(self) -> bool:
        return not self.cancelled

    @property
    def is_alive(self) -> bool:
        return self._broker.is_connected

    def cancel(self) -> None:
        self._broker._cancel(self, give_back=False)

    def close(self) -> None:
        self._broker._cancel(self, give_back=True)


class InMemoryTaskBroker:
    """A `TaskBroker` whose queues are lists. A thread of its own lets messages expire on time; without it, that happens
    when somebody calls `advance`."""

    def __init__(
        self, topology: Topology, clock: Callable[[], float] = time.monotonic, *, keeps_time: bool = True
    ) -> None:
        self.topology = topology
        self._clock = clock
        self._states = {queue.name: _State(queue) for queue in topology.queues}
        self._consumers: list[InMemoryConsumer] = []
        self._turn = 0
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._thread = threading.Thread(target=self._keep_time, name="in-memory-broker", daemon=True)
        if keeps_time:
            self._thread.start()

    @property
    def is_connected(self) -> bool:
        return not self._closed

    def send(self, message: Message, queue: Queue) -> Future[None]:
        future: Future[None] = Future()
        with self._lock:
            if self._closed:
                raise BrokerUnavailable("the in-memory queue is closed")
            if len(self._states[queue.name].ready) >= CAPACITY:
                raise BrokerUnavailable("the in-memory queue is full")
            self._put(message, queue)
        future.set_result(None)
        self.advance()
        return future

    def consume(self, prefetch: int, on_task: OnDelivery, on_dead: OnDelivery) -> InMemoryConsumer:
        callbacks = {self.topology.tasks.name: on_task, self.topology.dead.name: on_dead}
        consumer = InMemoryConsumer(self, prefetch, callbacks)
        with self._lock:
            self._consumers.append(consumer)
        self.advance()
        return consumer

    def ready(self, queue: Queue) -> int:
        self.advance()
        with self._lock:
            return len(self._states[queue.name].ready)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def advance(self) -> None:
        """Let everything happen that is due: expire what is old, hand out what can be handed out."""
        with self._lock:
            self._expire()
            handed_out = self._hand_out()
            self._changed.notify_all()
        for callback, delivery in handed_out:
            callback(delivery)

    def _keep_time(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                due = min(
                    (s.ready[0].expires for s in self._states.values() if s.ready and s.ready[0].expires), default=None
                )
                self._changed.wait(None if due is None else max(0.001, due - self._clock()))
            self.advance()

    def _put(self, message: Message, queue: Queue) -> None:
        expires = None if queue.ttl_seconds is None else self._clock() + queue.ttl_seconds
        state = self._states[queue.name]
        state.ready.append(_Entry(message, expires))
        if queue.max_length is not None and len(state.ready) > queue.max_length:
            self._die(state, state.ready.popleft())

    def _die(self, state: _State, entry: _Entry) -> None:
        if state.queue.dead_letters_to is not None:
            self._put(entry.message, self._states[state.queue.dead_letters_to].queue)

    def _expire(self) -> None:
        """As RabbitMQ does, at the head of the queue only, and never while a message is handed out."""
        now = self._clock()
        for state in self._states.values():
            while state.ready and (expires := state.ready[0].expires) is not None and expires <= now:
                self._die(state, state.ready.popleft())

    def _hand_out(self) -> list[tuple[OnDelivery, InMemoryDelivery]]:
        handed_out = []
        for name in (self.topology.tasks.name, self.topology.dead.name):
            state = self._states[name]
            while state.ready and (consumer := self._next_consumer(name)) is not None:
                entry = state.ready.popleft()
                entry.deliveries += 1
                delivery = InMemoryDelivery(self, state, entry, consumer)
                consumer.held[name][delivery] = (state, entry)
                handed_out.append((consumer.callbacks[name], delivery))
        return handed_out

    def _next_consumer(self, name: str) -> InMemoryConsumer | None:
        """Round robin among those with room."""
        count = len(self._consumers)
        for offset in range(count):
            consumer = self._consumers[(self._turn + offset) % count]
            if not consumer.cancelled and len(consumer.held[name]) < consumer.prefetch:
                self._turn = (self._turn + offset + 1) % count
                return consumer
        return None

    def _settle(
        self,
        delivery: InMemoryDelivery,
        state: _State,
        entry: _Entry,
        consumer: InMemoryConsumer,
        *,
        requeue: bool = False,
    ) -> None:
        with self._lock:
            if consumer.held[state.queue.name].pop(delivery, None) is None:
                return
            limit = state.queue.delivery_limit
            if requeue and limit is not None and entry.deliveries > limit:
                self._die(state, entry)
            elif requeue:
                state.ready.appendleft(entry)
        self.advance()

    def _cancel(self, consumer: InMemoryConsumer, *, give_back: bool) -> None:
        with self._lock:
            consumer.cancelled = True
            held = [delivery for deliveries in consumer.held.values() for delivery in deliveries] if give_back else []
        for delivery in reversed(held):
            delivery.requeue()
        if give_back:
            with self._lock:
                if consumer in self._consumers:
                    self._consumers.remove(consumer)
