"""A machine that does everything to the core in every order, and looks at every step whether a promise is broken.

What it does it does to the real engine, service and sweep (`world`), whose threads take turns (`strands`); what must
hold is written down in `ledger`, and below.
"""

from __future__ import annotations

import sys
from collections import Counter
from datetime import timedelta
from typing import Any, TypeVar, get_args

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from functions.engine.handler import Failed, Retry
from functions.engine.isolation import Crashed
from sluice.broker import Message
from tests.examples import examples
from tests.machine.ledger import Outcome
from tests.machine.world import Handling, SendFault, SteppedEngine, World, WriteFault

T = TypeVar("T")

#: Seconds after the last deadline by which all must be at rest: a pause, a lease and a sweep.
PATIENCE = 180

#: Seconds in which a task is done when all is well again, whatever was before: two sweeps, and two pauses.
ENOUGH = 150

#: Tasks and engines at once.
MOST_TASKS, MOST_ENGINES = 5, 3

#: How a handler can end.
ENDS = ["well", "well", "retry", "fail", "retry much later", "break", "crash"]

#: What can happen to an engine.
HITS = ["is away for too long", "freezes", "loses its connection", "dies", "drains", "drains at once"]

#: Which of those that are there.
PICK = st.integers(0, 5)

#: After how many operations a turn is over, before what runs waits for something. Most turns are not cut short.
TURN = st.sampled_from([None, None, None, None, 1, 2, 3, 4, 6])

#: What has happened in all examples.
SEEN: Counter[str] = Counter()


class Sluice(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.how_it_ends = "well"

    @initialize(engines=st.integers(1, 2), how_it_ends=st.sampled_from(["well", "well", "well", "retry", "crash"]))
    def begin(self, engines: int, how_it_ends: str) -> None:
        """`how_it_ends` is what becomes of handlers when nothing else goes wrong any more."""
        self.how_it_ends = how_it_ends
        for _ in range(engines):
            self.world.hire()

    # --- people ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.ledger.versions) < MOST_TASKS)
    @rule(
        user=st.sampled_from(["ada", "bob"]),
        text=st.sampled_from(["one", "two"]),
        key=st.sampled_from([None, None, "k", "l"]),
        turn=TURN,
    )
    def add(self, user: str, text: str, key: str | None, turn: int | None) -> None:
        world = self.world
        there = [not world.broker.is_away, not world.database.away]
        is_fair = turn is None and world.broker.next_send is None and world.database.next_write is None
        before = len(world.ledger.versions), world.broker.messages().total()
        status = world.add(user, text, key, turn).status
        if is_fair and any(there):
            assert status == 202 or (status == 422 and key), f"answered {status}, with one of the two alive"
        if is_fair and not any(there):
            assert status == 503
            assert (len(world.ledger.versions), world.broker.messages().total()) == before, "something was kept"

    @precondition(lambda self: self.world.ledger.versions)
    @rule(pick=PICK, turn=TURN)
    def cancel(self, pick: int, turn: int | None) -> None:
        task_id = _pick(list(self.world.ledger.versions), pick)
        if self.world.cancel(task_id, turn).status == 200:
            latest = self.world.ledger.latest(task_id)
            assert latest is not None
            assert latest["status"] == "cancelled"

    @precondition(lambda self: self.over())
    @rule(pick=PICK, turn=TURN)
    def retry(self, pick: int, turn: int | None) -> None:
        self.world.retry(_pick(self.over(), pick), turn)

    @precondition(lambda self: self.world.calls)
    @rule(pick=PICK)
    def a_function_dies_in_the_middle(self, pick: int) -> None:
        _pick(self.world.calls, pick).strand.kill()

    def over(self) -> list[str]:
        ledger = self.world.ledger
        return [task_id for task_id in ledger.versions if ledger.is_over(task_id)]

    # --- engines -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.stage.waiting())
    @rule(first=PICK)
    def all_go_on(self, first: int) -> None:
        self.world.stage.run(first)

    @precondition(lambda self: self.world.stage.waiting())
    @rule(pick=PICK, turn=TURN)
    def one_goes_on(self, pick: int, turn: int | None) -> None:
        _pick(self.world.stage.waiting(), pick).go_on(turn)

    @precondition(lambda self: self.at_work())
    @rule(pick=PICK, how=st.sampled_from(ENDS), turn=TURN)
    def a_handler_ends(self, pick: int, how: str, turn: int | None) -> None:
        self.end(_pick(self.at_work(), pick), how, turn)

    @precondition(lambda self: len(self.world.engines) < MOST_ENGINES)
    @rule()
    def hire(self) -> None:
        self.world.hire()

    @precondition(lambda self: self.world.engines)
    @rule(pick=PICK, what=st.sampled_from(HITS))
    def an_engine(self, pick: int, what: str) -> None:
        """A frozen one is thawed by whatever happens to it next."""
        engine = _pick(self.world.engines, pick)
        was_frozen, engine.process.is_frozen = engine.process.is_frozen, what == "freezes"
        match what:
            case "dies":
                self.world.kill(engine)
            case "is away for too long":
                engine.process.is_frozen = True
                self.world.broker.cut(engine.consumer)
                self.world.let_pass(self.world.settings.lease_seconds + 1)
            case "loses its connection":
                engine.process.is_frozen = was_frozen
                self.world.broker.cut(engine.consumer)
            case "drains" | "drains at once" if not engine.is_draining:
                self.world.drain(engine, 30 if what == "drains" else 0)

    @rule(turn=TURN)
    def sweep(self, turn: int | None) -> None:
        self.world.sweep(turn)

    def at_work(self) -> list[Handling]:
        """The handlers that could end now."""
        return [handling for handling in self.world.handlings if not handling.strand.process.is_frozen]

    def engine_of(self, handling: Handling) -> SteppedEngine:
        return next(engine for engine in self.world.engines if engine.process is handling.strand.process)

    def end(self, handling: Handling, how: str, turn: int | None = None) -> None:
        if how == "crash" and not handling.is_apart:
            self.world.kill(self.engine_of(handling))
        else:
            self.world.end(handling, outcome(handling, how), turn)

    # --- time --------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.ledger.versions)
    @rule(seconds=st.sampled_from([1, 3, 11, 25, 60, 301]), how=st.sampled_from(["noticed", "unnoticed", "slowly"]))
    def time_passes(self, seconds: int, how: str) -> None:
        """At once, so that who should have said every second that it lives has not; or slowly."""
        rest = seconds if how != "slowly" else 0
        for _ in range(0, seconds - rest, 5):
            self.world.let_pass(5)
            self.world.stage.run()
        self.world.let_pass(rest)
        if how == "noticed":
            self.world.stage.run()

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.broker.messages())
    @rule(pick=PICK, what=st.sampled_from(["is duplicated", "is lost", "is no task"]))
    def a_message(self, pick: int, what: str) -> None:
        """Lost is only that of a task which the database knows: the queue loses none that it alone has."""
        match what:
            case "is duplicated":
                self.world.broker.duplicate(pick)
            case "is lost":
                self.world.bereft |= self.world.broker.lose(pick, self.world.ledger.versions.keys())
            case "is no task":
                self.world.broker.receive(Message("?", b"?"))

    @rule(fault=st.sampled_from([*get_args(SendFault), *get_args(WriteFault)]))
    def the_next_operation_goes_wrong(self, fault: Any) -> None:
        if fault in get_args(SendFault):
            self.world.broker.next_send = fault
        else:
            self.world.database.next_write = fault

    @rule(what=st.sampled_from(["queue", "database"]))
    def a_service_goes_away_or_comes_back(self, what: str) -> None:
        broker = self.world.broker
        if what == "database":
            self.world.database.away ^= {"all"}
        elif broker.is_away:
            broker.come_back()
            self.world.send_missed()
        else:
            broker.go_away()

    # --- what holds --------------------------------------------------------------------------------------------------

    @invariant()
    def every_promise_is_kept(self) -> None:
        assert not self.world.ledger.faults, "\n\n".join(self.world.ledger.faults)
        assert not (lost := self.world.lost()), f"nobody will find {', '.join(lost)}"

    def teardown(self) -> None:
        try:
            if sys.exception() is None:
                self.all_is_well_from_now_on()
        finally:
            self.world.close()
            SEEN.update(self.world.ledger.seen)

    def all_is_well_from_now_on(self) -> None:
        """Then every task comes to its end, soon after its time is over at the latest, and every queue is empty."""
        world = self.world
        world.mend()
        hopeful = [task_id for task_id in world.ledger.versions if world.ledger.has_time(task_id, ENOUGH)]
        limit = world.stage.time() + timedelta(seconds=world.settings.task_ttl_seconds + PATIENCE)
        while not world.is_at_rest() and world.stage.time() < limit:
            if all(engine.is_draining for engine in world.engines):
                world.hire()
            world.stage.run()
            for handling in list(world.handlings):
                if handling in world.handlings:  # another one may have killed its engine
                    self.end(handling, self.how_it_ends)
            world.let_pass(15)
            self.every_promise_is_kept()
        unfinished = [task_id for task_id in world.ledger.versions if not world.ledger.is_over(task_id)]
        assert not unfinished, f"never done: {', '.join(unfinished)}"
        statuses = {task_id: world.ledger.latest(task_id)["status"] for task_id in hopeful}
        assert self.how_it_ends != "well" or set(statuses.values()) <= {"completed"}, f"not done in time: {statuses}"
        assert world.ledger.accepted <= world.ledger.versions.keys(), "an accepted task is nowhere"
        assert world.is_at_rest(), f"left over: {world.broker.messages()}"
        assert set(world.broker.unreadable()) <= {"?"}


def outcome(handling: Handling, how: str) -> Outcome:
    """What a handler ends with. Everything names its attempt."""
    attempt = handling.step.attempt
    match how:
        case "well":
            return {"message": f"the whole of attempt {attempt}"}
        case "fail":
            return Failed("no_good", f"attempt {attempt} was no good")
        case "retry":
            return Retry("busy", f"attempt {attempt} found it busy")
        case "retry much later":
            return Retry("busy", f"attempt {attempt} found it very busy", after=200)
        case "crash":
            return Crashed("signal SIGKILL")
    return ValueError("the handler is broken")


def _pick(there: list[T], pick: int) -> T:
    return there[pick % len(there)]


#: What every long run comes across, or else the machine has lost its way.
OFTEN = {
    "cancelled",
    "came too late",
    "completed",
    "failed: crashed",
    "failed: expired",
    "failed: internal_error",
    "failed: no_good",
    "failed: timed_out",
    "pending: busy",
    "pending: crashed",
    "taken over",
}


@pytest.mark.timeout(600 + settings().max_examples)
def test_no_promise_is_broken_whatever_happens_in_whatever_order() -> None:
    every = list(HealthCheck)
    run_state_machine_as_test(Sluice, settings=examples(2_000, stateful_step_count=20, suppress_health_check=every))
    assert SEEN.keys() >= OFTEN
