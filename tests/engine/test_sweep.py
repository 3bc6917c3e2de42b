"""The sweep mends what is lost, and leaves alone what only waits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from functions.engine.worker import Settled, Unreadable
from sluice.broker import Topology
from sluice.errors import Unavailable
from sluice.memory import InMemoryTaskBroker
from sluice.sweep import resend_lost, send_unqueued
from sluice.task import Task, utc_now
from tests.engine.doubles import Bench, a_task, message_of


@pytest.fixture
def broker() -> Iterator[InMemoryTaskBroker]:
    broker = InMemoryTaskBroker(Topology())
    yield broker
    broker.close()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def queued(bench: Bench, seconds_ago: float) -> Task:
    return bench.stored(queued_at=utc_now() - timedelta(seconds=seconds_ago))


def waiting(broker: InMemoryTaskBroker) -> int:
    return broker.ready(broker.topology.tasks)


def test_with_an_empty_queue_what_was_sent_long_ago_is_lost(bench: Bench, broker: InMemoryTaskBroker) -> None:
    queued(bench, 30)
    queued(bench, 5)
    resend_lost(bench.store, broker, 1)
    assert waiting(broker) == 1


def test_with_a_backlog_what_was_sent_long_before_what_is_taken_now_is_lost(
    bench: Bench, broker: InMemoryTaskBroker
) -> None:
    queued(bench, 100)
    broker.send(message_of(a_task()), broker.topology.tasks)
    resend_lost(bench.store, broker, 1)
    assert waiting(broker) == 1, "who has taken nothing can't tell"
    resend_lost(bench.store, broker, 1, reached=utc_now() - timedelta(seconds=95))
    assert waiting(broker) == 1, "its turn may be yet to come"
    resend_lost(bench.store, broker, 1, reached=utc_now() - timedelta(seconds=50))
    assert waiting(broker) == 2


def test_what_the_sweep_has_won_is_sent_though_the_database_goes_away(
    bench: Bench, broker: InMemoryTaskBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        bench.stored(queued_at=None)
    store = bench.store
    marked = store.mark_queued
    calls: list[Task] = []

    def mark(task: Task, at: object) -> bool:
        calls.append(task)
        if len(calls) == 3:
            bench.database.away = {"all"}
        return marked(task, at)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "mark_queued", mark)
    send_unqueued(store, broker, 1)
    assert waiting(broker) == 2
    bench.database.away = set()
    send_unqueued(bench.store, broker, 1)
    assert waiting(broker) == 3


def test_a_queue_that_is_away_leaves_the_tasks_for_the_next_round(bench: Bench, broker: InMemoryTaskBroker) -> None:
    task = bench.stored(queued_at=None)
    broker.close()
    with pytest.raises(Unavailable):
        send_unqueued(bench.store, broker, 1)
    assert bench.now(task).queued_at is None


def test_the_message_of_an_expired_task_does_not_blame_an_engine_that_never_was(bench: Bench) -> None:
    """A task that was completed, retried by a person, and then taken by nobody."""
    task = bench.stored(attempts=3, started_at=None, deadline=bench.clock.now)
    assert bench.worker(lambda *_: {}).work(message_of(task)) == Settled()
    assert "No engine could take the task" in bench.now(task).document["error"]["message"]


@pytest.mark.parametrize("strange", [{"attempts": 2**63 - 1}, {"attempts": -1}, {"text": [[[]]]}])
def test_a_message_with_what_no_task_has_is_unreadable_or_fails(bench: Bench, strange: dict[str, object]) -> None:
    nested: object = strange.get("text")
    for _ in range(900 if nested else 0):
        nested = [nested]
    message = message_of(a_task().replace(**({"text": nested} if nested else strange)))
    assert bench.worker(lambda *_: {}).work(message) == Unreadable()
    assert bench.worker(lambda *_: {}).bury(message) == Unreadable()
