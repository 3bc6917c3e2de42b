"""What only a real RabbitMQ can do to us: restart, freeze, disagree, lose its queues."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

import pika
import pytest

from sluice.broker import Delivery, Message, Topology, publish
from sluice.errors import BrokerUnavailable, InvalidSettings
from sluice.rabbit import RabbitTaskBroker, declare_topology, publisher, wire
from tests.servers.rabbit import RabbitNode
from tests.waiting import eventually

MakeBroker = Callable[..., RabbitTaskBroker]


@contextmanager
def making(rabbit: RabbitNode, loop: asyncio.AbstractEventLoop | None) -> Iterator[MakeBroker]:
    """Makes brokers that share their queues, and publish on this loop, or else on threads of their own."""
    brokers = []
    name = f"test-{uuid.uuid4().hex[:8]}"

    def make(*, ttl: int = 300, on_reconnect: Callable[[], None] = lambda: None) -> RabbitTaskBroker:
        brokers.append(RabbitTaskBroker(rabbit.url, Topology(name, ttl), timeout=2, on_reconnect=on_reconnect))
        if loop is not None:
            brokers[-1].publish_on(loop)
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.close()


@pytest.fixture(params=["on a thread", "on a loop"])
def make_broker(rabbit: RabbitNode, request: pytest.FixtureRequest) -> Iterator[MakeBroker]:
    with making(rabbit, request.getfixturevalue("loop") if request.param == "on a loop" else None) as make:
        yield make


class Client:
    """A broker, what its consumer was given, and how often it has connected. It acknowledges unless it is told not
    to."""

    def __init__(self, make: MakeBroker, *, acknowledges: bool = True) -> None:
        self.deliveries: list[Delivery] = []
        self.reconnects = 0
        self._acknowledges = acknowledges
        self.broker = make(on_reconnect=self._count)
        self.consumer = self.broker.consume(10, self._take, lambda _: None)

    def _count(self) -> None:
        self.reconnects += 1

    def _take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self._acknowledges:
            delivery.ack()

    @property
    def taken(self) -> list[str]:
        return [delivery.message.id for delivery in self.deliveries]


@pytest.fixture
def makers(rabbit: RabbitNode, loop: asyncio.AbstractEventLoop) -> Iterator[list[MakeBroker]]:
    """One on a thread, and one on a loop, with queues of their own: a restart takes seconds, and is for both."""
    with making(rabbit, None) as on_a_thread, making(rabbit, loop) as on_a_loop:
        yield [on_a_thread, on_a_loop]


def send(broker: RabbitTaskBroker, name: str, timeout: float = 5) -> None:
    publish(broker, Message(name, b"{}"), broker.topology.tasks, timeout)


def test_confirmed_messages_survive_a_restart_and_consumer_and_publisher_come_back_by_themselves(
    rabbit: RabbitNode, makers: list[MakeBroker]
) -> None:
    clients = [Client(make) for make in makers]
    for client in clients:
        send(client.broker, "before")
    eventually(lambda: all(client.taken == ["before"] for client in clients))
    rabbit.stop()
    eventually(lambda: not any(client.consumer.is_consuming for client in clients))
    for client in clients:
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            send(client.broker, "meanwhile")
        assert time.monotonic() - started < 0.5, "a broker that is known to be away must be reported at once"
        with pytest.raises(BrokerUnavailable):
            client.broker.ready(client.broker.topology.tasks)
        assert client.consumer.is_alive
    rabbit.start()
    up = time.monotonic()
    eventually(lambda: all(client.consumer.is_consuming and client.broker.is_connected for client in clients), 5)
    assert time.monotonic() - up < 5
    for client in clients:
        send(client.broker, "after")
    eventually(lambda: all(client.taken == ["before", "after"] for client in clients))
    assert [client.reconnects for client in clients] == [2, 2]


def test_a_killed_broker_gives_back_what_was_not_acknowledged(rabbit: RabbitNode, makers: list[MakeBroker]) -> None:
    clients = [Client(make, acknowledges=False) for make in makers]
    for client in clients:
        send(client.broker, "one")
    eventually(lambda: all(len(client.deliveries) == 1 for client in clients))
    rabbit.kill()
    rabbit.start()
    eventually(lambda: all(len(client.deliveries) == 2 for client in clients), 20)
    for client in clients:
        client.deliveries[0].ack()  # of the old connection: nothing happens
        client.deliveries[1].ack()
    eventually(lambda: all(client.broker.is_connected for client in clients))
    eventually(lambda: all(client.broker.ready(client.broker.topology.tasks) == 0 for client in clients))


def test_a_frozen_broker_costs_a_publisher_its_timeout_and_no_more(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    broker = make_broker()
    send(broker, "one")
    rabbit.freeze()
    try:
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            send(broker, "two", timeout=0.5)
        assert 0.4 < time.monotonic() - started < 2
    finally:
        rabbit.thaw()
    eventually(lambda: _can_send(broker), 30)


def _can_send(broker: RabbitTaskBroker) -> bool:
    try:
        send(broker, "again", timeout=1)
    except BrokerUnavailable:
        return False
    return True


def test_a_broker_that_is_away_from_the_start_is_reported_within_the_timeout(free_port: int) -> None:
    broker = RabbitTaskBroker(f"amqp://guest:guest@127.0.0.1:{free_port}/%2F", Topology())
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        send(broker, "one", timeout=2)
    assert time.monotonic() - started < 2.5
    broker.close()


def test_a_queue_with_another_ttl_is_used_as_it_is_and_said_so(
    make_broker: MakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    send(make_broker(ttl=300), "one")
    with caplog.at_level(logging.ERROR, "sluice.rabbit"):
        other = make_broker(ttl=60)
        send(other, "two")
    assert f"queue {other.topology.tasks.name} exists with other arguments" in caplog.text
    assert other.ready(other.topology.tasks) == 2


def test_deleted_queues_are_declared_again(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    broker = make_broker()
    deliveries: list[Delivery] = []
    consumer = broker.consume(10, deliveries.append, lambda _: None)
    send(broker, "one")
    eventually(lambda: len(deliveries) == 1)
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        channel = connection.channel()
        for queue in broker.topology.queues:
            channel.queue_delete(queue.name)
    eventually(lambda: _can_send(broker) and consumer.is_consuming and len(deliveries) >= 2, 15)


def test_an_unroutable_message_is_an_error_not_a_loss(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    broker = make_broker()
    send(broker, "one")
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        connection.channel().queue_delete(broker.topology.unreadable.name)
    with pytest.raises(BrokerUnavailable, match="does not exist"):
        publish(broker, Message("x", b"{}"), broker.topology.unreadable, 5)
    eventually(lambda: _can_send(broker))


def test_the_topology_can_be_declared_on_a_blocking_channel_too(rabbit: RabbitNode) -> None:
    topology = Topology(f"test-{uuid.uuid4().hex[:8]}")
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        declare_topology(connection.channel(), topology)
        for queue in topology.queues:
            connection.channel().queue_declare(queue.name, passive=True)


def test_on_a_loop_no_thread_is_added_and_a_turn_is_one_write(
    rabbit: RabbitNode, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    write = publisher.write
    monkeypatch.setattr(
        publisher, "write", lambda channel, frames: (pieces.append(len(frames)), write(channel, frames))
    )
    broker = RabbitTaskBroker(rabbit.url, Topology(f"test-{uuid.uuid4().hex[:8]}"))
    before = set(threading.enumerate())
    broker.publish_on(loop)

    async def send_all() -> None:
        sent = [broker.send(Message(str(number), b"{}"), broker.topology.tasks) for number in range(50)]
        await asyncio.gather(*map(asyncio.wrap_future, sent))

    send(broker, "first")
    asyncio.run_coroutine_threadsafe(send_all(), loop).result(10)
    assert pieces == [1, 50]
    assert set(threading.enumerate()) == before

    loop.call_soon_threadsafe(broker.close)
    eventually(lambda: not broker.is_connected)


def test_on_a_loop_a_broker_that_is_closed_while_it_connects_lets_go_of_its_connection(
    rabbit: RabbitNode, loop: asyncio.AbstractEventLoop
) -> None:
    broker = RabbitTaskBroker(rabbit.url, Topology(f"test-{uuid.uuid4().hex[:8]}"))
    broker.publish_on(loop)

    async def connect_and_close() -> bool:
        assert not broker.is_connected
        await asyncio.sleep(0)
        has_begun = broker._publisher._link._connection is not None
        broker.close()
        return has_begun

    assert asyncio.run_coroutine_threadsafe(connect_and_close(), loop).result(10)
    eventually(lambda: not broker._publisher._link.is_alive)


def test_a_loop_that_is_closed_publishes_nothing_and_holds_nobody_up(rabbit: RabbitNode) -> None:
    broker = RabbitTaskBroker(rabbit.url, Topology(f"test-{uuid.uuid4().hex[:8]}"), timeout=0.2)

    async def publish_one() -> None:
        broker.publish_on(asyncio.get_running_loop())
        sent = broker.send(Message("first", b"{}"), broker.topology.tasks)
        await asyncio.wait_for(asyncio.wrap_future(sent), 10)

    asyncio.run(publish_one())
    broker._publisher._link._connection._transport._sock.close()
    with pytest.raises(BrokerUnavailable):
        send(broker, "late", timeout=0.2)
    with pytest.raises(BrokerUnavailable):
        broker.ready(broker.topology.tasks)
    broker.close()


def test_a_message_taken_back_before_it_was_sent_never_is(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    broker = make_broker()
    future = broker.send(Message("taken-back", b"{}"), broker.topology.tasks)  # not connected yet: it waits
    if future.cancel():
        send(broker, "other")
        assert broker.ready(broker.topology.tasks) == 1
    else:
        assert future.result(5) is None


@contextmanager
def one_batch(broker: RabbitTaskBroker) -> Iterator[None]:
    """What is sent in here is written together, once it is over: the connection's thread is busy."""
    send(broker, "first")
    is_busy, go_on = threading.Event(), threading.Event()

    def be_busy() -> None:
        is_busy.set()
        go_on.wait(10)

    assert broker._publisher._link.call(be_busy)
    assert is_busy.wait(10)
    yield
    go_on.set()


def _nothing_waits(broker: RabbitTaskBroker) -> bool:
    state = broker._publisher
    return (state._count, state._bytes, state._waiting, state._unconfirmed) == (0, 0, [], {}) and not state._unroutable


def test_messages_that_wait_are_written_in_one_piece(make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """This leans on what pika does not promise (`sluice.rabbit.wire`)."""
    broker, pieces = make_broker(), []
    write_piece = wire._write_piece
    with one_batch(broker):
        futures = [broker.send(Message(str(number), b"x" * 400), broker.topology.tasks) for number in range(100)]
        monkeypatch.setattr(wire, "_write_piece", lambda *piece: (pieces.append(len(piece[1])), write_piece(*piece)))
        emit = pika.SelectConnection._adapter_emit_data
        buffered: list[bytes] = []
        monkeypatch.setattr(
            pika.SelectConnection, "_adapter_emit_data", lambda self, data: (buffered.append(data), emit(self, data))
        )
    assert [future.result(5) for future in futures] == [None] * 100
    assert len(pieces) == 1
    assert pieces[0] > 100 * 400
    assert buffered == [], "it went to the socket at once"
    assert broker.ready(broker.topology.tasks) == 101
    assert _nothing_waits(broker)


def test_of_a_batch_what_is_taken_back_is_not_sent(make_broker: MakeBroker) -> None:
    broker = make_broker()
    with one_batch(broker):
        futures = [broker.send(Message(str(number), b"{}"), broker.topology.tasks) for number in range(4)]
        assert futures[0].cancel()
        assert futures[2].cancel()
    assert (futures[1].result(5), futures[3].result(5)) == (None, None)
    ids: list[str] = []
    broker.consume(10, lambda delivery: (ids.append(delivery.message.id), delivery.ack())[0], lambda _: None)
    eventually(lambda: ids == ["first", "1", "3"])
    assert _nothing_waits(broker)


def test_of_a_batch_each_unroutable_message_is_an_error(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    """The others may fail too, as the connection is opened afresh, but none is said to be kept that was not."""
    broker = make_broker()
    tasks, nowhere = broker.topology.tasks, broker.topology.unreadable
    send(broker, "before")
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        connection.channel().queue_delete(nowhere.name)
    with one_batch(broker):
        sent = {name: broker.send(Message(name, b"{}"), tasks) for name in ("one", "two")}
        lost = [broker.send(Message("same", b"{}"), nowhere) for _ in range(2)]
        sent["same"] = broker.send(Message("same", b"{}"), tasks)
    for future in lost:
        assert isinstance(future.exception(5), BrokerUnavailable)
    assert "does not exist" in str(lost[0].exception())
    kept = {name for name, future in sent.items() if future.exception(5) is None}
    eventually(lambda: broker.is_connected and _nothing_waits(broker))
    ids: list[str] = []
    broker.consume(10, lambda delivery: (ids.append(delivery.message.id), delivery.ack())[0], lambda _: None)
    eventually(lambda: kept <= set(ids))


def test_a_message_that_the_broker_refuses_is_an_error(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    broker = make_broker()
    send(broker, "one")
    rule = '{"max-length": 1, "overflow": "reject-publish"}'
    rabbit.ctl("set_policy", "full", f"^{broker.topology.tasks.name}$", rule)
    try:
        eventually(lambda: _is_refused(broker.send(Message("more", b"{}"), broker.topology.tasks)))
    finally:
        rabbit.ctl("clear_policy", "full")
    eventually(lambda: _nothing_waits(broker))


def _is_refused(future: Future[None]) -> bool:
    return "refused" in str(future.exception(5))


@pytest.mark.parametrize(("bound", "value"), [("MAX_UNCONFIRMED", 3), ("MAX_UNCONFIRMED_BYTES", 1000)])
def test_more_than_may_wait_is_refused_at_once(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    broker = make_broker()
    with one_batch(broker):
        monkeypatch.setattr(publisher, bound, value)
        futures = [broker.send(Message(str(number), b"x" * 400), broker.topology.tasks) for number in range(3)]
        with pytest.raises(BrokerUnavailable, match="too many"):
            broker.send(Message("more", b"x" * 400), broker.topology.tasks)
    assert [future.result(5) for future in futures] == [None] * 3
    send(broker, "room-again")
    assert _nothing_waits(broker)


def test_more_than_a_socket_takes_arrives_whole_and_in_order(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    """A broker that reads nothing for a while: the socket is full in the middle of a frame."""
    broker = make_broker()
    send(broker, "first")
    bodies = {str(number): bytes([65 + number % 26]) * (1000 + 20_000 * number) for number in range(40)}
    rabbit.freeze()
    try:
        futures = [broker.send(Message(name, body), broker.topology.tasks) for name, body in bodies.items()]
        time.sleep(0.3)
        futures += [broker.send(Message("small", b"{}"), broker.topology.tasks)]
    finally:
        rabbit.thaw()
    assert [future.result(10) for future in futures] == [None] * 41
    taken: list[Message] = []
    broker.consume(10, lambda delivery: (taken.append(delivery.message), delivery.ack())[0], lambda _: None)
    eventually(lambda: len(taken) == 42)
    assert [(message.id, message.body) for message in taken[1:-1]] == list(bodies.items())


def test_what_is_no_plain_socket_is_written_by_pika(make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with TLS."""

    class Plain:
        pass

    monkeypatch.setattr(wire, "_AsyncPlaintextTransport", Plain)
    broker = make_broker()
    futures = [broker.send(Message(str(number), b"x" * 40_000), broker.topology.tasks) for number in range(20)]
    assert [future.result(5) for future in futures] == [None] * 20
    assert broker.ready(broker.topology.tasks) == 20


def test_all_that_waits_for_a_broker_that_dies_is_told_at_once(rabbit: RabbitNode, makers: list[MakeBroker]) -> None:
    brokers = [make() for make in makers]
    for broker in brokers:
        send(broker, "first")
    rabbit.freeze()
    futures = [
        broker.send(Message(str(number), b"{}"), broker.topology.tasks) for broker in brokers for number in range(50)
    ]
    rabbit.thaw()
    rabbit.kill()
    rabbit.start()
    for future in futures:
        assert future.exception(5) is None or isinstance(future.exception(), BrokerUnavailable)
    for broker in brokers:
        eventually(partial(_can_send, broker), 15)
        assert _nothing_waits(broker)


def test_lost_connections_leave_no_threads_behind(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    broker = make_broker()
    consumer = broker.consume(10, lambda delivery: delivery.ack(), lambda _: None)
    send(broker, "one")
    before = threading.active_count()
    for _ in range(3):
        rabbit.ctl("close_all_connections", "test")
        eventually(lambda: _can_send(broker) and consumer.is_consuming, 10)
    assert threading.active_count() == before


@pytest.mark.parametrize("url", ["", "localhost", "http://guest:secret@localhost", "amqp://u:secret@host:port/"])
def test_a_wrong_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        RabbitTaskBroker(url, Topology())
    assert "secret" not in str(caught.value)


def test_a_header_that_pika_can_not_read_does_not_stop_the_line(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    broker = make_broker()
    taken: list[Message] = []

    def take(delivery: Delivery) -> None:
        taken.append(delivery.message)
        delivery.ack()

    send(broker, "first")
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        connection.channel().basic_publish("", broker.topology.tasks.name, b"{}", _Milliseconds("odd"))
    send(broker, "last")
    broker.consume(10, take, lambda _: None)
    eventually(lambda: len(taken) == 3)
    assert [message.id for message in taken] == ["first", "odd", "last"]
    assert taken[1].headers == {}


class _Milliseconds(pika.BasicProperties):
    """Has a timestamp header in milliseconds, as some clients write it: a year that datetime can't hold."""

    def __init__(self, name: str) -> None:
        super().__init__(message_id=name, headers={"sent": 1})

    def encode(self) -> list[bytes]:
        table = b"\x04sentT" + (1_780_000_000_000_000).to_bytes(8, "big")
        good = b"\x04sentI" + (1).to_bytes(4, "big")
        pieces: list[bytes] = super().encode()
        joined = b"".join(pieces)
        at = joined.index(good)
        return [joined[: at - 4], len(table).to_bytes(4, "big"), table, joined[at + len(good) :]]


def test_in_an_alarm_of_the_broker_a_publisher_is_told_at_once_and_nothing_is_sent_later(
    rabbit: RabbitNode, make_broker: MakeBroker
) -> None:
    broker = make_broker()
    send(broker, "before")
    rabbit.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        refused = 0
        for number in range(200):
            try:
                send(broker, f"during-{number}", timeout=0.5)
            except BrokerUnavailable:
                refused += 1
            if not broker.is_connected:
                break
        eventually(lambda: not broker.is_connected)
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            send(broker, "refused")
        assert time.monotonic() - started < 0.3
    finally:
        rabbit.ctl("set_vm_memory_high_watermark", "absolute", "2GB")
    eventually(lambda: _can_send(broker), 15)
    ids: list[str] = []
    broker.consume(10, lambda delivery: (ids.append(delivery.message.id), delivery.ack())[0], lambda _: None)
    eventually(lambda: "again" in ids)
    assert "refused" not in ids


def test_what_waits_to_be_sent_when_an_alarm_comes_is_told_at_once_and_never_sent(make_broker: MakeBroker) -> None:
    broker = make_broker()
    with one_batch(broker):
        futures = [broker.send(Message(str(number), b"{}"), broker.topology.tasks) for number in range(3)]
        assert futures[0].cancel()
        broker._publisher._turn_away()
    for future in futures[1:]:
        with pytest.raises(BrokerUnavailable, match="takes no messages now"):
            future.result(0)
    assert _nothing_waits(broker)
    broker._publisher._link.call(broker._publisher._welcome)
    eventually(lambda: _can_send(broker))
    assert broker.ready(broker.topology.tasks) == 2


def test_headers_nested_too_deep_to_read_do_not_stop_the_line(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    broker = make_broker()
    taken: list[Message] = []
    dead: list[Message] = []
    nested: list[object] = []
    for _ in range(400):
        nested = [nested]
    send(broker, "first")
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        properties = pika.BasicProperties(message_id="deep", headers={"x": nested})
        for queue in (broker.topology.tasks, broker.topology.dead):
            connection.channel().basic_publish("", queue.name, b"{}", properties)
    send(broker, "last")
    broker.consume(
        10,
        lambda delivery: (taken.append(delivery.message), delivery.ack())[0],
        lambda delivery: (dead.append(delivery.message), delivery.ack())[0],
    )
    eventually(lambda: len(taken) == 3 and len(dead) == 1)
    assert [message.id for message in taken] == ["first", "deep", "last"]


def test_a_foreign_queue_that_is_deleted_is_replaced_by_ours(rabbit: RabbitNode, make_broker: MakeBroker) -> None:
    send(make_broker(ttl=60), "one")
    broker = make_broker(ttl=120)
    send(broker, "two")
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        connection.channel().queue_delete(broker.topology.tasks.name)
    eventually(lambda: _can_send(broker), 10)


@pytest.fixture
def least(rabbit: RabbitNode) -> Iterator[str]:
    """The URL of a user who may read and write, but declare nothing."""
    rabbit.ctl("add_user", "least", "secret")
    rabbit.ctl("set_permissions", "least", "^$", ".*", ".*")
    yield rabbit.url.replace("guest:guest", "least:secret")
    rabbit.ctl("delete_user", "least")


def test_queues_that_somebody_else_declares_are_used_without_the_right_to_declare(
    rabbit: RabbitNode, make_broker: MakeBroker, least: str, caplog: pytest.LogCaptureFixture
) -> None:
    ours = make_broker()
    theirs = RabbitTaskBroker(least, Topology(ours.topology.tasks.name, is_ours=False))
    deliveries: list[Delivery] = []
    consumer = theirs.consume(10, deliveries.append, lambda _: None)
    try:
        with caplog.at_level(logging.ERROR, "sluice.rabbit"):
            eventually(lambda: "the queues can't be found" in caplog.text)
        assert not consumer.is_consuming, "nobody has declared them yet"
        send(ours, "one")
        eventually(lambda: len(deliveries) == 1)
        eventually(lambda: _can_send(theirs))
        assert theirs.ready(theirs.topology.tasks) == 0
    finally:
        theirs.close()
