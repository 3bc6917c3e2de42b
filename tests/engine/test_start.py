"""The engine connects to its queue before it knows that it can work: it takes nothing from it until it does."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from sluice.broker import Delivery, Message, Topology, publish
from sluice.rabbit import RabbitTaskBroker
from tests.servers.rabbit import RabbitNode
from tests.waiting import eventually


@pytest.fixture
def broker(rabbit: RabbitNode) -> Iterator[RabbitTaskBroker]:
    broker = RabbitTaskBroker(rabbit.url, Topology(f"test-{uuid.uuid4().hex[:8]}"))
    yield broker
    broker.close()


@pytest.fixture
def channel(rabbit: RabbitNode) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        yield connection.channel()


def is_declared(rabbit: RabbitNode, queue: str) -> bool:
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        try:
            connection.channel().queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
    return True


def test_a_consumer_that_is_prepared_has_its_queues_and_takes_no_message_before_it_is_told_to(
    rabbit: RabbitNode, broker: RabbitTaskBroker, channel: BlockingChannel
) -> None:
    deliveries: list[Delivery] = []
    tasks = broker.topology.tasks.name
    broker.prepare_to_consume()
    eventually(lambda: is_declared(rabbit, tasks))
    publish(broker, Message("one", b"{}"), broker.topology.tasks, 5)
    assert channel.queue_declare(tasks, passive=True).method.consumer_count == 0
    consumer = broker.consume(10, deliveries.append, deliveries.append)
    eventually(lambda: consumer.is_consuming)
    eventually(lambda: [delivery.message.id for delivery in deliveries] == ["one"])
    assert channel.queue_declare(tasks, passive=True).method.consumer_count == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_prepared_consumer_that_loses_its_connection_opens_it_again(
    rabbit: RabbitNode, broker: RabbitTaskBroker, moment: str
) -> None:
    deliveries: list[Delivery] = []
    broker.prepare_to_consume()
    eventually(lambda: is_declared(rabbit, broker.topology.queues[-1].name))
    if moment == "before":
        rabbit.kill()
        rabbit.start()
    consumer = broker.consume(10, deliveries.append, deliveries.append)
    if moment == "after":
        eventually(lambda: consumer.is_consuming)
        rabbit.kill()
        rabbit.start()
    eventually(lambda: consumer.is_consuming, 20)
    publish(broker, Message("one", b"{}"), broker.topology.tasks, 5)
    eventually(lambda: [delivery.message.id for delivery in deliveries] == ["one"])


def run_engine(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "functions.engine.main"]
    everything = {"OPENAI_API_KEY": "sk-offline", "HOST": "127.0.0.1", "PORT": "0", **environment}
    return subprocess.run(command, cwd=root, env=everything, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"MONGODB_URI": "mongodb://[::1"}, "The engine can't start: MONGODB_URI is not a URI"),
        ({"HOST": "192.0.2.1", "PORT": "1"}, "The engine can't listen on port 1: Cannot assign requested address"),
    ],
)
def test_an_engine_that_cannot_work_says_why_and_leaves_the_messages_where_they_are(
    rabbit: RabbitNode,
    broker: RabbitTaskBroker,
    channel: BlockingChannel,
    root: Path,
    wrong: dict[str, str],
    complaint: str,
) -> None:
    tasks = broker.topology.tasks.name
    publish(broker, Message("one", b"{}"), broker.topology.tasks, 5)
    settings = {"RABBITMQ_URL": rabbit.url, "MONGODB_URI": "mongodb://127.0.0.1:1", "TASK_QUEUE": tasks}
    engine = run_engine(root, **{**settings, **wrong})
    assert engine.returncode == 2
    assert engine.stderr.startswith(complaint), engine.stderr
    method, _, _ = channel.basic_get(tasks)
    assert method is not None
    assert not method.redelivered


def test_an_engine_that_cannot_work_does_not_wait_for_a_queue_that_is_away(root: Path) -> None:
    started = time.monotonic()
    engine = run_engine(root, RABBITMQ_URL="amqp://127.0.0.1:1", MONGODB_URI="mongodb://[::1")
    assert engine.returncode == 2
    assert "MONGODB_URI is not a URI" in engine.stderr
    assert time.monotonic() - started < 10


def test_a_signal_that_comes_before_the_engine_is_there_stops_it_cleanly(root: Path) -> None:
    """As the first process of a container has it: without a handler of its own, the kernel drops the signal."""
    program = """
import os, signal, sys
from functions.engine import main
connect = main.connect
def told_to_stop_while_connecting(*args, **more):
    os.kill(os.getpid(), signal.SIGTERM)
    return connect(*args, **more)
main.connect = told_to_stop_while_connecting
sys.exit(main.main())
"""
    services = {"RABBITMQ_URL": "amqp://127.0.0.1:1", "MONGODB_URI": "mongodb://127.0.0.1:1"}
    settings = {"OPENAI_API_KEY": "sk-offline", "HOST": "127.0.0.1", "PORT": "0", **services}
    command = [sys.executable, "-c", program]
    engine = subprocess.run(command, cwd=root, env=settings, capture_output=True, text=True, timeout=60)
    assert engine.returncode == 0, engine.stderr
    assert "stopped" in engine.stderr
