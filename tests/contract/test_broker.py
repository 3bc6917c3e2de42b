"""What every broker promises, held against the one in memory and against a real RabbitMQ."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sluice.broker import DELIVERY_LIMIT, Consumer, Delivery, Message, TaskBroker, Topology, publish
from sluice.memory import InMemoryTaskBroker
from sluice.rabbit import RabbitTaskBroker
from tests.waiting import eventually

MakeBroker = Callable[..., TaskBroker]


@pytest.fixture(params=["memory", "rabbitmq", "rabbitmq on a loop"])
def make_broker(request: pytest.FixtureRequest) -> Iterator[MakeBroker]:
    """Makes brokers on queues of this test's own; the same name makes another client of the same queues."""
    loop = request.getfixturevalue("loop") if request.param == "rabbitmq on a loop" else None
    brokers: list[TaskBroker] = []
    in_memory: dict[str, InMemoryTaskBroker] = {}
    default = f"test-{uuid.uuid4().hex[:8]}"

    def make(*, ttl: int = 300, name: str = default) -> TaskBroker:
        topology = Topology(name, ttl)
        broker: TaskBroker
        if request.param == "memory":
            broker = in_memory[name] = in_memory.get(name) or InMemoryTaskBroker(topology)
        else:
            broker = on_rabbit = RabbitTaskBroker(request.getfixturevalue("rabbit").url, topology)
            if loop is not None:
                on_rabbit.publish_on(loop)
        brokers.append(broker)
        return broker

    yield make
    for broker in dict.fromkeys(brokers):
        broker.close()


class Inbox:
    """Keeps what is delivered."""

    def __init__(self) -> None:
        self.tasks: list[Delivery] = []
        self.dead: list[Delivery] = []

    def consume(self, broker: TaskBroker, prefetch: int = 10) -> Consumer:
        return broker.consume(prefetch, self.tasks.append, self.dead.append)

    @property
    def ids(self) -> list[str]:
        return [delivery.message.id for delivery in self.tasks]


def message(name: str = "one") -> Message:
    return Message(name, b'{"a": 1}', {"x-request-id": "r1"})


def send(broker: TaskBroker, *names: str) -> None:
    for name in names:
        publish(broker, message(name), broker.topology.tasks, timeout=10)


def test_a_message_arrives_as_it_was_sent(make_broker: MakeBroker) -> None:
    broker, inbox = make_broker(), Inbox()
    send(broker, "one")
    consumer = inbox.consume(broker)
    delivery = eventually(lambda: inbox.tasks and inbox.tasks[0])
    assert delivery.message == message("one")
    delivery.ack()
    assert eventually(lambda: consumer.is_consuming)
    assert consumer.is_alive


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 131_064, 131_065, 1_000_000])
def test_a_body_of_any_size_arrives_whole(make_broker: MakeBroker, size: int) -> None:
    broker, inbox = make_broker(), Inbox()
    inbox.consume(broker)
    sent = Message("one", bytes(range(256)) * (size // 256) + b"x" * (size % 256), {"x-request-id": "𝄞"})
    publish(broker, sent, broker.topology.tasks, timeout=10)
    assert eventually(lambda: inbox.tasks and inbox.tasks[0]).message == sent


def test_many_threads_send_at_once_and_each_message_arrives_once(make_broker: MakeBroker) -> None:
    broker, inbox = make_broker(), Inbox()
    names = [f"{thread}-{number}" for thread in range(16) for number in range(50)]
    with ThreadPoolExecutor(16) as pool:
        for thread in range(16):
            pool.submit(send, broker, *names[thread * 50 : thread * 50 + 50])
    inbox.consume(broker, prefetch=1000)
    eventually(lambda: len(inbox.tasks) == len(names))
    assert sorted(inbox.ids) == sorted(names)
    for thread in range(16):
        mine = [name for name in inbox.ids if name.startswith(f"{thread}-")]
        assert mine == names[thread * 50 : thread * 50 + 50]


def test_one_event_loop_sends_for_many(make_broker: MakeBroker) -> None:
    broker = make_broker()

    async def send_all() -> list[None]:
        return await asyncio.gather(
            *(asyncio.wrap_future(broker.send(message(str(number)), broker.topology.tasks)) for number in range(200))
        )

    assert asyncio.run(send_all()) == [None] * 200
    assert broker.ready(broker.topology.tasks) == 200


def test_no_more_messages_are_handed_out_than_prefetch_allows(make_broker: MakeBroker) -> None:
    broker, inbox = make_broker(), Inbox()
    send(broker, *map(str, range(15)))
    inbox.consume(broker, prefetch=10)
    eventually(lambda: len(inbox.tasks) == 10 and broker.ready(broker.topology.tasks) == 5)
    inbox.tasks[3].ack()
    eventually(lambda: len(inbox.tasks) == 11)
    assert broker.ready(broker.topology.tasks) == 4


def test_messages_come_in_the_order_in_which_they_were_sent(make_broker: MakeBroker) -> None:
    broker, inbox = make_broker(), Inbox()
    names = [str(number) for number in range(50)]
    send(broker, *names)
    inbox.consume(broker, prefetch=50)
    eventually(lambda: len(inbox.tasks) == 50)
    assert inbox.ids == names


def test_what_a_consumer_has_not_acknowledged_goes_to_the_next_one(make_broker: MakeBroker) -> None:
    broker, first, second = make_broker(), Inbox(), Inbox()
    send(broker, "one", "two")
    consumer = first.consume(broker)
    eventually(lambda: len(first.tasks) == 2)
    first.tasks[0].ack()
    consumer.close()
    second.consume(broker)
    eventually(lambda: second.ids == ["two"])


def test_settling_after_the_consumer_has_closed_does_nothing(make_broker: MakeBroker) -> None:
    broker, first, second = make_broker(), Inbox(), Inbox()
    send(broker, "one")
    consumer = first.consume(broker)
    eventually(lambda: first.tasks)
    consumer.close()
    first.tasks[0].ack()
    second.consume(broker)
    eventually(lambda: second.ids == ["one"])


def test_a_requeued_message_is_handed_out_again(make_broker: MakeBroker) -> None:
    broker, inbox = make_broker(), Inbox()
    inbox.consume(broker)
    send(broker, "one")
    eventually(lambda: len(inbox.tasks) == 1)
    inbox.tasks[0].requeue()
    eventually(lambda: len(inbox.tasks) == 2)
    inbox.tasks[1].ack()
    eventually(lambda: broker.ready(broker.topology.tasks) == 0)
    assert inbox.ids == ["one", "one"]


def test_each_delivery_is_settled_alone_in_whatever_order_and_however_many_at_once(make_broker: MakeBroker) -> None:
    names = [str(number) for number in range(40)]
    broker, inbox, heir = make_broker(), Inbox(), Inbox()
    send(broker, *names)
    consumer = inbox.consume(broker, prefetch=40)
    eventually(lambda: len(inbox.tasks) == 40)
    deliveries = {delivery.message.id: delivery for delivery in inbox.tasks}
    acknowledged = [name for name in reversed(names) if int(name) % 4 != 1]
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda name: deliveries[name].ack(), acknowledged))
    inbox.tasks.clear()
    deliveries["1"].requeue()
    eventually(lambda: inbox.ids == ["1"])
    consumer.close()
    heir.consume(make_broker(), prefetch=40)
    eventually(lambda: sorted(heir.ids) == sorted(set(names) - set(acknowledged)))


def test_a_message_that_nobody_takes_expires_into_a_dead_letter(make_broker: MakeBroker) -> None:
    broker = make_broker(ttl=1)
    send(broker, "one")
    eventually(lambda: broker.ready(broker.topology.dead) == 1)
    assert broker.ready(broker.topology.tasks) == 0


def test_a_message_that_is_handed_out_does_not_expire_but_requeued_keeps_its_old_deadline(
    make_broker: MakeBroker,
) -> None:
    broker, inbox = make_broker(ttl=1), Inbox()
    consumer = inbox.consume(broker, prefetch=1)
    send(broker, "held", "waiting")
    sent = time.monotonic()
    eventually(lambda: inbox.ids == ["held"])
    eventually(lambda: inbox.dead and inbox.dead[0].message.id == "waiting")
    assert time.monotonic() - sent > 0.9
    assert len(inbox.dead) == 1
    consumer.cancel()
    inbox.tasks[0].requeue()
    eventually(lambda: broker.ready(broker.topology.dead) == 1)


def test_a_pause_brings_the_message_back_to_the_tasks_when_it_is_over(make_broker: MakeBroker) -> None:
    broker, inbox = make_broker(), Inbox()
    inbox.consume(broker)
    publish(broker, message("one"), broker.topology.wait_for(1), timeout=10)
    started = time.monotonic()
    eventually(lambda: inbox.ids == ["one"])
    assert time.monotonic() - started > 0.9


def test_a_message_may_pause_and_expire_and_pause_again_without_being_dropped(make_broker: MakeBroker) -> None:
    """RabbitMQ silently drops a message that has gone round by expiry alone. Ours is sent anew for each pause."""
    broker, inbox = make_broker(), Inbox()
    inbox.consume(broker)
    send(broker, "one")
    for turn in range(1, 4):
        eventually(lambda turn=turn: len(inbox.tasks) == turn)  # type: ignore[misc]
        publish(broker, inbox.tasks[-1].message, broker.topology.wait_for(1), timeout=10)
        inbox.tasks[-1].ack()
    eventually(lambda: len(inbox.tasks) == 4)


def test_a_cancelled_consumer_takes_no_more_but_can_settle_what_it_has(make_broker: MakeBroker) -> None:
    broker, inbox = make_broker(), Inbox()
    consumer = inbox.consume(broker)
    send(broker, "one")
    eventually(lambda: inbox.tasks)
    consumer.cancel()
    assert not consumer.is_consuming
    send(broker, "two")
    eventually(lambda: broker.ready(broker.topology.tasks) == 1)
    inbox.tasks[0].ack()
    consumer.close()
    eventually(lambda: broker.ready(broker.topology.tasks) == 1)
    assert inbox.ids == ["one"]


def test_a_message_that_is_handed_out_too_often_becomes_a_dead_letter(make_broker: MakeBroker) -> None:
    broker, inbox = make_broker(), Inbox()
    broker.consume(1, lambda delivery: (inbox.tasks.append(delivery), delivery.requeue())[0], inbox.dead.append)
    send(broker, "one")
    eventually(lambda: inbox.dead)
    assert len(inbox.tasks) == DELIVERY_LIMIT + 1


def test_many_threads_send_and_many_consumers_take_and_each_message_arrives_once(make_broker: MakeBroker) -> None:
    broker = make_broker()
    inboxes = [Inbox() for _ in range(3)]
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def take(delivery: Delivery) -> None:
        with lock:
            seen[delivery.message.id] += 1
        delivery.ack()

    for inbox in inboxes:
        broker.consume(10, take, inbox.dead.append)
    names = [str(number) for number in range(1000)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: send(broker, name), names))
    eventually(lambda: len(seen) == len(names))
    assert set(seen.values()) == {1}


def test_deliveries_of_tasks_and_of_dead_letters_do_not_take_each_others_places(make_broker: MakeBroker) -> None:
    broker, inbox = make_broker(), Inbox()
    inbox.consume(broker, prefetch=2)
    send(broker, "one", "two", "three")
    eventually(lambda: len(inbox.tasks) == 2)
    publish(broker, message("dead"), broker.topology.dead, timeout=10)
    eventually(lambda: inbox.dead)


def test_pauses_are_split_over_the_wait_queues_that_exist() -> None:
    topology = Topology()
    for seconds in itertools.chain(range(1, 400), [0, 0.2, 1.5, 9.7]):
        pause = topology.wait_for(seconds).ttl_seconds
        assert pause is not None
        assert pause <= max(1, seconds + 1)
    assert topology.wait_for(37).name == "tasks.retry.30"
    assert topology.wait_for(9.3).name == "tasks.retry.10"
