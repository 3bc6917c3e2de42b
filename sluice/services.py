"""What a process works with: its settings, the store and the broker. Made on first use, once in each process."""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sluice.broker import TaskBroker, Topology
from sluice.errors import InvalidSettings, Unavailable
from sluice.logs import configure_logs
from sluice.rabbit import RabbitTaskBroker
from sluice.settings import Settings, reveal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sluice.store import MongoTaskStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    settings: Settings
    store: MongoTaskStore
    #: None in a process that needs no queue: one that only reads, or cancels.
    queue: TaskBroker | None = None
    #: What stands in for a service that is not configured, to be shown to people: {"model": "offline model"}.
    stand_ins: dict[str, str] = field(default_factory=dict)

    @property
    def broker(self) -> TaskBroker:
        if self.queue is None:
            raise InvalidSettings("RABBITMQ_URL is not set")
        return self.queue

    def close(self) -> None:
        if self.queue is not None:
            self.queue.close()
        self.store.close()


_lock = threading.Lock()
_installed: dict[int, Services] = {}


def install(services: Services) -> None:
    """Make these the services of this process (the embedded mode does; everyone else connects by the settings)."""
    _installed[os.getpid()] = services


def services() -> Services:
    """The services of this process: forked processes never share a connection."""
    found = _installed.get(os.getpid())
    if found is None:
        with _lock:
            found = _installed.get(os.getpid())
            if found is None:
                found = _installed[os.getpid()] = connect(Settings.load(), role="function")
    return found


def prepare(*, needs_queue: bool) -> None:
    """Check the settings that a function needs, and set up its logs, so that one with wrong settings never starts.
    Raises InvalidSettings."""
    if os.getpid() in _installed:
        return
    settings = Settings.load(required=("mongodb_uri", "rabbitmq_url") if needs_queue else ("mongodb_uri",))
    configure_logs(settings.log_level, settings.log_format)
    connect(settings, role="function").close()


def connect(settings: Settings, role: str, *, consumes: bool = False) -> Services:
    """The real services behind the settings. Nothing is connected before it is used, but the queue of a process that
    `consumes` is: RabbitMQ answers while Python imports. Raises InvalidSettings."""
    if settings.rabbitmq_url is None:
        return Services(settings, open_store(settings, role))
    broker = open_broker(settings, lambda: store, role)
    if consumes:
        broker.prepare_to_consume()
    try:
        store = open_store(settings, role)
    except InvalidSettings:
        broker.close()
        raise
    return Services(settings, store, broker)


def open_store(settings: Settings, role: str) -> MongoTaskStore:
    from sluice.store import open_mongodb  # a third of an engine's imports, which its queue need not wait for

    return open_mongodb(
        reveal(settings.mongodb_uri),
        settings.mongodb_database,
        timeout=settings.store_timeout_seconds,
        name=f"sluice {role}",
    )


def open_broker(settings: Settings, store: Callable[[], MongoTaskStore], role: str) -> RabbitTaskBroker:
    """The queue on RabbitMQ; when it comes back after it was away, the tasks that it missed are sent to it. The `store`
    is asked for then: the queue can be opened before it."""

    def on_reconnect() -> None:
        threading.Thread(target=send_missed, name="send-missed", daemon=True).start()

    def send_missed() -> None:
        from sluice.sweep import send_unqueued

        try:
            send_unqueued(store(), broker, settings.publish_timeout_seconds)
        except Unavailable as error:
            log.info("sending the tasks that the queue missed later: %s", error)

    broker = RabbitTaskBroker(
        reveal(settings.rabbitmq_url),
        topology(settings),
        name=f"sluice {role} {socket.gethostname()} {os.getpid()}",
        timeout=settings.publish_timeout_seconds,
        on_reconnect=on_reconnect,
    )
    return broker


def topology(settings: Settings) -> Topology:
    return Topology(settings.task_queue, settings.task_ttl_seconds, is_ours=settings.declare_queues)
