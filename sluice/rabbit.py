"""RabbitMQ, by pika: the one function that declares the queues, a publisher that many threads share, and a consumer.

Each owns one connection, and a thread that serves it and opens it again for as long as the process lives. Other threads
never touch a connection: they leave a callback for its thread (the only thread-safe call that pika has) and, where they
need an answer, wait on a future.
"""

from __future__ import annotations

import logging
import random
import re
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
import pika.data
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

from sluice.broker import Message, OnDelivery, Queue, Topology
from sluice.errors import BrokerUnavailable, InvalidSettings

log = logging.getLogger(__name__)

#: Seconds between attempts to connect: doubled from the first to the last, with jitter.
FIRST_PAUSE, LAST_PAUSE = 0.1, 1.5

#: Seconds that a connection may take to open, and between the broker's signs of life once it is open. RabbitMQ warns
#: against heartbeats below 5 s (rabbitmq.com/docs/heartbeats).
CONNECT_TIMEOUT, HEARTBEAT = 4, 10

#: Messages that may wait for their confirm in one process. More than that means that the broker can't keep up.
MAX_UNCONFIRMED = 10_000

#: Seconds without a turn of a connection's loop after which its thread counts as dead.
LOOP_STUCK = 30

#: Bytes of messages that may wait for their confirm in one process.
MAX_UNCONFIRMED_BYTES = 32 * 1024 * 1024

_PRECONDITION_FAILED = 406

_NOT_FOUND = 404

_decode_table = pika.data.decode_table


def _decode_any_table(encoded: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """pika ends the connection on headers that it can't read (a year that datetime can't hold, a thousand nested
    lists), and the message would come first again on every new one: such headers read as none."""
    # A table begins with its length.
    try:
        decoded: tuple[dict[str, Any], int] = _decode_table(encoded, offset)
    except Exception:
        return {}, offset + 4 + int.from_bytes(encoded[offset : offset + 4], "big")
    return decoded


pika.data.decode_table = _decode_any_table


def declare(channel: Any, queue: Queue) -> None:
    """Declare one queue. Durable and replicated (quorum), so that a confirmed message survives its broker's restart."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    if queue.ttl_seconds is not None:
        arguments["x-message-ttl"] = queue.ttl_seconds * 1000
    if queue.dead_letters_to is not None:
        arguments["x-dead-letter-exchange"] = ""
        arguments["x-dead-letter-routing-key"] = queue.dead_letters_to
    if queue.delivery_limit is not None:
        arguments["x-delivery-limit"] = queue.delivery_limit
    if queue.max_length is not None:
        arguments["x-max-length"] = queue.max_length
    channel.queue_declare(queue=queue.name, durable=True, arguments=arguments)


def declare_topology(channel: Any, topology: Topology, skip: frozenset[str] | set[str] = frozenset()) -> None:
    """Declare all queues but those named in `skip`. Takes a blocking or an asynchronous channel; on an asynchronous one
    nothing is waited for, and a queue that exists with other arguments closes the channel (406)."""
    for queue in topology.queues:
        if queue.name not in skip:
            declare(channel, queue)


def parameters_from(url: str, name: str) -> pika.URLParameters:
    """Read an AMQP URL. Raises InvalidSettings (without the URL: it holds a password)."""
    try:
        if not url.startswith(("amqp://", "amqps://")):
            raise ValueError("no AMQP URL")
        parameters = pika.URLParameters(url)
    except Exception:
        raise InvalidSettings("RABBITMQ_URL is not a URL like amqp://user:password@host:5672/vhost") from None
    if "heartbeat=" not in url:
        parameters.heartbeat = HEARTBEAT
    parameters.socket_timeout = parameters.stack_timeout = CONNECT_TIMEOUT
    parameters.client_properties = {"connection_name": name}
    return parameters


class Link:
    """One connection, kept open by a thread of its own. Once it is open and the queues are declared it calls `on_up`;
    when it is lost, or could not be opened, `on_down`; both on that thread."""

    def __init__(
        self,
        parameters: pika.URLParameters,
        topology: Topology,
        on_up: Callable[[pika.SelectConnection], None],
        on_down: Callable[[], None],
    ) -> None:
        self._parameters = parameters
        self._topology = topology
        self._on_up = on_up
        self._on_down = on_down
        self._lock = threading.Lock()
        self._ioloop: IOLoop | None = None
        self._connection: pika.SelectConnection | None = None
        self._opened = False
        #: Whether it has been said that RabbitMQ is away: once is enough.
        self._is_away = False
        self._stopping = threading.Event()
        self._turned = time.monotonic()
        #: Queues that exist with other arguments than ours: used as they are.
        self._foreign: set[str] = set()
        self._told: set[str] = set()
        name = parameters.client_properties["connection_name"]
        self._thread = threading.Thread(target=self._run, name=f"rabbitmq {name}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and time.monotonic() - self._turned < LOOP_STUCK

    def call(self, callback: Callable[[], None]) -> bool:
        """Have the connection's thread call this soon. False when there is no connection now."""
        with self._lock:
            if self._ioloop is None:
                return False
            self._ioloop.add_callback_threadsafe(_guarded(callback))
            return True

    def reset(self) -> None:
        """Close the connection, so that it is opened afresh. On the connection's thread only."""
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def close(self, timeout: float = 5.0) -> None:
        """Close for good. Returns when the thread has ended, or after `timeout` seconds."""
        self._stopping.set()
        self.call(self.reset)
        self._thread.join(timeout)

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            self._opened = False
            try:
                self._serve()
            except Exception:
                log.exception("the connection to RabbitMQ broke in an unforeseen way; opening it again")
            finally:
                with self._lock:
                    self._ioloop = self._connection = None
                _guarded(self._on_down)()
            pause = FIRST_PAUSE if self._opened else min(2 * pause, LAST_PAUSE)
            self._turned = time.monotonic()
            self._stopping.wait(pause * random.uniform(0.5, 1))

    def _serve(self) -> None:
        ioloop = IOLoop()
        with self._lock:
            self._ioloop = ioloop
        self._connection = pika.SelectConnection(
            self._parameters,
            on_open_callback=self._set_up,
            on_open_error_callback=self._lost,
            on_close_callback=self._lost,
            custom_ioloop=ioloop,
        )
        self._turn()
        try:
            ioloop.start()
        finally:
            with self._lock:
                self._ioloop = None
            ioloop.close()

    def _turn(self) -> None:
        self._turned = time.monotonic()
        if self._ioloop is not None:
            self._ioloop.call_later(1, self._turn)
        if self._stopping.is_set():
            self.reset()

    def _lost(self, connection: pika.SelectConnection, reason: BaseException) -> None:
        if not self._stopping.is_set():
            log.log(
                logging.DEBUG if self._is_away else logging.WARNING, "no connection to RabbitMQ: %s", _short(reason)
            )
        self._is_away = True
        connection.ioloop.stop()

    def _set_up(self, connection: pika.SelectConnection) -> None:
        """Declare the queues on a channel of its own: RabbitMQ closes it when a queue exists with other arguments."""

        def declare_all(channel: Channel) -> None:
            channel.add_on_close_callback(closed)
            declare_topology(channel, self._topology, skip=self._foreign)
            # The broker answers in order: when it answers this, everything before it has been declared.
            channel.queue_declare(self._topology.tasks.name, passive=True, callback=lambda _: done(channel))

        def done(channel: Channel) -> None:
            channel.close()
            self._opened, self._is_away = True, False
            self._on_up(connection)

        def closed(_: Channel, reason: Exception) -> None:
            code = getattr(reason, "reply_code", None)
            if code == _NOT_FOUND:
                self._foreign.clear()  # a queue that was used as it was is gone: ours can be declared
            if code != _PRECONDITION_FAILED:
                if not self._opened:
                    log.error("the queues can't be declared: %s", _short(reason))
                    self.reset()
                return
            name = re.search(r"for queue '([^']*)'", str(reason))
            if name is None or name[1] in self._foreign:
                self.reset()
                return
            log.log(
                logging.DEBUG if name[1] in self._told else logging.ERROR,
                "queue %s exists with other arguments and is used as it is (delete it, or set a policy): %s",
                name[1],
                _short(reason),
            )
            self._foreign.add(name[1])
            self._told.add(name[1])
            connection.channel(on_open_callback=declare_all)

        connection.channel(on_open_callback=declare_all)


def _guarded(callback: Callable[[], None]) -> Callable[[], None]:
    """An exception in a callback would end the connection's loop; this logs it instead."""

    def guarded() -> None:
        try:
            callback()
        except AMQPError as error:
            log.info("too late for this connection to RabbitMQ: %s", _short(error))
        except Exception:
            log.exception("a callback on the connection to RabbitMQ failed")

    return guarded


def _short(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"


class _Publisher:
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
                future.set_exception(BrokerUnavailable(f"the message can't be sent: {_short(error)}"))
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

    def reject(self) -> None:
        self._settle(lambda: self._channel.basic_reject(self._tag, requeue=False))

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
        if self._cancelled.is_set():
            delivery.requeue()
            return
        _guarded(lambda: callback(delivery))()

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
        self._lock = threading.Lock()
        self._publisher_if_any: _Publisher | None = None
        self._consumers: list[RabbitConsumer] = []

    @property
    def _publisher(self) -> _Publisher:
        with self._lock:
            if self._publisher_if_any is None:
                self._publisher_if_any = _Publisher(self._parameters, self.topology, self._on_reconnect)
            return self._publisher_if_any

    @property
    def is_connected(self) -> bool:
        return self._publisher.is_connected

    def send(self, message: Message, queue: Queue) -> Future[None]:
        return self._publisher.send(message, queue.name)

    def consume(self, prefetch: int, on_task: OnDelivery, on_dead: OnDelivery) -> RabbitConsumer:
        callbacks = {self.topology.tasks.name: on_task, self.topology.dead.name: on_dead}
        consumer = RabbitConsumer(self._parameters, self.topology, prefetch, callbacks)
        self._consumers.append(consumer)
        return consumer

    def ready(self, queue: Queue) -> int:
        return self._publisher.count(queue.name, self._timeout)

    def close(self) -> None:
        for consumer in self._consumers:
            consumer.close()
        if self._publisher_if_any is not None:
            self._publisher_if_any.close(self._timeout)
