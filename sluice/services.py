"""What a process works with: its settings, the store and the broker. Made on first use, once in each process."""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import dataclass, field

from sluice.broker import TaskBroker, Topology
from sluice.logs import configure_logs
from sluice.rabbit import RabbitTaskBroker
from sluice.settings import Settings, reveal
from sluice.store import MongoTaskStore, open_mongodb

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    settings: Settings
    store: MongoTaskStore
    broker: TaskBroker
    #: What stands in for a service that is not configured, to be shown to people: {"model": "offline model"}.
    stand_ins: dict[str, str] = field(default_factory=dict)


_lock = threading.Lock()
_installed: dict[int, Services] = {}


def install(services: Services) -> None:
    """Make these the services of this process (the embedded mode does; everyone else connects by the settings)."""
    _installed[os.getpid()] = services


def services() -> Services:
    """The services of this process: forked processes never share a connection. Raises InvalidSettings."""
    found = _installed.get(os.getpid())
    if found is None:
        with _lock:
            found = _installed.get(os.getpid())
            if found is None:
                found = _installed[os.getpid()] = connect(Settings.load(required=REQUIRED))
    return found


#: What every process needs to know.
REQUIRED = ("mongodb_uri", "rabbitmq_url")


def connect(settings: Settings, role: str = "function") -> Services:
    """The real services behind the settings. Nothing is connected before it is used."""
    store = open_store(settings, role)
    return Services(settings, store, open_broker(settings, store, role))


def open_store(settings: Settings, role: str) -> MongoTaskStore:
    return open_mongodb(
        reveal(settings.mongodb_uri),
        settings.mongodb_database,
        timeout=settings.store_timeout_seconds,
        name=f"sluice {role}",
    )


def open_broker(settings: Settings, store: MongoTaskStore, role: str) -> RabbitTaskBroker:
    """The queue on RabbitMQ; when it comes back after it was away, the tasks that it missed are sent to it."""

    def on_reconnect() -> None:
        threading.Thread(target=send_missed, name="send-missed", daemon=True).start()

    def send_missed() -> None:
        from sluice.sweep import send_unqueued

        send_unqueued(store, broker, settings.publish_timeout_seconds)

    broker = RabbitTaskBroker(
        reveal(settings.rabbitmq_url),
        topology(settings),
        name=f"sluice {role} {socket.gethostname()} {os.getpid()}",
        timeout=settings.publish_timeout_seconds,
        on_reconnect=on_reconnect,
    )
    return broker


def topology(settings: Settings) -> Topology:
    return Topology(settings.task_queue, settings.task_ttl_seconds)


def check_settings() -> None:
    """Read the settings now, so that a process with wrong ones never starts. Raises InvalidSettings."""
    if os.getpid() not in _installed:
        settings = Settings.load(required=REQUIRED)
        configure_logs(settings.log_level, settings.log_format)
        connect(settings)
