"""One connection to RabbitMQ, opened again whenever it is lost: on a thread of its own, or (`loop_link`) on a loop."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec

import pika
import pika.data
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.exceptions import AMQPError

from sluice.broker import Topology
from sluice.errors import InvalidSettings
from sluice.rabbit.topology import declare_topology

P = ParamSpec("P")

log = logging.getLogger(__name__)

#: Seconds between attempts to connect: doubled from the first to the last, with jitter.
FIRST_PAUSE, LAST_PAUSE = 0.1, 1.5

#: Seconds that a connection may take to open, and between the broker's signs of life once it is open. RabbitMQ warns
#: against heartbeats below 5 s (rabbitmq.com/docs/heartbeats).
CONNECT_TIMEOUT, HEARTBEAT = 4, 10

#: Seconds without a turn of a connection's loop after which its thread counts as dead.
LOOP_STUCK = 30

#: Why the broker closes a channel: AMQP's reply codes.
_NOT_FOUND, _PRECONDITION_FAILED = 404, 406

_decode_table = pika.data.decode_table


def _decode_any_table(encoded: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """pika ends the connection on headers that it can't read (a year that datetime can't hold, a thousand nested
    lists), and the message would come first again on every new one: such headers read as none."""
    try:
        decoded: tuple[dict[str, Any], int] = _decode_table(encoded, offset)
    except Exception:
        # A table begins with its length.
        return {}, offset + 4 + int.from_bytes(encoded[offset : offset + 4], "big")
    return decoded


pika.data.decode_table = _decode_any_table


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
        self._start()

    def _start(self) -> None:
        name = self._parameters.client_properties["connection_name"]
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
            self._ioloop.add_callback_threadsafe(guarded(callback))
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
                guarded(self._on_down)()
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
            log.log(logging.DEBUG if self._is_away else logging.WARNING, "no connection to RabbitMQ: %s", short(reason))
        self._is_away = True
        self._leave(connection)

    def _leave(self, connection: pika.SelectConnection) -> None:
        """This connection is over."""
        connection.ioloop.stop()

    def _set_up(self, connection: pika.SelectConnection) -> None:
        """Declare the queues, or look for them, on a channel of its own: RabbitMQ closes it when a queue exists with
        other arguments, or is missing."""
        if self._stopping.is_set():
            self.reset()
            return

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
                    wish = "declared" if self._topology.is_ours else "found"
                    log.error("the queues can't be %s: %s", wish, short(reason))
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
                short(reason),
            )
            self._foreign.add(name[1])
            self._told.add(name[1])
            connection.channel(on_open_callback=declare_all)

        connection.channel(on_open_callback=declare_all)


def guarded(callback: Callable[P, None]) -> Callable[P, None]:
    """An exception in a callback would end the connection's loop; this logs it instead."""

    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(*args, **kwargs)
        except AMQPError as error:
            log.info("too late for this connection to RabbitMQ: %s", short(error))
        except Exception:
            log.exception("a callback on the connection to RabbitMQ failed")

    return guarded


def short(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"
