"""One message, from its delivery to the decision what becomes of it."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier, Event
from typing import Any

import pytest

from functions.engine import worker as worker_module
from functions.engine.handler import Failed, Retry, Step, Stopped
from functions.engine.isolation import Crashed
from functions.engine.kinds import Handler
from functions.engine.worker import FIRST_PAUSE, LAST_PAUSE, MAX_OUTPUT_BYTES, HandBack, Settled, Unreadable, Wait
from sluice.broker import Message
from sluice.settings import Settings
from sluice.task import Document, Task, format_time
from tests.engine.doubles import Bench, a_task, message_of, without_model
from tests.waiting import eventually


def echo(inputs: Any, _step: Step) -> Document:
    return {"message": inputs.text}


def never(_inputs: Any, _step: Step) -> Document:
    raise AssertionError("the handler must not run")


def raising(error: BaseException) -> Handler:
    def handler(_inputs: Any, step: Step) -> Document:
        with step("try"):
            raise error

    return handler


def returning(outputs: Any) -> Handler:
    return lambda _inputs, _step: outputs


class Gate:
    """A handler that waits, once for each call, until it may go on with what the test gives it."""

    def __init__(self) -> None:
        self.started: list[Step] = []
        self.go = Event()

    def __call__(self, _inputs: Any, step: Step) -> Document:
        self.started.append(step)
        assert self.go.wait(20)
        return {"message": "from the old attempt"}


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that were run in a process of their own; here they only answer."""
    tasks: list[str] = []

    def run(task: Task, _inputs: Any, step: Step) -> Document:
        tasks.append(task.id)
        with step("apart"):
            return {"message": "from the new attempt"}

    monkeypatch.setattr(worker_module, "run_isolated", run)
    return tasks


# --- messages --------------------------------------------------------------------------------------------------------


def altered(**changes: Any) -> bytes:
    return json.dumps({**a_task().to_json(), **changes}).encode()


NOT_TASKS = {
    "nothing": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "null": b"null",
    "nested without end": b"[" * 100_000,
    "an empty object": b"{}",
    "a number for an id": altered(_id=7),
    "an id that is none": altered(_id="../../etc/passwd"),
    "no user": altered(user_id=None),
    "no deadline": altered(deadline=None),
    "a deadline in words": altered(deadline="tomorrow"),
    "an unknown status": altered(status="asleep"),
    "attempts in words": altered(attempts="one"),
    "true attempts": altered(attempts=True),
    "steps in words": altered(steps="none"),
    "a list of words for steps": altered(steps=["think"]),
    "more attempts than a database can count": altered(attempts=2**70),
    "a number that no database holds": altered(text=2**70),
    "a user with half a character": altered(user_id="\ud83d"),
    "a text with half a character": altered(text="\ud83d"),
    "a number that is none": altered(text=math.nan),
    "a number without end": altered(text=7).replace(b" 7", b" 1e999"),
    "a field name that no database holds": altered(**{"a\0b": 1}),
}


@pytest.mark.parametrize("body", NOT_TASKS.values(), ids=NOT_TASKS.keys())
def test_a_message_that_is_no_task_is_unreadable_on_its_way_and_when_dead(bench: Bench, body: bytes) -> None:
    worker = bench.worker(never)
    assert worker.work(Message("x", body)) == Unreadable()
    assert worker.bury(Message("x", body)) == Unreadable()


def test_a_task_that_the_database_missed_is_stored_from_its_message(bench: Bench) -> None:
    task = a_task()
    assert bench.worker(echo).work(message_of(task)) == Settled()
    done = bench.now(task)
    assert (done.status, done.document["message"], done.user_id) == ("completed", "Hello, Sluice.", "ada")
    assert done.document["created_at"] == task.document["created_at"]
    assert done.deadline == task.deadline


def test_a_message_that_is_faster_than_its_document_is_started_without_a_pause(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = a_task()
    worker = bench.worker(echo)
    monkeypatch.setattr(worker.draining, "wait", lambda _seconds: pytest.fail("it waits"))
    claim = bench.store.claim

    def claim_too_early(*args: Any, **kwargs: Any) -> Task | None:
        monkeypatch.setattr(bench.store, "claim", claim)
        missed = claim(*args, **kwargs)
        bench.store.insert(task)
        return missed

    monkeypatch.setattr(bench.store, "claim", claim_too_early)
    assert worker.work(message_of(task)) == Settled()
    assert bench.now(task).status == "completed"


def test_a_message_can_not_bring_bookkeeping_or_a_result_with_it(bench: Bench) -> None:
    body = {**a_task().to_json(), "status": "completed", "engine": "me", "crashes": 9}
    body |= {
        "error": {"code": "x", "message": "y"},
        "completed_at": body["created_at"],
        "lease_until": "2999-01-01T00:00:00.000Z",
        "progress": "most of it",
        "steps": [{"name": 7}],
        "message": ["not what it made"],
    }
    seen: list[Document] = []

    def handler(inputs: Any, _step: Step) -> Document:
        seen.append(bench.database.document(body["_id"]))
        return echo(inputs, _step)

    assert bench.worker(handler).work(Message("x", json.dumps(body).encode())) == Settled()
    [running] = seen
    assert (running["progress"], running["steps"], running["message"]) == (0, [], "")
    done = bench.database.document(body["_id"])
    assert (done["status"], done["error"], done["attempts"]) == ("completed", None, 1)
    assert done.get("crashes", 0) == 0


def test_a_message_from_the_future_says_nothing_about_those_before_it(bench: Bench) -> None:
    """Or else the sweep would take every task in a long queue for lost, and send it again."""
    worker = bench.worker(echo)
    worker.work(message_of(a_task(queued_at=bench.clock.now + timedelta(days=1))))
    assert worker.reached == bench.clock.now


# --- the way of a task -----------------------------------------------------------------------------------------------


def test_a_pending_task_is_completed_with_its_outputs_and_steps(bench: Bench) -> None:
    task = bench.stored()
    seen: list[Document] = []

    def handler(inputs: Any, step: Step) -> Document:
        seen.append(bench.database.document(task.id))
        with step("write"):
            return {"message": inputs.text.upper()}

    assert bench.worker(handler).work(message_of(task)) == Settled()
    [running] = seen
    assert (running["status"], running["attempts"], running["engine"]) == ("running", 1, "engine-a")
    assert running["started_at"] == bench.clock.now
    assert running["lease_until"] == bench.clock.now + timedelta(seconds=bench.settings.lease_seconds)
    done = bench.now(task).document
    assert (done["status"], done["message"]) == ("completed", "HELLO, SLUICE.")
    assert (done["progress"], done["attempts"], done["error"]) == (100, 1, None)
    assert done["completed_at"] == bench.clock.now
    assert done["lease_until"] is None
    assert [(entry["name"], entry["status"]) for entry in done["steps"]] == [("write", "completed")]


def test_a_worker_knows_what_runs(bench: Bench, beside: ThreadPoolExecutor) -> None:
    task, gate = bench.stored(), Gate()
    worker = bench.worker(gate)
    decision = beside.submit(worker.work, message_of(task))
    eventually(lambda: gate.started)
    assert [attempt.task.id for attempt in worker.running] == [task.id]
    gate.go.set()
    assert decision.result() == Settled()
    assert worker.running == []


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_finished_task_is_settled_without_being_run(bench: Bench, status: str) -> None:
    task = bench.stored(status=status, message="as it was")
    assert bench.worker(never).work(message_of(task)) == Settled()
    assert bench.now(task).document == task.document


def test_a_task_that_another_engine_is_at_work_on_waits_for_its_lease(bench: Bench) -> None:
    task = bench.stored(status="running", attempts=1, lease_until=bench.clock.now + timedelta(seconds=4))
    assert bench.worker(never).work(message_of(task)) == Wait(4.0)
    assert bench.now(task).document == task.document


def test_a_task_whose_engine_is_gone_is_taken_over_and_run_apart(bench: Bench, isolated: list[str]) -> None:
    old = bench.clock.now - timedelta(seconds=1)
    task = bench.stored(status="running", attempts=1, lease_until=old, engine="engine-z", started_at=old)
    assert bench.worker(never).work(message_of(task)) == Settled()
    assert isolated == [task.id]
    done = bench.now(task)
    assert (done.status, done.attempts, done.crashes) == ("completed", 2, 1)
    assert (done.document["engine"], done.document["message"]) == ("engine-a", "from the new attempt")


def test_a_step_that_its_engine_did_not_survive_is_not_shown_as_running_for_ever(
    bench: Bench, isolated: list[str]
) -> None:
    steps = [{"name": "think", "attempt": 1, "status": "running", "started_at": "", "ms": None, "message": None}]
    task = bench.stored(status="running", attempts=1, lease_until=bench.clock.now, steps=steps)
    assert bench.worker(never).work(message_of(task)) == Settled()
    done = bench.now(task).document["steps"]
    assert [(step["name"], step["status"]) for step in done] == [("think", "failed"), ("apart", "completed")]


def test_a_task_that_was_taken_over_stays_apart_also_after_a_retry(bench: Bench, isolated: list[str]) -> None:
    task = bench.stored(attempts=2, crashes=1)
    assert bench.worker(never).work(message_of(task)) == Settled()
    assert isolated == [task.id]


def test_a_task_that_keeps_killing_its_engine_is_given_up(bench: Bench) -> None:
    task = bench.stored(status="running", attempts=3, crashes=3, lease_until=bench.clock.now)
    assert bench.worker(never).work(message_of(task)) == Settled()
    failed = bench.now(task)
    assert (failed.status, failed.document["error"]["code"]) == ("failed", "crashed")
    assert failed.document["completed_at"] == bench.clock.now


def test_a_task_that_kills_its_own_process_is_tried_again_and_then_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> Document:
        raise Crashed("signal SIGSEGV")

    monkeypatch.setattr(worker_module, "run_isolated", crash)
    task = bench.stored(status="running", attempts=1, lease_until=bench.clock.now)
    decision = bench.worker(never).work(message_of(task))
    assert isinstance(decision, Wait)
    put_off = bench.now(task)
    assert (put_off.status, put_off.attempts, put_off.crashes) == ("pending", 2, 2)
    assert put_off.document["error"]["code"] == "crashed"
    bench.clock.advance(decision.seconds)
    assert bench.worker(never).work(message_of(task)) == Settled()
    failed = bench.now(task)
    assert (failed.status, failed.attempts, failed.document["error"]["code"]) == ("failed", 3, "crashed")


def test_a_task_after_its_deadline_is_never_started(bench: Bench) -> None:
    task = bench.stored()
    bench.clock.now = task.deadline
    assert bench.worker(never).work(message_of(task)) == Settled()
    failed = bench.now(task).document
    assert (failed["status"], failed["error"]["code"], failed["attempts"]) == ("failed", "expired", 0)
    assert failed["completed_at"] == task.deadline


def test_an_expired_task_says_what_went_wrong_in_its_last_try(bench: Bench) -> None:
    task = bench.stored(attempts=3, error={"code": "rate_limited", "message": "The model is busy."})
    bench.clock.now = task.deadline + timedelta(seconds=1)
    assert bench.worker(never).work(message_of(task)) == Settled()
    error = bench.now(task).document["error"]
    assert error["code"] == "expired"
    assert "The model is busy." in error["message"]


def test_a_task_whose_engine_died_at_its_deadline_expires(bench: Bench) -> None:
    task = bench.stored(status="running", attempts=1, lease_until=bench.clock.now)
    bench.clock.now = task.deadline
    assert bench.worker(never).work(message_of(task)) == Settled()
    error = bench.now(task).document["error"]
    assert error["code"] == "expired"
    assert "No engine could take" not in error["message"]


def test_a_message_that_is_too_early_waits_for_the_rest_of_the_pause(bench: Bench) -> None:
    task = bench.stored(attempts=1, retry_at=bench.clock.now + timedelta(seconds=7.5))
    assert bench.worker(never).work(message_of(task)) == Wait(7.5)
    bench.clock.advance(7.5)
    assert bench.worker(echo).work(message_of(task)) == Settled()


# --- transient errors ------------------------------------------------------------------------------------------------


def test_a_transient_error_puts_the_task_off_and_says_why(bench: Bench) -> None:
    task = bench.stored()
    decision = bench.worker(raising(Retry("busy", "It is busy."))).work(message_of(task))
    assert isinstance(decision, Wait)
    assert decision.headers == {"x-attempt": 1}
    put_off = bench.now(task)
    assert put_off.status == "pending"
    assert put_off.document["error"] == {"code": "busy", "message": "It is busy."}
    assert put_off.retry_at == bench.clock.now + timedelta(seconds=decision.seconds)
    assert (put_off.failures, put_off.crashes, put_off.attempts) == (1, 0, 1)
    assert put_off.document["completed_at"] is None
    assert [(step["status"], step["message"]) for step in put_off.document["steps"]] == [("failed", "It is busy.")]


def test_a_task_that_was_put_off_is_tried_again_and_forgets_the_error(bench: Bench) -> None:
    task = bench.stored()
    decision = bench.worker(raising(Retry("busy", "It is busy."))).work(message_of(task))
    assert isinstance(decision, Wait)
    bench.clock.advance(decision.seconds)
    seen: list[Document] = []

    def handler(inputs: Any, step: Step) -> Document:
        seen.append(bench.database.document(task.id))
        return echo(inputs, step)

    assert bench.worker(handler).work(message_of(task)) == Settled()
    assert (seen[0]["error"], seen[0]["retry_at"], seen[0]["attempts"]) == (None, None, 2)
    done = bench.now(task)
    assert (done.status, done.attempts, done.document["error"]) == ("completed", 2, None)
    assert [(step["attempt"], step["status"]) for step in done.document["steps"]] == [(1, "failed")]


def test_the_pauses_grow_to_a_bound(bench: Bench) -> None:
    task = bench.stored(deadline=bench.clock.now + timedelta(days=1))
    worker = bench.worker(raising(Retry("busy", "It is busy.")))
    for failures in range(10):
        decision = worker.work(message_of(task))
        assert isinstance(decision, Wait)
        middle = min(LAST_PAUSE, FIRST_PAUSE * 2**failures)
        assert 0.75 * middle - 0.5 <= decision.seconds <= 1.25 * middle + 0.5
        assert decision.seconds >= 1
        assert bench.now(task).failures == failures + 1
        bench.clock.advance(decision.seconds)


def test_a_longer_pause_that_is_asked_for_is_kept(bench: Bench) -> None:
    task = bench.stored()
    assert bench.worker(raising(Retry("busy", "It is busy.", after=90))).work(message_of(task)) == Wait(
        90, {"x-attempt": 1}
    )
    assert bench.now(task).retry_at == bench.clock.now + timedelta(seconds=90)


def test_a_shorter_pause_that_is_asked_for_changes_nothing(bench: Bench) -> None:
    task = bench.stored(attempts=5, failures=5)
    decision = bench.worker(raising(Retry("busy", "It is busy.", after=0.1))).work(message_of(task))
    assert isinstance(decision, Wait)
    assert decision.seconds >= 0.75 * LAST_PAUSE


@pytest.mark.parametrize("after", [301, 1e9, 1e300, float("inf")])
def test_a_next_try_after_the_deadline_is_not_waited_for(bench: Bench, after: float) -> None:
    task = bench.stored()
    error = Retry("rate_limited", "The model is busy.", after=after)
    assert bench.worker(raising(error)).work(message_of(task)) == Settled()
    failed = bench.now(task).document
    assert (failed["status"], failed["error"]["code"]) == ("failed", "expired")
    assert "The model is busy." in failed["error"]["message"]


def test_a_kind_that_this_engine_does_not_know_yet_waits_for_one_that_does(bench: Bench) -> None:
    task = bench.stored("video")
    decision = bench.worker(never).work(message_of(task))
    assert isinstance(decision, Wait)
    waiting = bench.now(task)
    assert (waiting.status, waiting.document["error"]["code"]) == ("pending", "unknown_kind")


def test_a_kind_without_a_handler_waits_too(bench: Bench) -> None:
    def find(kind: str) -> Handler:
        raise LookupError(kind)

    task = bench.stored()
    worker = worker_module.Worker(bench.store, bench.settings, "engine-a", find)
    assert isinstance(worker.work(message_of(task)), Wait)
    assert bench.now(task).document["error"]["code"] == "unknown_kind"


# --- permanent errors ------------------------------------------------------------------------------------------------


def test_a_permanent_error_is_told_to_the_user_at_once(bench: Bench) -> None:
    task = bench.stored()
    assert bench.worker(raising(Failed("refused", "The model refused."))).work(message_of(task)) == Settled()
    failed = bench.now(task).document
    assert (failed["status"], failed["attempts"]) == ("failed", 1)
    assert failed["error"] == {"code": "refused", "message": "The model refused."}
    assert failed["completed_at"] == bench.clock.now
    assert [(step["status"], step["message"]) for step in failed["steps"]] == [("failed", "The model refused.")]


SECRET = "mongodb://root:hunter2@db"
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}

POISON: dict[str, tuple[str, Handler]] = {
    "an exception": ("message", raising(ValueError(SECRET))),
    "SystemExit": ("message", raising(SystemExit(SECRET))),
    "KeyboardInterrupt": ("message", raising(KeyboardInterrupt(SECRET))),
    "GeneratorExit": ("message", raising(GeneratorExit(SECRET))),
    "RecursionError": ("message", raising(RecursionError(SECRET))),
    "MemoryError": ("message", raising(MemoryError(SECRET))),
    "Stopped without being stopped": ("message", raising(Stopped(SECRET))),
    "LookupError": ("message", raising(LookupError(SECRET))),
    "None": ("message", returning(None)),
    "a text": ("message", returning(SECRET)),
    "a field of the wrong type": ("message", returning({"message": 7})),
    "bytes that are no text": ("message", returning({"message": b"\xff"})),
    "a field too many": ("message", returning({"message": "x", "secret": SECRET})),
    "a field of every task": ("message", returning({"message": "x", "status": "pending"})),
    "half of an object": ("code", returning({"code": "x", "usage": {"prompt_tokens": 1}})),
    "too much": ("message", returning({"message": "x" * MAX_OUTPUT_BYTES})),
    "too many bytes": ("message", returning({"message": "€" * (MAX_OUTPUT_BYTES // 2)})),
    "half of a character": ("message", returning({"message": "\ud83d"})),
    "more than 64 bits": ("code", returning({"code": "x", "usage": {**USAGE, "total_tokens": 2**63}})),
    "far more than 64 bits": ("code", returning({"code": "x", "usage": {**USAGE, "total_tokens": 10**400}})),
    "an error with half of a character": ("message", raising(Failed("refused", "no \ud83d"))),
    "an error code with half of a character": ("message", raising(Failed("\ud83d", "no"))),
    "an endless error": ("message", raising(Failed("refused", "no" * 20_000_000))),
    "a late error with half of a character": ("message", raising(Retry("busy", "no \ud83d", after=1e6))),
}


@pytest.mark.parametrize(("kind", "handler"), POISON.values(), ids=POISON.keys())
def test_whatever_a_handler_does_its_task_fails_with_a_reason(
    bench: Bench, kind: str, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    task = bench.stored(kind)
    worker = bench.worker(handler)
    with caplog.at_level(logging.CRITICAL):
        assert worker.work(message_of(task)) == Settled()
    failed = bench.now(task).document
    assert failed["status"] == "failed"
    assert failed["error"]["code"]
    assert failed["error"]["message"]
    assert SECRET not in json.dumps([failed["error"], failed["steps"]])
    assert worker.running == []


def test_a_transient_error_with_half_of_a_character_is_still_a_transient_error(bench: Bench) -> None:
    task = bench.stored()
    assert isinstance(bench.worker(raising(Retry("busy", "no \ud83d"))).work(message_of(task)), Wait)
    assert bench.now(task).status == "pending"


def test_a_step_named_with_half_of_a_character_harms_nothing(bench: Bench) -> None:
    def handler(inputs: Any, step: Step) -> Document:
        with step("think \ud83d"):
            return echo(inputs, step)

    task = bench.stored()
    assert bench.worker(handler).work(message_of(task)) == Settled()
    assert bench.now(task).is_terminal


def test_a_handler_that_can_not_be_imported_fails_its_task_with_a_reason(bench: Bench) -> None:
    def find(_kind: str) -> Handler:
        raise ImportError(SECRET)

    task = bench.stored()
    worker = worker_module.Worker(bench.store, bench.settings, "engine-a", find)
    assert worker.work(message_of(task)) == Settled()
    error = bench.now(task).document["error"]
    assert error["code"]
    assert SECRET not in error["message"]


@pytest.mark.parametrize("inputs", [{"text": None}, {"text": 7}, {"text": ""}, {"text": "\x00"}])
def test_inputs_that_do_not_suit_the_kind_fail_by_name(bench: Bench, inputs: Document) -> None:
    task = bench.stored(**inputs)
    assert bench.worker(never).work(message_of(task)) == Settled()
    error = bench.now(task).document["error"]
    assert error["code"] == "invalid_input"
    assert "text" in error["message"]


def test_a_missing_input_fails_by_name(bench: Bench) -> None:
    task = a_task()
    del task.document["text"]
    assert bench.worker(never).work(message_of(task)) == Settled()
    error = bench.now(task).document["error"]
    assert error["code"] == "invalid_input"
    assert "text" in error["message"]


def test_a_task_with_too_much_input_fails(bench: Bench) -> None:
    task = bench.stored(text="€" * 60_000)
    assert bench.worker(never).work(message_of(task)) == Settled()
    assert bench.now(task).document["error"]["code"] == "invalid_input"


# --- being stopped ---------------------------------------------------------------------------------------------------


def stopping(reason: str, error: BaseException | None = None) -> Handler:
    """A handler that is stopped in the middle and obeys, or whose work breaks in the way that `error` says."""

    def handler(_inputs: Any, step: Step) -> Document:
        step.show(message="half")
        with step("work"):
            step.stop(reason)
            if error is not None:
                raise error
            step.check()
        raise AssertionError

    return handler


BROKEN = [None, OSError("the connection that on_stop closed")]


@pytest.mark.parametrize("error", BROKEN)
def test_a_handler_that_took_too_long_fails_its_task(bench: Bench, error: BaseException | None) -> None:
    task = bench.stored()
    assert bench.worker(stopping("130 seconds", error)).work(message_of(task)) == Settled()
    failed = bench.now(task).document
    assert (failed["status"], failed["error"]["code"]) == ("failed", "timed_out")
    assert "130 seconds" in failed["error"]["message"]


@pytest.mark.parametrize("error", BROKEN)
def test_a_handler_that_obeys_a_draining_engine_loses_nothing(bench: Bench, error: BaseException | None) -> None:
    task = bench.stored()
    assert bench.worker(stopping("draining", error)).work(message_of(task)) == HandBack()
    handed_back = bench.now(task)
    assert (handed_back.status, handed_back.retry_at) == ("pending", None)
    assert (handed_back.crashes, handed_back.failures) == (0, 0)
    assert bench.worker(echo, "engine-b").work(message_of(task)) == Settled()
    assert bench.now(task).status == "completed"


@pytest.mark.parametrize("error", BROKEN)
def test_a_handler_whose_task_is_lost_writes_nothing(bench: Bench, error: BaseException | None) -> None:
    task = bench.stored()
    assert bench.worker(stopping("lost", error)).work(message_of(task)) == Settled()
    assert bench.now(task).status == "running"


def test_a_result_that_is_there_in_spite_of_a_stop_is_kept(bench: Bench) -> None:
    def handler(inputs: Any, step: Step) -> Document:
        step.stop("draining")
        return echo(inputs, step)

    task = bench.stored()
    assert bench.worker(handler).work(message_of(task)) == Settled()
    assert bench.now(task).status == "completed"


# --- fences ----------------------------------------------------------------------------------------------------------


def test_a_frozen_engine_that_wakes_up_does_not_overwrite_its_successor(
    bench: Bench, beside: ThreadPoolExecutor, isolated: list[str]
) -> None:
    task, gate = bench.stored(), Gate()
    frozen = beside.submit(bench.worker(gate, "engine-a").work, message_of(task))
    eventually(lambda: gate.started)
    bench.clock.advance(bench.settings.lease_seconds)
    assert bench.worker(never, "engine-b").work(message_of(task)) == Settled()
    new = bench.now(task).document
    gate.go.set()
    assert frozen.result() == Settled()
    assert bench.now(task).document == new
    assert (new["message"], new["attempts"], new["engine"]) == ("from the new attempt", 2, "engine-b")


@pytest.mark.parametrize("error", [Failed("refused", "No."), Retry("busy", "Busy."), ValueError("?")])
def test_neither_does_its_failure(
    bench: Bench, beside: ThreadPoolExecutor, isolated: list[str], error: Exception
) -> None:
    task, gate = bench.stored(), Gate()

    def fail(inputs: Any, step: Step) -> Document:
        gate(inputs, step)
        raise error

    frozen = beside.submit(bench.worker(fail, "engine-a").work, message_of(task))
    eventually(lambda: gate.started)
    bench.clock.advance(bench.settings.lease_seconds)
    assert bench.worker(never, "engine-b").work(message_of(task)) == Settled()
    new = bench.now(task).document
    gate.go.set()
    assert frozen.result() == Settled()
    assert bench.now(task).document == new


def test_a_cancelled_task_stays_cancelled_whatever_its_handler_still_does(
    bench: Bench, beside: ThreadPoolExecutor
) -> None:
    task, gate = bench.stored(), Gate()
    decision = beside.submit(bench.worker(gate).work, message_of(task))
    eventually(lambda: gate.started)
    assert bench.store.cancel(task.id) is not None
    cancelled = bench.now(task).document
    gate.go.set()
    assert decision.result() == Settled()
    assert bench.now(task).document == cancelled
    assert (cancelled["status"], cancelled["message"]) == ("cancelled", "")


@pytest.mark.parametrize("is_claimed", [False, True])
def test_the_result_of_an_attempt_from_before_a_retry_never_appears(
    bench: Bench, beside: ThreadPoolExecutor, is_claimed: bool
) -> None:
    task, gate = bench.stored(), Gate()
    decision = beside.submit(bench.worker(gate).work, message_of(task))
    eventually(lambda: gate.started)
    bench.store.cancel(task.id)
    deadline = bench.clock.now + timedelta(seconds=300)
    assert bench.store.restart(task.id, deadline=deadline, outputs={"message": ""}) is not None
    if is_claimed:
        assert bench.store.claim(task.id, engine="engine-b", lease=timedelta(seconds=10)) is not None
    before = bench.now(task).document
    gate.go.set()
    assert decision.result() == Settled()
    assert bench.now(task).document == before
    assert before["status"] == ("running" if is_claimed else "pending")


def test_a_retried_task_starts_anew_with_the_next_attempt(bench: Bench) -> None:
    task = bench.stored()
    bench.worker(raising(Failed("refused", "No."))).work(message_of(task))
    bench.store.restart(task.id, deadline=bench.clock.now + timedelta(seconds=300), outputs={"message": ""})
    assert bench.worker(echo).work(message_of(task)) == Settled()
    done = bench.now(task)
    assert (done.status, done.attempts, done.document["error"]) == ("completed", 2, None)


@pytest.mark.usefixtures("hasty_threads")
def test_of_many_engines_with_the_same_message_one_runs_the_task(bench: Bench, beside: ThreadPoolExecutor) -> None:
    for _ in range(10):
        task, start = bench.stored(), Barrier(8)
        ran: list[str] = []

        def handler(inputs: Any, step: Step, ran: list[str] = ran) -> Document:
            ran.append(step.task_id)
            return echo(inputs, step)

        def work(number: int, start: Barrier = start, task: Task = task, handler: Handler = handler) -> Any:
            worker = bench.worker(handler, f"engine-{number}")
            start.wait(10)
            return worker.work(message_of(task))

        decisions = list(beside.map(work, range(8)))
        assert ran == [task.id]
        assert all(isinstance(decision, Settled | Wait) for decision in decisions)
        assert bench.now(task).attempts == 1


@pytest.mark.usefixtures("hasty_threads")
def test_a_task_in_the_embedded_database_is_claimed_once_however_many_want_it(beside: ThreadPoolExecutor) -> None:
    from embedded.stand_ins import choose_services

    services = choose_services(Settings(mongodb_uri=None, openai_base_url="http://127.0.0.1:9/v1"))
    store = services.store
    try:
        for _ in range(20):
            task, start = store.insert(a_task()), Barrier(8)

            def claim(number: int, start: Barrier = start, task: Task = task) -> bool:
                start.wait(10)
                return store.claim(task.id, engine=f"engine-{number}", lease=timedelta(seconds=10)) is not None

            assert sum(beside.map(claim, range(8))) == 1
            found = store.get(task.id)
            assert found is not None
            assert found.attempts == 1
    finally:
        services.broker.close()
        store.close()


# --- outages ---------------------------------------------------------------------------------------------------------


def test_a_database_that_is_away_at_the_start_is_waited_for(bench: Bench, beside: ThreadPoolExecutor) -> None:
    task = bench.stored()
    bench.database.away = {"all"}
    decision = beside.submit(bench.worker(echo).work, message_of(task))
    eventually(lambda: _failures(bench) >= 3)
    assert not decision.done()
    bench.database.away = set()
    assert decision.result(10) == Settled()
    assert bench.now(task).status == "completed"


def test_a_result_waits_for_the_database(bench: Bench, beside: ThreadPoolExecutor) -> None:
    def handler(inputs: Any, step: Step) -> Document:
        bench.database.away = {"all"}
        return echo(inputs, step)

    task = bench.stored()
    decision = beside.submit(bench.worker(handler).work, message_of(task))
    eventually(lambda: _failures(bench) >= 3)
    assert not decision.done()
    bench.database.away = set()
    assert decision.result(10) == Settled()
    done = bench.now(task)
    assert (done.status, done.attempts, done.document["message"]) == ("completed", 1, "Hello, Sluice.")


def test_a_task_that_the_database_never_saw_waits_for_it_too(bench: Bench, beside: ThreadPoolExecutor) -> None:
    task = a_task()
    bench.database.away = {"all"}
    decision = beside.submit(bench.worker(echo).work, message_of(task))
    eventually(lambda: _failures(bench) >= 2)
    bench.database.away = set()
    assert decision.result(10) == Settled()
    assert bench.now(task).status == "completed"


@pytest.mark.parametrize("operation", ["work", "bury"])
def test_a_draining_engine_does_not_wait_for_the_database(
    bench: Bench, beside: ThreadPoolExecutor, operation: str
) -> None:
    task = bench.stored()
    worker = bench.worker(never)
    bench.database.away = {"all"}
    decision = beside.submit(getattr(worker, operation), message_of(task))
    eventually(lambda: _failures(bench) >= 1)
    worker.draining.set()
    assert decision.result(2) == HandBack()
    bench.database.away = set()
    assert bench.now(task).document == task.document


def test_a_draining_engine_starts_nothing_that_it_has_only_just_taken(bench: Bench) -> None:
    worker = bench.worker(never)
    worker.draining.set()
    task = bench.stored()
    assert worker.work(message_of(task)) == HandBack()
    assert (bench.now(task).status, bench.now(task).attempts) == ("pending", 0)


def test_a_result_that_a_draining_engine_can_not_write_is_handed_back(bench: Bench) -> None:
    worker = bench.worker(never)

    def handler(inputs: Any, step: Step) -> Document:
        bench.database.away = {"all"}
        worker.draining.set()
        threading.Timer(0.3, worker.hurry.set).start()
        return echo(inputs, step)

    worker = bench.worker(handler)
    task = bench.stored()
    assert worker.work(message_of(task)) == HandBack()
    assert worker.hurry.is_set(), "a result is worth waiting for, to the end of the grace period"
    assert worker.running == []


def _failures(bench: Bench) -> int:
    return len(bench.database.operations) if bench.database.away else 0


# --- dead letters ----------------------------------------------------------------------------------------------------


def dead_letter(bench: Bench, **changes: Any) -> tuple[Task, Any]:
    task = bench.stored(**changes)
    return task, bench.worker(never).bury(message_of(task))


def test_a_dead_letter_of_an_expired_task_fails_it(bench: Bench) -> None:
    task, decision = dead_letter(bench, deadline=bench.clock.now)
    assert decision == Settled()
    failed = bench.now(task).document
    assert (failed["status"], failed["error"]["code"]) == ("failed", "expired")
    assert failed["error"]["message"]


def test_a_dead_letter_of_an_expired_task_that_the_database_missed_stores_it_as_failed(bench: Bench) -> None:
    task = a_task(deadline=bench.clock.now)
    assert bench.worker(never).bury(message_of(task)) == Settled()
    failed = bench.now(task).document
    assert (failed["status"], failed["error"]["code"], failed["user_id"]) == ("failed", "expired", "ada")


def test_a_dead_letter_of_a_task_whose_engine_is_gone_fails_it_too(bench: Bench) -> None:
    task, decision = dead_letter(
        bench, status="running", attempts=1, lease_until=bench.clock.now, deadline=bench.clock.now
    )
    assert decision == Settled()
    assert bench.now(task).document["error"]["code"] == "expired"


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_dead_letter_of_a_finished_task_changes_nothing(bench: Bench, status: str) -> None:
    task, decision = dead_letter(bench, status=status, deadline=bench.clock.now)
    assert decision == Settled()
    assert bench.now(task).document == task.document


def test_a_dead_letter_of_a_task_that_somebody_is_at_work_on_changes_nothing(bench: Bench) -> None:
    lease_until = bench.clock.now + timedelta(seconds=5)
    task, decision = dead_letter(bench, status="running", lease_until=lease_until, deadline=bench.clock.now)
    assert decision == Settled()
    assert bench.now(task).document == task.document


def test_a_dead_letter_of_a_task_with_time_left_brings_it_back(bench: Bench) -> None:
    task, decision = dead_letter(bench)
    assert decision == Wait(1)
    assert bench.now(task).document == task.document


def test_a_dead_letter_from_before_a_retry_by_the_user_changes_nothing(bench: Bench) -> None:
    task = bench.stored(status="failed", deadline=bench.clock.now)
    deadline = bench.clock.now + timedelta(seconds=300)
    assert bench.store.restart(task.id, deadline=deadline, outputs={"message": ""}) is not None
    pending = bench.now(task).document
    assert bench.worker(never).bury(message_of(task)) == Settled()
    assert bench.now(task).document == pending


def test_a_task_that_moves_on_while_it_is_given_up_is_looked_at_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.stored(deadline=bench.clock.now)
    worker = bench.worker(never)
    find_one: Callable[[Document], Document] = bench.database.find_one

    def find_and_lose(query: Document) -> Document:
        found = dict(find_one(query))
        bench.store.cancel(task.id)
        return found

    monkeypatch.setattr(bench.database, "find_one", find_and_lose)
    assert worker.bury(message_of(task)) == Wait(1)
    monkeypatch.undo()
    assert worker.bury(message_of(task)) == Settled()
    assert bench.now(task).status == "cancelled"


def test_times_in_a_message_may_have_any_zone(bench: Bench) -> None:
    task = a_task()
    body = task.to_json()
    body["deadline"] = format_time(task.deadline).replace("Z", "+00:00")
    assert bench.worker(echo).work(Message(task.id, json.dumps(body).encode())) == Settled()
    assert bench.now(task).deadline == task.deadline


def test_settings_bound_the_number_of_crashes(isolated: list[str]) -> None:
    bench = Bench(settings=without_model(crash_limit=1))
    task = bench.stored(status="running", attempts=1, lease_until=bench.clock.now)
    assert bench.worker(never).work(message_of(task)) == Settled()
    assert bench.now(task).document["error"]["code"] == "crashed"
    assert isolated == []
