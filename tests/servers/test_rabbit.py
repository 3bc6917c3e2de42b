"""The private RabbitMQ node: what is confirmed stays, whatever is done to the node."""

import ipaddress
import json
import time
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from tests.servers import require
from tests.servers.ports import accepts_connections
from tests.servers.rabbit import RabbitNode, rabbitmq_missing


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    require(rabbitmq_missing())
    with RabbitNode(tmp_path_factory.mktemp("rabbit"), management=True) as node:
        yield node


@contextmanager
def channel(node: RabbitNode, parameters: str = "") -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(node.url + parameters))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel
    finally:
        if connection.is_open:
            connection.close()


def publish(channel: BlockingChannel, queue: str, *bodies: bytes) -> None:
    for body in bodies:
        persistent = pika.BasicProperties(delivery_mode=2)
        channel.basic_publish("", queue, body, persistent, mandatory=True)


def take(channel: BlockingChannel, queue: str, seconds: float = 10.0) -> bytes | None:
    """The next message, acknowledged: a queue may need a moment after its node has come back."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        method, _, body = channel.basic_get(queue)
        if method is not None:
            channel.basic_ack(method.delivery_tag)
            return body
        time.sleep(0.05)
    return None


def declare(channel: BlockingChannel, queue: str) -> None:
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})


def listening_addresses(pid: int) -> set[str]:
    """The addresses that the process listens on: the sockets among its files, looked up in the kernel's table."""
    links = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:  # 0A is LISTEN
                number = bytes.fromhex(fields[1].partition(":")[0])
                addresses.add(str(ipaddress.ip_address(number[::-1])))
    return addresses


def test_keeps_confirmed_messages_over_restart_and_kill(rabbit: RabbitNode) -> None:
    url, queue = rabbit.url, f"kept-{uuid.uuid4().hex[:8]}"
    with channel(rabbit) as c:
        declare(c, queue)
        publish(c, queue, b"1", b"2", b"3")
        assert take(c, queue) == b"1"
    rabbit.restart()
    with channel(rabbit) as c:
        assert take(c, queue) == b"2"
        publish(c, queue, b"4")
    rabbit.kill()
    assert not accepts_connections(rabbit.amqp_port)
    rabbit.start()
    with channel(rabbit) as c:
        assert [take(c, queue), take(c, queue)] == [b"3", b"4"]
        assert c.queue_declare(queue, passive=True).method.message_count == 0
        c.queue_delete(queue)
    assert rabbit.url == url


def test_is_silent_while_frozen_and_goes_on_when_thawed(node: RabbitNode) -> None:
    with channel(node) as c:
        declare(c, "frozen")
        node.freeze()
        try:
            with pytest.raises(AMQPConnectorStackTimeout), channel(node, "?socket_timeout=1&stack_timeout=1"):
                pass
        finally:
            node.thaw()  # pika would wait for ever for a frozen broker to take leave of `c`
        publish(c, "frozen", b"after")
        assert take(c, "frozen") == b"after"


def test_the_management_api_counts_within_seconds(node: RabbitNode) -> None:
    with channel(node) as c:
        declare(c, "counted")
        publish(c, "counted", b"1", b"2")
    request = urllib.request.Request(f"http://127.0.0.1:{node.management_port}/api/queues/%2F/counted")
    request.add_header("Authorization", "Basic " + b64encode(b"guest:guest").decode())
    deadline, count = time.monotonic() + 10, None
    while count != 2 and time.monotonic() < deadline:
        with urllib.request.urlopen(request, timeout=5) as answer:
            count = json.load(answer).get("messages")
        time.sleep(0.1)
    assert count == 2
    assert node.management_url.endswith(f":{node.management_port}")
    assert "counted" in node.ctl("list_queues", "name")


def test_raises_no_alarm_and_listens_on_loopback_alone(node: RabbitNode) -> None:
    assert node.ctl("eval", "rabbit_alarm:get_alarms().").strip() == "[]"
    assert listening_addresses(node.pid) == {"127.0.0.1"}


def test_two_nodes_stand_side_by_side_and_leave_nothing_behind(node: RabbitNode, tmp_path: Path) -> None:
    with RabbitNode(tmp_path) as other:
        with channel(other) as c:
            declare(c, "kept")
            publish(c, "kept", b"other")
        with channel(other) as c, pytest.raises(pika.exceptions.ChannelClosedByBroker):
            c.queue_declare("counted", passive=True)
        with pytest.raises(ValueError, match="without management"):
            _ = other.management_url
    assert not other.running
    assert not accepts_connections(other.amqp_port)
    with channel(node) as c:
        declare(c, "kept")
