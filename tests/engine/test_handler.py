"""Steps: what a handler reports, and how it is told to stop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from functions.engine.handler import MAX_STEPS, Failed, Retry, Step, Stopped
from sluice.task import Document, parse_time
from tests.engine.doubles import without_model


@pytest.fixture
def step() -> Step:
    return Step("a" * 32, without_model())


def told(step: Step) -> list[tuple[str, str, str | None]]:
    return [(entry["name"], entry["status"], entry["message"]) for entry in step.steps]


def test_a_step_is_shown_as_running_and_then_as_completed_with_its_time(step: Step) -> None:
    with step("think"):
        [running] = step.steps
        assert (running["name"], running["status"], running["ms"], running["message"]) == (
            "think",
            "running",
            None,
            None,
        )
        assert running["attempt"] == 1
        parse_time(running["started_at"])
    [completed] = step.steps
    assert (completed["status"], completed["message"]) == ("completed", None)
    assert isinstance(completed["ms"], int)
    assert 0 <= completed["ms"] < 5000
    assert {**running, "status": "completed", "ms": completed["ms"]} == completed


def test_nested_steps_stand_in_the_order_of_their_start(step: Step) -> None:
    with step("outer"):
        with step("inner"):
            assert told(step) == [("outer", "running", None), ("inner", "running", None)]
        assert told(step) == [("outer", "running", None), ("inner", "completed", None)]
    assert told(step) == [("outer", "completed", None), ("inner", "completed", None)]


def test_steps_of_the_same_name_are_told_apart(step: Step) -> None:
    with step("try"):
        pass
    with pytest.raises(Failed), step("try"):
        raise Failed("no", "It does not work.")
    assert told(step) == [("try", "completed", None), ("try", "failed", "It does not work.")]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Failed("no", "The user may read this."), "The user may read this."),
        (Retry("later", "And this."), "And this."),
        (ValueError("but never this"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_failed_step_says_why_in_the_handlers_own_words_only(
    step: Step, error: BaseException, message: str | None
) -> None:
    with pytest.raises(type(error)) as caught, step("outer"), step("inner"):
        raise error
    assert caught.value is error
    assert told(step) == [("outer", "failed", message), ("inner", "failed", message)]
    assert all(isinstance(entry["ms"], int) for entry in step.steps)


def test_the_steps_of_earlier_attempts_stay_in_front(step: Step) -> None:
    with step("first"):
        pass
    again = Step("a" * 32, without_model(), 2, step.steps)
    with again("second"):
        pass
    assert [(entry["name"], entry["attempt"]) for entry in again.steps] == [("first", 1), ("second", 2)]


def test_only_the_newest_steps_are_kept(step: Step) -> None:
    with step("around all"):
        for number in range(MAX_STEPS + 5):
            with step(f"step {number}"):
                pass
    assert [entry["name"] for entry in step.steps] == [f"step {number}" for number in range(5, MAX_STEPS + 5)]


def test_what_steps_returns_is_a_copy(step: Step) -> None:
    with step("think"):
        step.steps[0]["name"] = step.steps.clear()
        assert told(step) == [("think", "running", None)]


@pytest.mark.parametrize(
    ("percent", "shown"),
    [(0, 0), (42, 42), (99.9, 99), (100, 100), (-5, 0), (250, 100), (float("inf"), 100), (float("nan"), 0)],
)
def test_progress_stays_between_0_and_100(step: Step, percent: float, shown: int) -> None:
    step.progress(percent)
    assert step.take_changes() == {"progress": shown}
    assert type(shown) is int


def test_changes_are_taken_once(step: Step) -> None:
    step.progress(10)
    step.show(code="a")
    step.show(code="ab", model="m")
    assert step.take_changes() == {"progress": 10, "code": "ab", "model": "m"}
    assert step.take_changes() == {}


def test_changes_that_could_not_be_written_come_again_but_newer_ones_win(step: Step) -> None:
    step.progress(10)
    step.show(code="a")
    changes = step.take_changes()
    step.progress(20)
    step.put_back(changes)
    assert step.take_changes() == {"progress": 20, "code": "a"}


def test_steps_are_among_the_changes(step: Step) -> None:
    with step("think"):
        [entry] = step.take_changes()["steps"]
        assert entry["status"] == "running"
    [entry] = step.take_changes()["steps"]
    assert entry["status"] == "completed"


def test_what_another_process_reports_is_reported(step: Step) -> None:
    other = Step("a" * 32, without_model())
    with other("elsewhere"):
        other.show(code="a")
        step.replay(other.take_changes())
    assert told(step) == [("elsewhere", "running", None)]
    assert step.take_changes()["code"] == "a"
    step.replay({})
    assert told(step) == [("elsewhere", "running", None)]


def test_a_handler_learns_that_it_should_stop(step: Step) -> None:
    step.check()
    step.stop("lost")
    with pytest.raises(Stopped):
        step.check()
    with pytest.raises(Stopped), step("not begun any more"):
        raise AssertionError
    assert step.steps == []
    assert step.stop_reason == "lost"


def test_a_step_that_was_stopped_says_so(step: Step) -> None:
    with pytest.raises(Stopped), step("think"):
        _stop_and_check(step)
    assert told(step) == [("think", "failed", "stopped")]


def _stop_and_check(step: Step) -> None:
    step.stop("lost")
    step.check()


def test_only_the_first_reason_counts(step: Step) -> None:
    calls: list[str] = []
    with step.on_stop(lambda: calls.append("called")):
        step.stop("lost")
        step.stop("draining")
    assert step.stop_reason == "lost"
    assert calls == ["called"]


def test_a_stop_calls_all_that_are_inside_and_nobody_else(step: Step) -> None:
    calls: list[str] = []
    with step.on_stop(lambda: calls.append("before")):
        pass
    with step.on_stop(lambda: calls.append("outer")), step.on_stop(lambda: calls.append("inner")):
        step.stop("lost")
    assert sorted(calls) == ["inner", "outer"]


def test_a_stop_before_entering_is_not_missed(step: Step) -> None:
    calls: list[str] = []
    step.stop("lost")
    with step.on_stop(lambda: calls.append("called")):
        assert calls == ["called"]
    assert calls == ["called"]


def test_a_callback_that_fails_does_not_keep_the_others_from_being_called(step: Step) -> None:
    calls: list[str] = []

    def fail() -> None:
        raise OSError("closed already")

    with step.on_stop(fail), step.on_stop(lambda: calls.append("called")):
        step.stop("lost")
    assert calls == ["called"]


@pytest.mark.usefixtures("hasty_threads")
def test_many_threads_lose_none_of_their_steps(beside: ThreadPoolExecutor) -> None:
    for _ in range(20):
        step = Step("a" * 32, without_model())
        start = Barrier(8)

        def work(name: int, step: Step = step, start: Barrier = start) -> None:
            start.wait(10)
            for part in range(5):
                with step(f"{name}.{part}"):
                    step.show(code=str(part))

        list(beside.map(work, range(8)))
        expected = {f"{name}.{part}" for name in range(8) for part in range(5)}
        assert {entry["name"] for entry in step.steps if entry["status"] == "completed"} == expected


@pytest.mark.usefixtures("hasty_threads")
def test_a_stop_reaches_every_thread_that_is_about_to_block(beside: ThreadPoolExecutor) -> None:
    for _ in range(20):
        step = Step("a" * 32, without_model())
        start = Barrier(9)

        def block(_number: int, step: Step = step, start: Barrier = start) -> bool:
            told = Event()
            start.wait(10)
            with step.on_stop(told.set):
                return told.wait(10)

        blocked = [beside.submit(block, number) for number in range(8)]
        start.wait(10)
        step.stop("lost")
        assert all(future.result() for future in blocked)


@pytest.mark.usefixtures("hasty_threads")
def test_no_change_is_taken_twice_or_lost_between_threads(beside: ThreadPoolExecutor) -> None:
    step = Step("a" * 32, without_model())
    names = [f"field_{number}" for number in range(400)]
    showing = [beside.submit(lambda name=name: step.show(**{name: 1})) for name in names]
    taken: list[Document] = []
    while not all(future.done() for future in showing):
        taken.append(step.take_changes())
    taken.append(step.take_changes())
    assert sorted(name for changes in taken for name in changes) == sorted(names)
