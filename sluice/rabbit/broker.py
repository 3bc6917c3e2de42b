"""The publisher and the consumers of one process, as a `TaskBroker`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from sluice.broker import Message, OnDelivery, Queue, Topology
from sluice.rabbit.consumer import RabbitConsumer
from sluice.rabbit.link import parameters_from
from sluice.rabbit.publisher import Publisher

if TYPE_CHECKING:
    import asyncio


class RabbitTaskBroker:
    """A `TaskBroker` on RabbitMQ. Connects on first use; until the first connection has come about or failed, messages
    wait for it, afterwards a broker that is away is reported at once."""

    def __init__(
        self,
        url: str,
        topology: Topology,
        *,
        name: str = "sluice",
        timeout: float = 2.0,
        on_reconnect: Callable[[], None] = lambda: None,
    ) -> None:
        self.topology = topology
        self._parameters = parameters_from(url, name)
        self._timeout = timeout
        self._on_reconnect = on_reconnect
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._publisher_if_any: Publisher | None = None
        #: A consumer that is connected and not in use yet.
        self._ready: RabbitConsumer | None = None
        self._consumers: list[RabbitConsumer] = []

    def publish_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Publish on this event loop instead of on a thread: where one loop answers all calls, none has to change
        threads (a fifth of what an add cost). Before anything is published."""
        self._loop = loop

    @property
    def _publisher(self) -> Publisher:
        with self._lock:
            if self._publisher_if_any is None:
                self._publisher_if_any = Publisher(self._parameters, self.topology, self._on_reconnect, self._loop)
            return self._publisher_if_any

    @property
    def is_connected(self) -> bool:
        return self._publisher.is_connected

    def send(self, message: Message, queue: Queue) -> Future[None]:
        return self._publisher.send(message, queue.name)

    def prepare_to_consume(self) -> None:
        """Connect now, on the side, so that `consume` finds the connection open and the queues declared."""
        self._ready = self._new_consumer()

    def consume(self, prefetch: int, on_task: OnDelivery, on_dead: OnDelivery) -> RabbitConsumer:
        callbacks = {self.topology.tasks.name: on_task, self.topology.dead.name: on_dead}
        consumer, self._ready = self._ready or self._new_consumer(), None
        consumer.start(prefetch, callbacks)
        return consumer

    def _new_consumer(self) -> RabbitConsumer:
        consumer = RabbitConsumer(self._parameters, self.topology)
        self._consumers.append(consumer)
        return consumer

    def ready(self, queue: Queue) -> int:
        return self._publisher.count(queue.name, self._timeout)

    def close(self) -> None:
        for consumer in self._consumers:
            consumer.close()
        if self._publisher_if_any is not None:
            self._publisher_if_any.close(self._timeout)
