"""Publishing, confirmed, for many threads over one connection."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from itertools import takewhile
from typing import Any

import pika
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from sluice.broker import Message, Topology
from sluice.errors import BrokerUnavailable
from sluice.rabbit.link import Link, short

log = logging.getLogger(__name__)

#: Messages that may wait for their confirm in one process. More than that means that the broker can't keep up.
MAX_UNCONFIRMED = 10_000

#: Bytes of messages that may wait for their confirm in one process.
MAX_UNCONFIRMED_BYTES = 32 * 1024 * 1024


class Publisher:
    """Publishes for many threads over one connection, and pipelines the confirms: nobody waits for somebody else's."""

    def __init__(self, parameters: pika.URLParameters, topology: Topology, on_up: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Message, str, Future[None]]] = deque()
        self._unconfirmed: dict[int, tuple[str, Future[None]]] = {}
        self._unroutable: Counter[str] = Counter()
        self._bytes = 0
        self._counting: list[Future[int]] = []
        self._channel: Channel | None = None
        self._last_tag = 0
        self._flushing = False
        #: Whether the latest attempt to connect failed: then callers are told at once instead of after a timeout.
        self._is_down = False
        self._on_up = on_up
        self._link = Link(parameters, topology, self._open_channel, self._down)

    @property
    def is_connected(self) -> bool:
        return self._channel is not None and not self._is_down

    def send(self, message: Message, queue: str) -> Future[None]:
        future: Future[None] = Future()
        with self._lock:
            if self._is_down:
                raise BrokerUnavailable("no connection to the queue")
            unconfirmed = len(self._waiting) + len(self._unconfirmed)
            if unconfirmed >= MAX_UNCONFIRMED or self._bytes > MAX_UNCONFIRMED_BYTES:
                raise BrokerUnavailable("too many messages wait for the queue's confirm")
            self._bytes += len(message.body)
            future.add_done_callback(lambda _: self._forget(len(message.body)))
            self._waiting.append((message, queue, future))
            wake = self._channel is not None and not self._flushing
            self._flushing = self._flushing or wake
        if wake:
            self._link.call(self._flush)
        return future

    def count(self, queue: str, timeout: float) -> int:
        future: Future[int] = Future()

        def ask() -> None:
            if self._channel is None:
                future.set_exception(BrokerUnavailable("no connection to the queue"))
                return
            self._counting.append(future)
            self._channel.queue_declare(queue, passive=True, callback=answer)

        def answer(frame: Any) -> None:
            self._counting.remove(future)
            future.set_result(frame.method.message_count)

        if not self._link.call(ask):
            raise BrokerUnavailable("no connection to the queue")
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            raise BrokerUnavailable("the queue did not answer in time") from None

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while (self._waiting or self._unconfirmed) and self.is_connected and time.monotonic() < deadline:
            time.sleep(0.01)
        self._link.close()

    def _open_channel(self, connection: pika.SelectConnection) -> None:
        # An alarm (memory, disk): the broker reads no more. What is sent now would wait in buffers, for good.
        connection.add_on_connection_blocked_callback(lambda *_: self._turn_away())
        connection.add_on_connection_unblocked_callback(lambda *_: self._welcome())

        def opened(channel: Channel) -> None:
            channel.add_on_close_callback(lambda _channel, _reason: self._link.reset())
            channel.add_on_return_callback(self._returned)
            channel.confirm_delivery(self._confirmed, callback=lambda _: ready(channel))

        def ready(channel: Channel) -> None:
            with self._lock:
                self._channel, self._last_tag = channel, 0
            self._welcome()

        connection.channel(on_open_callback=opened)

    def _welcome(self) -> None:
        with self._lock:
            self._is_down, self._flushing = False, True
        self._flush()
        self._on_up()

    def _turn_away(self) -> None:
        log.warning("RabbitMQ takes no messages now (an alarm: memory or disk)")
        with self._lock:
            self._is_down = True
            waiting = [future for _, _, future in self._waiting if future.set_running_or_notify_cancel()]
            self._waiting.clear()
        for future in waiting:
            future.set_exception(BrokerUnavailable("the queue takes no messages now"))

    def _forget(self, size: int) -> None:
        with self._lock:
            self._bytes -= size

    def _flush(self) -> None:
        while True:
            with self._lock:
                if self._channel is None or not self._waiting:
                    self._flushing = False
                    return
                message, queue, future = self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
            try:
                self._channel.basic_publish("", queue, message.body, _properties(message), mandatory=True)
            except Exception as error:
                future.set_exception(BrokerUnavailable(f"the message can't be sent: {short(error)}"))
                continue
            with self._lock:
                self._last_tag += 1
                self._unconfirmed[self._last_tag] = (message.id, future)

    def _returned(self, _channel: Channel, _method: Basic.Return, properties: BasicProperties, _body: bytes) -> None:
        """The queue is gone. RabbitMQ says so before it confirms."""
        self._unroutable[properties.message_id] += 1

    def _confirmed(self, frame: Any) -> None:
        tag: int = frame.method.delivery_tag
        if frame.method.multiple:
            tags = list(takewhile(lambda unconfirmed: unconfirmed <= tag, self._unconfirmed))  # they are in order
        else:
            tags = [tag]
        for confirmed in tags:
            message_id, future = self._unconfirmed.pop(confirmed)
            if self._unroutable[message_id] > 0:
                self._unroutable[message_id] -= 1
                future.set_exception(BrokerUnavailable("the queue does not exist"))
                self._link.call(self._link.reset)  # opening the connection afresh declares it again
            elif isinstance(frame.method, Basic.Ack):
                future.set_result(None)
            else:
                future.set_exception(BrokerUnavailable("the queue refused the message"))

    def _down(self) -> None:
        with self._lock:
            self._channel, self._is_down, self._flushing = None, True, False
            lost = [future for _, future in self._unconfirmed.values()]
            lost += [future for _, _, future in self._waiting if future.set_running_or_notify_cancel()]
            counting, self._counting = self._counting, []
            self._unconfirmed.clear()
            self._unroutable.clear()
            self._waiting.clear()
        waiting: list[Future[Any]] = [*lost, *counting]
        for future in waiting:
            with suppress(InvalidStateError):
                future.set_exception(BrokerUnavailable("the connection to the queue was lost"))


def _properties(message: Message) -> BasicProperties:
    return BasicProperties(
        content_type="application/json", delivery_mode=2, message_id=message.id, headers=message.headers
    )
