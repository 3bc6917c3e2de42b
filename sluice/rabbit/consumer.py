"""Consuming: deliveries of the tasks and of the dead letters, and their settling from any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pika
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from sluice.broker import Message, OnDelivery, Topology
from sluice.metrics import MESSAGES_REDELIVERED
from sluice.rabbit.link import CONNECT_TIMEOUT, Link, guarded

log = logging.getLogger(__name__)


class RabbitDelivery:
    __slots__ = ("_channel", "_link", "_tag", "message")

    def __init__(self, link: Link, channel: Channel, tag: int, message: Message) -> None:
        self._link = link
        self._channel = channel
        self._tag = tag
        self.message = message

    @property
    def is_open(self) -> bool:
        return bool(self._channel.is_open)

    def ack(self) -> None:
        self._settle(lambda: self._channel.basic_ack(self._tag))

    def requeue(self) -> None:
        # nack, not reject: from RabbitMQ 4.3 on only a reject counts against the delivery limit.
        self._settle(lambda: self._channel.basic_nack(self._tag, requeue=True))

    def _settle(self, settle: Callable[[], None]) -> None:
        self._link.call(lambda: settle() if self._channel.is_open else None)


class RabbitConsumer:
    """Consumes the tasks and the dead letters, each on its own channel with its own prefetch."""

    def __init__(
        self, parameters: pika.URLParameters, topology: Topology, prefetch: int, callbacks: dict[str, OnDelivery]
    ) -> None:
        self._prefetch = prefetch
        self._callbacks = callbacks
        #: The channels that consume now, by consumer tag.
        self._consuming: dict[str, Channel] = {}
        self._cancelled = threading.Event()
        self._all_cancelled = threading.Event()
        self._link = Link(parameters, topology, self._open_channels, self._down)

    @property
    def is_consuming(self) -> bool:
        return len(self._consuming) == len(self._callbacks)

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
        def consume(channel: Channel, queue: str, callback: OnDelivery) -> None:
            channel.add_on_close_callback(lambda _channel, _reason: self._link.reset())
            # The broker cancels a consumer whose queue was deleted or moved: start afresh.
            channel.add_on_cancel_callback(lambda _frame: self._link.reset())
            channel.basic_qos(prefetch_count=self._prefetch, callback=lambda _: start(channel, queue, callback))

        def start(channel: Channel, queue: str, callback: OnDelivery) -> None:
            if self._cancelled.is_set():
                return
            tag: str = channel.basic_consume(
                queue,
                on_message_callback=lambda ch, method, properties, body: self._deliver(
                    callback, ch, method, properties, body
                ),
                callback=lambda _: started(tag, channel),
            )

        def started(tag: str, channel: Channel) -> None:
            self._consuming[tag] = channel
            if self._cancelled.is_set():
                self._cancel_all()

        for queue, callback in self._callbacks.items():
            connection.channel(
                on_open_callback=lambda channel, queue=queue, callback=callback: consume(channel, queue, callback)
            )

    def _deliver(
        self, callback: OnDelivery, channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        message = Message(properties.message_id or "", body, dict(properties.headers or {}))
        delivery = RabbitDelivery(self._link, channel, method.delivery_tag, message)
        if method.redelivered:
            MESSAGES_REDELIVERED.inc()
            log.info("handed out again: message %s", message.id[:64])
        if self._cancelled.is_set():
            delivery.requeue()
            return
        guarded(lambda: callback(delivery))()

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
        self._consuming.clear()
        if self._cancelled.is_set():
            self._all_cancelled.set()
