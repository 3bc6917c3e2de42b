"""All of it in half a minute, in `make long-tests`: every time of the ScaledObject divided by SPEED. In real numbers:
`make scaling`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pika
import pika.exceptions
import pytest

from tests.scaling.cluster import SCALED_OBJECT, Cluster
from tests.scaling.scaled_object import read_scaled_object
from tests.scaling.scalers import Scalers
from tests.scaling.trials import outcome_of, wait_for_zero
from tests.servers import require
from tests.servers.nginx import nginx_missing
from tests.servers.rabbit import rabbitmq_missing
from tests.waiting import eventually

#: The cooldown is then 7.5 s, which must still be longer than the management API's count is old.
SPEED = 8.0

#: So many tasks that one engine can't hold them, and how long each takes in seconds.
TASKS, TASK_SECONDS = 40, 3.0

OURS = read_scaled_object(SCALED_OBJECT)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require(rabbitmq_missing())
    require(nginx_missing())
    with Cluster(tmp_path_factory.mktemp("cluster"), TASK_SECONDS, start_delay=0.2) as cluster:
        yield cluster


def test_keda_s_user_can_count_the_messages_but_make_and_remove_nothing(cluster: Cluster) -> None:
    scalers = Scalers(OURS.triggers, cluster.rabbit.keda_urls())
    assert scalers.read() == [0, 0, 0]
    with pika.BlockingConnection(pika.URLParameters(cluster.rabbit.url_of("engine"))) as connection:
        channel = connection.channel()
        channel.basic_publish("", "tasks", b"no task")
        eventually(lambda: scalers.read() == [1, 1, 0], 30)
        channel.basic_get("tasks", auto_ack=True)
    eventually(lambda: scalers.read() == [0, 0, 0], 30)
    scalers.close()
    with pika.BlockingConnection(pika.URLParameters(cluster.rabbit.keda_urls()["amqp"])) as connection:
        for forbidden in (
            lambda channel: channel.queue_declare("mine"),
            lambda channel: channel.queue_delete("tasks"),
            lambda channel: channel.basic_publish("", "tasks", b""),
        ):
            channel = connection.channel()
            channel.confirm_delivery()
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
                forbidden(channel)


def test_a_queue_that_is_not_there_is_an_error_and_the_rest_is_asked_all_the_same(cluster: Cluster) -> None:
    triggers = tuple(replace(one, queue="nowhere") if one.queue == "tasks.dead" else one for one in OURS.triggers)
    scalers = Scalers(triggers, cluster.rabbit.keda_urls())
    assert scalers.read() == [0, 0, None]
    scalers.close()


def test_a_broker_that_cannot_be_reached_is_not_an_empty_queue() -> None:
    scalers = Scalers(OURS.triggers, {"amqp": "amqp://localhost:1/%2F", "http": "http://localhost:1"})
    assert scalers.read() is None


def test_engines_come_with_the_queue_and_go_with_it(cluster: Cluster) -> None:
    scaled = OURS.faster(SPEED)
    with cluster.scale_by(scaled, SPEED) as scaling:
        for _ in range(TASKS):
            cluster.stack.add()
        eventually(lambda: cluster.node.replicas > 1, 30, "more engines than one")
        wait_for_zero(cluster, 90)
        seen = outcome_of(cluster, scaling.decisions)
    assert all(check.holds for check in seen.tasks_survive(TASKS)), seen.tasks_survive(TASKS)
    assert not any(pod.was_killed for pod in seen.pods)
