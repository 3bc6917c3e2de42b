"""What a queue is to Sluice: its queues and their rules, a message, a delivery, and what a broker can do.

The rules (TTL, dead letters, wait queues) are written down once, here; `sluice.rabbit` declares them and
`sluice.memory` obeys them. Why the queues are as they are: docs/decisions/0003-queues.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from sluice.errors import BrokerUnavailable

#: The pauses, in seconds, for which there is a wait queue. A longer or odd pause is spent in several of them in turn.
PAUSES = (1, 2, 5, 10, 30, 60, 120)

#: How many times RabbitMQ hands out a message that nobody acknowledged before it becomes a dead letter.
DELIVERY_LIMIT = 20

#: For a queue whose messages must never die of it. RabbitMQ 4 has a limit where none is given, and 3.10 knows no -1.
NO_DELIVERY_LIMIT = 1_000_000

#: Messages that are no tasks are kept for people to look at: at most so many, for at most so long.
UNREADABLE_LIMIT = 1_000
UNREADABLE_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Queue:
    """One durable queue. Without a TTL messages wait for ever; without `dead_letters_to` they vanish when they die."""

    name: str
    ttl_seconds: int | None = None
    dead_letters_to: str | None = None
    delivery_limit: int | None = None
    max_length: int | None = None


class Topology:
    """All queues: the tasks, the dead letters, one wait queue for each pause, and what can't be read."""

    def __init__(self, name: str = "tasks", ttl_seconds: int = 300, *, is_ours: bool = True) -> None:
        """`is_ours` is False where somebody else declares the queues: then they are only looked for."""
        self.is_ours = is_ours
        self.tasks = Queue(name, ttl_seconds=ttl_seconds, dead_letters_to=f"{name}.dead", delivery_limit=DELIVERY_LIMIT)
        self.dead = Queue(f"{name}.dead", delivery_limit=NO_DELIVERY_LIMIT)
        self.unreadable = Queue(f"{name}.unreadable", ttl_seconds=UNREADABLE_SECONDS, max_length=UNREADABLE_LIMIT)
        self.waits = {
            pause: Queue(f"{name}.retry.{pause}", ttl_seconds=pause, dead_letters_to=name) for pause in PAUSES
        }

    @property
    def queues(self) -> list[Queue]:
        return [self.dead, self.tasks, *self.waits.values(), self.unreadable]

    def wait_for(self, seconds: float) -> Queue:
        """The wait queue with the longest pause that is not longer than this many whole seconds (at least one)."""
        return self.waits[max(pause for pause in PAUSES if pause <= max(PAUSES[0], math.ceil(seconds)))]


@dataclass(frozen=True, slots=True)
class Message:
    """A message: the task's id, the whole task as JSON, and headers (`x-request-id`, `traceparent`)."""

    id: str
    body: bytes
    headers: dict[str, Any] = field(default_factory=dict)


class Delivery(Protocol):
    """One hand-over of a message. Settle it once, from any thread; when its connection is gone, settling does nothing
    and the broker hands the message out again."""

    @property
    def message(self) -> Message: ...

    @property
    def is_open(self) -> bool:
        """Whether it can still be settled."""

    def ack(self) -> None:
        """The message has done its work."""

    def requeue(self) -> None:
        """Back to its queue, for whoever comes next."""


class Consumer(Protocol):
    """Takes deliveries of the tasks and of the dead letters, until it is told not to."""

    @property
    def is_consuming(self) -> bool:
        """Whether deliveries can arrive now."""

    @property
    def is_alive(self) -> bool:
        """Whether the machinery behind it still runs, connected or not."""

    def cancel(self) -> None:
        """Take no more. What was delivered can still be settled. Returns once the broker agreed (or is away)."""

    def close(self) -> None:
        """Let go of everything; what is not settled is handed out again."""


OnDelivery = Callable[[Delivery], None]


class TaskBroker(Protocol):
    """A queue service. All methods may be called from any thread."""

    topology: Topology

    def send(self, message: Message, queue: Queue) -> Future[None]:
        """Publish; the future is done when the broker has taken responsibility for the message.

        Raises BrokerUnavailable (here, or from the future) when that does not come about. Cancelling the future takes
        a message back that was not sent yet.
        """

    def consume(self, prefetch: int, on_task: OnDelivery, on_dead: OnDelivery) -> Consumer:
        """Start to consume. The callbacks are called on the broker's thread and must not block."""

    def ready(self, queue: Queue) -> int:
        """How many messages wait in the queue. Raises BrokerUnavailable."""

    @property
    def is_connected(self) -> bool: ...

    def close(self) -> None: ...


def publish(broker: TaskBroker, message: Message, queue: Queue, timeout: float) -> None:
    """Publish and wait for the confirm. Raises BrokerUnavailable after `timeout` seconds; a message that was not sent
    by then never will be."""
    future = broker.send(message, queue)
    try:
        future.result(timeout)
    except TimeoutError:
        future.cancel()
        raise BrokerUnavailable("the queue did not confirm in time") from None
