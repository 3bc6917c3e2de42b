"""Publishing, confirmed, for many threads over one connection.

A thread that sends encodes its message and leaves it; the connection's thread (which can be an event loop's) is woken
once for all that were left meanwhile, writes them in one piece, and settles together all that the broker confirms
together.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import pika
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from sluice.broker import Message, Topology
from sluice.errors import BrokerUnavailable
from sluice.rabbit.frames import LEAST_BODY_FRAME, publication
from sluice.rabbit.link import Link, short
from sluice.rabbit.wire import most_of_a_body, read_once_a_turn, write

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger(__name__)

#: Messages that may wait for their confirm in one process. More than that means that the broker can't keep up.
MAX_UNCONFIRMED = 10_000

#: Bytes of messages that may wait for their confirm in one process.
MAX_UNCONFIRMED_BYTES = 32 * 1024 * 1024

#: The number of the channel for messages, known before there is a connection, as their frames bear it. The link takes
#: the lowest that is free, and never has more than two.
CHANNEL = 3

#: A message's id, its frames, and who waits for its confirm.
_Entry = tuple[str, bytes, Future[None]]


class Publisher:
    """Publishes for many threads over one connection, and pipelines the confirms: nobody waits for somebody else's."""

    def __init__(
        self,
        parameters: pika.URLParameters,
        topology: Topology,
        on_up: Callable[[], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """The connection is served by a thread of its own, or by the `loop` if there is one."""
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        #: What was sent, by the tag that the broker confirms it with, oldest first. On the connection's thread only.
        self._unconfirmed: dict[int, _Entry] = {}
        self._unroutable: Counter[str] = Counter()
        #: Messages, and bytes of them, that wait to be sent or to be confirmed.
        self._count = self._bytes = 0
        self._body_frame = LEAST_BODY_FRAME
        self._counting: list[Future[int]] = []
        self._channel: Channel | None = None
        self._last_tag = 0
        self._flushing = False
        #: Whether the latest attempt to connect failed: then callers are told at once instead of after a timeout.
        self._is_down = False
        self._on_up = on_up
        self._link = self._new_link(parameters, topology, loop)

    def _new_link(
        self, parameters: pika.URLParameters, topology: Topology, loop: asyncio.AbstractEventLoop | None
    ) -> Link:
        if loop is None:
            return Link(parameters, topology, self._open_channel, self._down)
        from sluice.rabbit.loop_link import LoopLink  # an engine has no use for it, nor for asyncio

        return LoopLink(parameters, topology, self._open_channel, self._down, loop)

    @property
    def is_connected(self) -> bool:
        return self._channel is not None and not self._is_down

    def send(self, message: Message, queue: str) -> Future[None]:
        future: Future[None] = Future()
        try:
            frames = publication(CHANNEL, message, queue, self._body_frame)
        except Exception as error:
            future.set_exception(BrokerUnavailable(f"the message can't be sent: {short(error)}"))
            return future
        with self._lock:
            if self._is_down:
                raise BrokerUnavailable("no connection to the queue")
            if self._count >= MAX_UNCONFIRMED or self._bytes > MAX_UNCONFIRMED_BYTES:
                raise BrokerUnavailable("too many messages wait for the queue's confirm")
            self._count += 1
            self._bytes += len(frames)
            self._waiting.append((message.id, frames, future))
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
        while self._count and self.is_connected and time.monotonic() < deadline:
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
                self._body_frame = most_of_a_body(connection)
            read_once_a_turn(connection)
            self._welcome()

        connection.channel(CHANNEL, on_open_callback=opened)

    def _welcome(self) -> None:
        with self._lock:
            self._is_down, self._flushing = False, True
        self._flush()
        self._on_up()

    def _turn_away(self) -> None:
        log.warning("RabbitMQ takes no messages now (an alarm: memory or disk)")
        with self._lock:
            self._is_down = True
            waiting = self._take()
        self._fail(waiting, "the queue takes no messages now")

    def _take(self) -> list[_Entry]:
        """All that waits to be sent and has not been taken back. With the lock held."""
        left, self._waiting = self._waiting, []
        taken = []
        for entry in left:
            if entry[2].set_running_or_notify_cancel():
                taken.append(entry)
            else:
                self._count -= 1
                self._bytes -= len(entry[1])
        return taken

    def _flush(self) -> None:
        with self._lock:
            self._flushing = False
            channel = self._channel
            if channel is None:
                return
            taken = self._take()
        if not taken:
            return
        try:
            write(channel, [frames for _, frames, _ in taken])
        except Exception as error:
            self._fail(taken, f"the message can't be sent: {short(error)}")
            self._link.reset()  # who knows what was sent, and which tags the broker gives
            return
        for entry in taken:
            self._last_tag += 1
            self._unconfirmed[self._last_tag] = entry

    def _returned(self, _channel: Channel, _method: Basic.Return, properties: BasicProperties, _body: bytes) -> None:
        """The queue is gone. RabbitMQ says so before it confirms."""
        self._unroutable[properties.message_id] += 1

    def _confirmed(self, frame: Any) -> None:
        tag: int = frame.method.delivery_tag
        # The tags are in order.
        tags = list(takewhile(tag.__ge__, self._unconfirmed)) if frame.method.multiple else [tag]
        confirmed = [self._unconfirmed.pop(tag) for tag in tags]
        if self._unroutable:
            confirmed = [entry for entry in confirmed if not self._was_returned(entry)]
        if not isinstance(frame.method, Basic.Ack):
            self._fail(confirmed, "the queue refused the message")
            return
        self._release(confirmed)
        for _, _, future in confirmed:
            future.set_result(None)

    def _was_returned(self, entry: _Entry) -> bool:
        if entry[0] not in self._unroutable:
            return False
        self._unroutable -= Counter([entry[0]])
        self._fail([entry], "the queue does not exist")
        self._link.call(self._link.reset)  # opening the connection afresh declares it again
        return True

    def _down(self) -> None:
        with self._lock:
            self._channel, self._is_down, self._flushing = None, True, False
            lost = [*self._unconfirmed.values(), *self._take()]
            counting, self._counting = self._counting, []
            self._unconfirmed.clear()
            self._unroutable.clear()
        self._fail(lost, "the connection to the queue was lost")
        for asked in counting:
            with suppress(InvalidStateError):
                asked.set_exception(BrokerUnavailable("the connection to the queue was lost"))

    def _fail(self, entries: list[_Entry], why: str) -> None:
        self._release(entries)
        for _, _, future in entries:
            future.set_exception(BrokerUnavailable(why))

    def _release(self, entries: list[_Entry]) -> None:
        """These messages wait no longer."""
        size = sum([len(frames) for _, frames, _ in entries])
        with self._lock:
            self._count -= len(entries)
            self._bytes -= size
