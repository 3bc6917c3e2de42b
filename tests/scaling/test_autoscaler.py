from __future__ import annotations

from dataclasses import replace

import pytest

from sluice.broker import Topology
from sluice.settings import Settings
from tests.scaling.autoscaler import Autoscaler
from tests.scaling.cluster import ENGINE, SCALED_OBJECT
from tests.scaling.examples import scaled_object
from tests.scaling.keda import Readings
from tests.scaling.node import read_pod_template
from tests.scaling.scaled_object import read_scaled_object
from tests.scaling.simulation import START_SECONDS, Simulation, Task, mixed_hour
from tests.scaling.trials import with_amqp_only

OURS = read_scaled_object(SCALED_OBJECT)


class Fixed:
    """A Deployment whose pods are there at once, and a queue that is as long as it is told."""

    def __init__(self, *readings: float) -> None:
        self.replicas = 0
        self.readings: Readings = readings

    @property
    def created(self) -> int:
        return self.replicas

    def scale(self, replicas: int) -> None:
        self.replicas = replicas


def test_keda_polls_and_the_hpa_syncs_each_at_its_own_pace() -> None:
    queue = Fixed(40)
    scaled = scaled_object("amqp", behavior={}, pollingInterval=2, cooldownPeriod=60)
    scaler = Autoscaler(scaled, queue, lambda: queue.readings, 0.0, hpa_after=5.0)
    while scaler.next_at <= 21:
        scaler.turn(scaler.next_at)
    assert [one.at for one in scaler.decisions if one.who == "KEDA"] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    assert [one.at for one in scaler.decisions if one.who == "HPA"] == [5, 20]
    assert [(one.at, one.after) for one in scaler.decisions if one.before != one.after] == [(0, 1), (5, 4)]


def test_the_file_in_keda_is_what_the_engine_and_the_queues_are() -> None:
    queues = Topology(Settings().task_queue)
    assert OURS.target == "engine"
    assert {(one.protocol, one.queue) for one in OURS.triggers} == {
        ("amqp", queues.tasks.name),
        ("http", queues.tasks.name),
        ("amqp", queues.dead.name),
    }
    held = {one.value for one in OURS.triggers if one.queue == queues.tasks.name}
    assert held == {Settings().engine_concurrency}
    assert OURS.min_replicas == 0


def test_a_burst_gets_all_engines_at_one_sync() -> None:
    assert OURS.behavior is not None
    assert OURS.behavior.up.window == 0
    assert max(policy.value for policy in OURS.behavior.up.policies) >= OURS.max_replicas


def test_the_cooldown_outlives_a_count_that_is_wrongly_zero() -> None:
    """After a restart of RabbitMQ the management API's count reads as zero for up to ten seconds."""
    assert OURS.cooldown >= 30


def test_a_pod_is_given_longer_than_its_engine_takes_to_finish() -> None:
    assert read_pod_template(ENGINE).grace > Settings().engine_grace_seconds


def test_a_task_in_a_quiet_hour_starts_within_a_poll_and_an_engine_s_start() -> None:
    result = Simulation(OURS, [Task(100.0, 2.0)]).run()
    assert result.starts == 1
    assert START_SECONDS <= result.wait(1) <= START_SECONDS + OURS.polling
    assert result.cold_waits == result.waits


def test_all_engines_of_a_burst_are_gone_a_cooldown_after_it() -> None:
    result = Simulation(OURS, [Task(100.0, 2.0) for _ in range(500)]).run()
    assert len(result.waits) == 500
    assert result.starts == OURS.max_replicas
    assert result.stopped_in_mid_work == 0
    last_end = 100 + result.wait(1) + 2
    assert OURS.cooldown - 1 <= result.seconds - last_end <= OURS.cooldown + 2 * OURS.polling


@pytest.mark.parametrize(("cured", "expected"), [(False, True), (True, False)], ids=["amqp alone", "all triggers"])
def test_only_a_trigger_that_sees_what_engines_hold_keeps_them_at_work(cured: bool, expected: bool) -> None:
    scaled = OURS if cured else with_amqp_only(OURS)
    result = Simulation(scaled, [Task(100.0, 120.0) for _ in range(35)]).run()
    assert (result.stopped_in_mid_work > 0) is expected


def test_a_longer_window_takes_fewer_engines_from_their_work() -> None:
    assert OURS.behavior is not None
    hasty = replace(OURS, behavior=replace(OURS.behavior, down=replace(OURS.behavior.down, window=0.0)))
    ours, theirs = (Simulation(scaled, mixed_hour(1), 1).run() for scaled in (OURS, hasty))
    assert ours.stopped_in_mid_work < theirs.stopped_in_mid_work
    assert ours.starts < theirs.starts
