"""Consuming: deliveries of the tasks and of the dead letters, and their settling from any thread."""

from __future__ import annotations

import logging
import threading
from collections import deque
from functools import partial
from itertools import takewhile

import pika
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from sluice.broker import Message, OnDelivery, Topology
from sluice.metrics import MESSAGES_REDELIVERED
from sluice.rabbit.frames import acknowledgement
from sluice.rabbit.link import CONNECT_TIMEOUT, Link, guarded
from sluice.rabbit.wire import write

log = logging.getLogger(__name__)


class Settlements:
    """What becomes of one channel's deliveries: settled from any thread, told to the broker on the connection's.

    No settlement waits for others, but those that are there when the connection's thread comes round go together: it is
    woken once for them, and acknowledges the oldest deliveries in one frame (rabbitmq.com/docs/confirms, "multiple").
    """

    def __init__(self, link: Link, channel: Channel) -> None:
        self._link = link
        self._channel = channel
        #: The deliveries that the broker has not been told about, oldest first. On the connection's thread only.
        self._open: dict[int, None] = {}
        self._settled: deque[tuple[int, bool]] = deque()
        self._is_called = False

    @property
    def is_open(self) -> bool:
        return bool(self._channel.is_open)

    def expect(self, tag: int) -> None:
        self._open[tag] = None

    def settle(self, tag: int, *, is_done: bool) -> None:
        # In this order, and the reverse of it in `_tell`: then none is left behind, without a lock.
        self._settled.append((tag, is_done))
        if not self._is_called:
            self._is_called = True
            self._link.call(self._tell)

    def _tell(self) -> None:
        self._is_called = False
        done = set()
        while self._settled:
            tag, is_done = self._settled.popleft()
            if not self.is_open or tag not in self._open:
                continue
            if is_done:
                done.add(tag)
                continue
            del self._open[tag]
            # nack, not reject: from RabbitMQ 4.3 on only a reject counts against the delivery limit.
            self._channel.basic_nack(tag, requeue=True)
        oldest = list(takewhile(done.__contains__, self._open))
        if len(oldest) > 1:
            self._acknowledge(oldest[-1], multiple=True)
            done.difference_update(oldest)
        for tag in done:
            self._acknowledge(tag)
        for tag in (*oldest, *done):
            self._open.pop(tag, None)

    def _acknowledge(self, tag: int, *, multiple: bool = False) -> None:
        write(self._channel, [acknowledgement(self._channel.channel_number, tag, multiple=multiple)])


class RabbitDelivery:
    __slots__ = ("_settlements", "_tag", "message")

    def __init__(self, settlements: Settlements, tag: int, message: Message) -> None:
        self._settlements = settlements
        self._tag = tag
        self.message = message

    @property
    def is_open(self) -> bool:
        return self._settlements.is_open

    def ack(self) -> None:
        self._settlements.settle(self._tag, is_done=True)

    def requeue(self) -> None:
        self._settlements.settle(self._tag, is_done=False)


class RabbitConsumer:
    """Consumes the tasks and the dead letters, each on its own channel with its own prefetch. It connects at once, and
    consumes from `start` on."""

    def __init__(self, parameters: pika.URLParameters, topology: Topology) -> None:
        self._queues = topology.tasks.name, topology.dead.name
        self._prefetch = 0
        self._callbacks: dict[str, OnDelivery] = {}
        #: The channels that are open and don't consume yet, by queue, and those that do, by consumer tag.
        self._waiting: dict[str, Channel] = {}
        self._consuming: dict[str, Channel] = {}
        self._cancelled = threading.Event()
        self._all_cancelled = threading.Event()
        self._link = Link(parameters, topology, self._open_channels, self._down)

    def start(self, prefetch: int, callbacks: dict[str, OnDelivery]) -> None:
        """Consume these queues, on this connection and on each that follows it."""
        self._prefetch = prefetch
        self._callbacks = callbacks
        self._link.call(self._consume)

    @property
    def is_consuming(self) -> bool:
        return bool(self._callbacks) and len(self._consuming) == len(self._callbacks)

    @property
    def is_alive(self) -> bool:
        return self._link.is_alive

    def cancel(self) -> None:
        self._cancelled.set()
        if self._link.call(self._cancel_all):
            self._all_cancelled.wait(CONNECT_TIMEOUT)

    def close(self) -> None:
        self._cancelled.set()
        self._link.close()

    def _open_channels(self, connection: pika.SelectConnection) -> None:
        def opened(channel: Channel, queue: str) -> None:
            channel.add_on_close_callback(lambda _channel, _reason: self._link.reset())
            # The broker cancels a consumer whose queue was deleted or moved: start afresh.
            channel.add_on_cancel_callback(lambda _frame: self._link.reset())
            self._waiting[queue] = channel
            self._consume()

        for queue in self._queues:
            connection.channel(on_open_callback=lambda channel, queue=queue: opened(channel, queue))

    def _consume(self) -> None:
        """Consume on the channels that are open, as soon as it is said for whom."""

        def start(channel: Channel, queue: str, callback: OnDelivery, _ok: object) -> None:
            if self._cancelled.is_set():
                return
            deliver = partial(self._deliver, callback, Settlements(self._link, channel))
            tag: str = channel.basic_consume(
                queue, on_message_callback=guarded(deliver), callback=lambda _: started(tag, channel)
            )

        def started(tag: str, channel: Channel) -> None:
            self._consuming[tag] = channel
            if self._cancelled.is_set():
                self._cancel_all()

        for queue, callback in self._callbacks.items():
            if (channel := self._waiting.pop(queue, None)) is not None:
                channel.basic_qos(prefetch_count=self._prefetch, callback=partial(start, channel, queue, callback))

    def _deliver(
        self,
        callback: OnDelivery,
        settlements: Settlements,
        _channel: Channel,
        method: Basic.Deliver,
        properties: BasicProperties,
        body: bytes,
    ) -> None:
        message = Message(properties.message_id or "", body, properties.headers or {})
        delivery = RabbitDelivery(settlements, method.delivery_tag, message)
        settlements.expect(method.delivery_tag)
        if method.redelivered:
            MESSAGES_REDELIVERED.inc()
            log.info("handed out again: message %s", message.id[:64])
        if self._cancelled.is_set():
            delivery.requeue()
        else:
            callback(delivery)

    def _cancel_all(self) -> None:
        def cancelled(tag: str) -> None:
            self._consuming.pop(tag, None)
            if not self._consuming:
                self._all_cancelled.set()

        if not self._consuming:
            self._all_cancelled.set()
        for tag, channel in list(self._consuming.items()):
            channel.basic_cancel(tag, callback=lambda _, tag=tag: cancelled(tag))

    def _down(self) -> None:
        self._waiting.clear()
        self._consuming.clear()
        if self._cancelled.is_set():
            self._all_cancelled.set()
