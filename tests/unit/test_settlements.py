"""Settling deliveries in batches: whatever is settled together, each delivery becomes what was said of it, and no other
one is touched."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.rabbit.consumer import Settlements
from tests.examples import examples


class FakeLink:
    """Calls back when it is told to, as the connection's thread does when it comes round."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], None]] = deque()

    def call(self, callback: Callable[[], None]) -> bool:
        self.calls.append(callback)
        return True

    def turn(self) -> None:
        while self.calls:
            self.calls.popleft()()


class FakeChannel:
    """A channel, and what its broker makes of what it is told: "multiple" means this delivery and all before it."""

    is_open = True

    def __init__(self) -> None:
        self.held: list[int] = []
        self.frames: list[tuple[str, int, bool]] = []
        self.acknowledged: set[int] = set()
        self.requeued: set[int] = set()

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        assert tag in self.held, "a second settlement would end the channel"
        settled = {held for held in self.held if held <= tag} if multiple else {tag}
        self._settle("ack", tag, multiple, settled, self.acknowledged)

    def basic_nack(self, tag: int, multiple: bool = False, requeue: bool = True) -> None:
        assert tag in self.held, "a second settlement would end the channel"
        assert requeue
        assert not multiple
        self._settle("nack", tag, multiple, {tag}, self.requeued)

    def _settle(self, method: str, tag: int, multiple: bool, settled: set[int], into: set[int]) -> None:
        self.frames.append((method, tag, multiple))
        into |= settled
        self.held = [held for held in self.held if held not in settled]


class Desk:
    """Settlements of a channel, over a link that turns when it is told to."""

    def __init__(self, deliveries: int = 0) -> None:
        self.link, self.channel = FakeLink(), FakeChannel()
        self.settlements = Settlements(cast(Any, self.link), cast(Any, self.channel))
        self.settlements._acknowledge = self.channel.basic_ack  # type: ignore[method-assign]
        for tag in range(1, deliveries + 1):
            self.deliver(tag)

    def deliver(self, tag: int) -> None:
        self.channel.held.append(tag)
        self.settlements.expect(tag)

    def ack(self, *tags: int) -> None:
        for tag in tags:
            self.settlements.settle(tag, is_done=True)

    def requeue(self, tag: int) -> None:
        self.settlements.settle(tag, is_done=False)


def test_the_oldest_are_acknowledged_in_one_frame_and_the_connection_is_woken_once() -> None:
    desk = Desk(5)
    desk.ack(2, 1, 3)
    assert len(desk.link.calls) == 1
    desk.link.turn()
    assert desk.channel.frames == [("ack", 3, True)]
    assert desk.channel.held == [4, 5]


def test_one_behind_an_open_one_is_acknowledged_by_itself_and_at_once() -> None:
    desk = Desk(5)
    desk.ack(1, 2, 4)
    desk.link.turn()
    assert desk.channel.frames == [("ack", 2, True), ("ack", 4, False)]
    assert desk.channel.held == [3, 5]


def test_one_that_goes_back_is_not_acknowledged_with_those_around_it() -> None:
    desk = Desk(3)
    desk.ack(1, 3)
    desk.requeue(2)
    desk.link.turn()
    assert (desk.channel.acknowledged, desk.channel.requeued) == ({1, 3}, {2})


def test_a_second_settlement_does_nothing() -> None:
    desk = Desk(2)
    desk.ack(1)
    desk.link.turn()
    desk.requeue(1)
    desk.ack(1)
    desk.link.turn()
    assert desk.channel.frames == [("ack", 1, False)]


def test_settling_on_a_channel_that_is_gone_does_nothing() -> None:
    desk = Desk(2)
    desk.ack(1)
    desk.channel.is_open = False
    desk.requeue(2)
    desk.link.turn()
    assert desk.channel.frames == []


@given(
    st.lists(
        st.one_of(
            st.just("deliver"),
            st.just("turn"),
            st.tuples(st.sampled_from(["ack", "requeue"]), st.integers(0, 30)),
        ),
        max_size=80,
    )
)
@examples(200)
def test_each_delivery_becomes_what_was_said_of_it_whatever_goes_together(moves: list[Any]) -> None:
    desk, open_tags, latest = Desk(), list[int](), 0
    said: dict[str, set[int]] = {"ack": set(), "requeue": set()}
    for move in moves:
        if move == "deliver":
            latest += 1
            open_tags.append(latest)
            desk.deliver(latest)
        elif move == "turn":
            desk.link.turn()
            assert desk.channel.held == open_tags, "nothing waits for the next turn, and nothing else is settled"
        elif open_tags:
            what, pick = move
            tag = open_tags.pop(pick % len(open_tags))
            said[what].add(tag)
            getattr(desk, what)(tag)
    desk.link.turn()
    assert (desk.channel.acknowledged, desk.channel.requeued) == (said["ack"], said["requeue"])
    assert desk.channel.held == open_tags


@pytest.mark.usefixtures("hasty_threads")
def test_none_is_left_behind_when_many_threads_settle_while_the_connection_tells() -> None:
    desk = Desk(2_000)
    done = threading.Event()

    def turn() -> None:
        while not done.is_set():
            desk.link.turn()

    connection = threading.Thread(target=turn)
    connection.start()
    workers = [threading.Thread(target=desk.ack, args=range(1 + n, 2_001, 8)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    done.set()
    connection.join()
    desk.link.turn()
    assert desk.channel.held == []
