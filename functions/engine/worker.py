"""One message, from its delivery to the decision what becomes of it: decode, claim, run, write the result, decide.

A decision is a value. Nothing here knows how a message is acknowledged, and nothing here is lost when the process dies:
until the decision is carried out, the message is still the queue's.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from functions.engine.handler import Failed, Retry, Step, Stopped
from functions.engine.isolation import Crashed, run_isolated
from functions.engine.kinds import Handler, find_handler
from sluice.broker import Message
from sluice.errors import InvalidRequest, NotATask, StoreUnavailable, Unstorable
from sluice.kinds import Kind, kinds
from sluice.logs import log_context
from sluice.metrics import QUEUED_SECONDS, TASK_SECONDS, TASKS_FINISHED, TASKS_PUT_OFF, TASKS_RUNNING, TASKS_STARTED
from sluice.settings import Settings
from sluice.store import MongoTaskStore, Setback
from sluice.task import Document, Status, Task, expiry

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Bytes that the outputs of one task may have as JSON. A MongoDB document ends at 16 MiB.
MAX_OUTPUT_BYTES = 1024 * 1024

#: Seconds between two tries after a transient failure: doubled from the first to the last, with jitter.
FIRST_PAUSE, LAST_PAUSE = 2.0, 60.0

#: Seconds before a claim is tried again that somebody else was faster with.
AGAIN_SECONDS = 0.05

#: Seconds between two tries to reach a database that is away.
STORE_PAUSES = (0.1, 0.2, 0.5, 1.0)

CRASHED = {
    "code": "crashed",
    "message": "The task ended its engine's process every time it was tried. It was given up so as not to harm others.",
}


@dataclass(frozen=True)
class Settled:
    """The message has done its work: acknowledge it."""


@dataclass(frozen=True)
class Wait:
    """Bring the message to the tasks (again) after so many seconds."""

    seconds: float
    headers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HandBack:
    """Somebody else is to have the message, now."""


@dataclass(frozen=True)
class Unreadable:
    """The message is no task: keep it apart, for people to look at."""


Decision = Settled | Wait | HandBack | Unreadable


@dataclass(eq=False)
class Attempt:
    """One try of a task, while it runs here."""

    task: Task
    step: Step
    #: When its lease was last renewed (monotonic seconds).
    held: float


class Draining(Exception):
    """The engine is stopping, and the database has not come back: hand the message back."""


class Worker:
    """Works on messages. Safe to use from many threads at once."""

    def __init__(
        self,
        store: MongoTaskStore,
        settings: Settings,
        name: str,
        handlers: Callable[[str], Handler] = find_handler,
    ) -> None:
        self._store = store
        self._settings = settings
        self._name = name
        self._handlers = handlers
        self._clock = store.clock
        self._lease = timedelta(seconds=settings.lease_seconds)
        #: What tells this worker's claims from those of others, and one of its own from the next.
        self._claimer, self._claims = uuid.uuid4().hex, itertools.count(1)
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Attempt] = {}
        #: When the latest first message that was taken had been sent: earlier ones should have come before it.
        self.reached = self._clock()
        #: The engine is stopping: start nothing more. Then: its grace is over, keep nobody waiting.
        self.draining = threading.Event()
        self.hurry = threading.Event()

    @property
    def running(self) -> list[Attempt]:
        with self._lock:
            return list(self._running.values())

    def work(self, message: Message) -> Decision:
        """Do what a message of the tasks asks for."""
        try:
            task = Task.from_message(message.body)
        except NotATask as error:
            log.warning("a message is no task: %s", error)
            return Unreadable()
        with log_context(task_id=task.id, **_request_id(message)):
            try:
                if self.draining.is_set():
                    return HandBack()
                claimed = self._claim(task)
                return self._attempt(claimed) if isinstance(claimed, Task) else claimed
            except Draining:
                return HandBack()
            except (NotATask, Unstorable) as error:
                log.warning("a message is no task: %s", error)
                return Unreadable()

    def bury(self, message: Message) -> Decision:
        """Do what a dead letter asks for: its task says why, or gets what time it has left."""
        try:
            task = Task.from_message(message.body)
        except NotATask:
            return Unreadable()
        with log_context(task_id=task.id, **_request_id(message)):
            try:
                stored = self._stored(task)
                if stored.is_terminal or stored.is_leased(self._clock()):
                    return Settled()
                if stored.deadline > self._clock():
                    # Handed out too often. If it is from before a retry, there is a newer message.
                    return Wait(1) if stored.deadline == task.deadline else Settled()
                return self._give_up(stored)
            except Draining:
                return HandBack()
            except (NotATask, Unstorable):
                return Unreadable()

    # --- claim -------------------------------------------------------------------------------------------------------

    def _claim(self, task: Task) -> Task | Decision:
        """Make the next attempt of the task ours, or say why not."""
        token = f"{self._claimer}-{next(self._claims)}"
        mine: dict[str, Any] = {"engine": self._name, "token": token, "lease": self._lease}
        claimed = self._patiently(lambda: self._store.start(task, **mine))
        if claimed is not None:
            return claimed
        for tries in itertools.count(1):
            claimed = self._patiently(lambda: self._store.claim(task.id, **mine))
            if claimed is not None:
                return claimed
            stored = self._stored(task)
            now = self._clock()
            if stored.is_terminal:
                return Settled()
            if stored.status == "running":
                if stored.document.get("token") == token:
                    return stored  # it was ours: only the database's answer was lost
                if stored.is_leased(now):  # by another engine, or by this one: its connection was lost meanwhile
                    lease_until: datetime = stored.document["lease_until"]
                    return Wait((lease_until - now).total_seconds())
                if stored.deadline <= now or self._settings.crash_limit <= max(1, stored.crashes):
                    return self._give_up(stored)
                taken = self._patiently(partial(self._store.take_over, stored, **mine))
                if taken is not None:
                    log.warning("the engine of attempt %s is gone; this is attempt %s", stored.attempts, taken.attempts)
                    return taken
            elif stored.deadline <= now:
                return self._give_up(stored)
            elif stored.retry_at is not None and stored.retry_at > now:
                return Wait((stored.retry_at - now).total_seconds())
            if tries > 1:  # the first time, the message may just have been faster than its document
                self.draining.wait(AGAIN_SECONDS)
        raise AssertionError("unreachable: it is tried for ever")

    def _stored(self, task: Task) -> Task:
        """The task as the database has it. One that it does not have (it was away when the task was accepted, or has
        lost it) is stored now: from the message what was asked for, and nothing of what became of it. Raises NotATask
        for one that can't be stored."""
        stored = self._patiently(lambda: self._store.get(task.id))
        if stored is not None:
            return stored
        kind = kinds().get(task.kind)
        fresh = task.replace(
            status="pending",
            started_at=None,
            completed_at=None,
            retry_at=None,
            progress=0,
            steps=[],
            error=None,
            **(kind.blank_outputs() if kind else {}),
        )
        try:
            return self._patiently(lambda: self._store.insert(fresh))
        except Unstorable as error:
            raise NotATask("the database has no form for it") from error

    def _give_up(self, stored: Task) -> Decision:
        """Say why a task that nobody is at work on will not be done."""
        if stored.status == "running" and stored.deadline > self._clock():
            error = CRASHED
        else:
            error = expiry(stored, stored.document["error"])
        if self._patiently(lambda: self._store.fail(stored, error)):
            TASKS_FINISHED.labels(stored.kind, error["code"]).inc()
            log.info("failed: %s", error["code"])
            return Settled()
        return Wait(1)  # it has moved on since it was read: look again

    # --- run ---------------------------------------------------------------------------------------------------------

    def _attempt(self, task: Task) -> Decision:
        kind = kinds().get(task.kind)
        outputs = kind.outputs.model_fields.keys() if kind else ()
        step = Step(task.id, self._settings, task.attempts, task.document.get("steps"), outputs)
        attempt = Attempt(task, step, held=time.monotonic())
        with self._lock:
            self._running[task.id, task.attempts] = attempt
        TASKS_STARTED.labels(task.kind).inc()
        if task.attempts == 1:
            now = self._clock()
            self.reached = max(self.reached, min(task.queued_at or self.reached, now))
            QUEUED_SECONDS.observe((now - task.document["created_at"]).total_seconds())
        log.info("started attempt %s (%s)", task.attempts, task.kind)
        try:
            TASKS_RUNNING.inc()
            started = time.perf_counter()
            try:
                outcome = self._run(task, step)
            finally:
                TASKS_RUNNING.dec()
                TASK_SECONDS.labels(task.kind).observe(time.perf_counter() - started)
            return self._conclude(task, step, outcome)
        finally:
            with self._lock:
                del self._running[task.id, task.attempts]

    def _run(self, task: Task, step: Step) -> Document | Exception:
        """The handler's outputs, checked, or what it raised."""
        try:
            return self._outputs(task, step)
        except BaseException as error:
            if step.stop_reason is not None:  # whatever it raised, it raised because it was told to stop
                return Stopped(step.stop_reason)
            if isinstance(error, Failed | Retry | Crashed):
                return error
            log.exception("the handler of kind %s failed in an unforeseen way", task.kind)
            return Failed("internal_error", f"The handler failed in an unforeseen way ({type(error).__name__}).")

    def _outputs(self, task: Task, step: Step) -> Document:
        kind = kinds().get(task.kind)
        try:
            if kind is None:
                raise LookupError(task.kind)
            handler = self._handlers(task.kind)
        except LookupError:  # a newer function knows it, this engine not yet: an upgrade is on its way
            raise Retry("unknown_kind", f"This engine does not know tasks of kind {task.kind}.") from None
        try:
            inputs = kind.inputs_of(task.document)
        except InvalidRequest as error:
            fields = ", ".join(problem.field for problem in error.errors)
            raise Failed("invalid_input", f"The task's inputs are not valid for its kind: {fields}.") from None
        if task.crashes > 0:
            # It was there when an engine died. Whether it was the cause shows in a process of its own.
            return _checked(kind, run_isolated(task, inputs, step))
        return _checked(kind, handler(inputs, step))

    def _conclude(self, task: Task, step: Step, outcome: Document | Exception) -> Decision:
        """Write what has come out of an attempt, and decide what becomes of its message."""
        reported = {"steps": step.steps}
        if step.stop_reason == "lost":
            log.info("stopped: the task is cancelled, or another attempt has taken it over")
            return Settled()
        match outcome:
            case Stopped() if step.stop_reason == "draining":
                self._stubbornly(lambda: self._store.put_off(task, reported))
                return HandBack()
            case Stopped() if step.stop_reason is not None:
                error = {"code": "timed_out", "message": f"The task took longer than {step.stop_reason}."}
                return self._finish(task, "failed", {"error": error, **reported})
            case Failed():
                return self._finish(
                    task, "failed", {"error": {"code": outcome.code, "message": outcome.message}, **reported}
                )
            case Crashed() if task.crashes + 1 >= self._settings.crash_limit:
                return self._finish(task, "failed", {"error": CRASHED, **reported})
            case Crashed():
                error = {"code": "crashed", "message": "The task ended its process."}
                return self._put_off(task, error, reported, pause=_pause(task.crashes), count="crashes")
            case Retry():
                error = {"code": outcome.code, "message": outcome.message}
                pause = max(_pause(task.failures), outcome.after or 0)
                return self._put_off(task, error, reported, pause=pause, count="failures")
            case dict():
                return self._finish(task, "completed", {**outcome, "progress": 100, "error": None, **reported})
        error = {"code": "internal_error", "message": "The handler stopped without being asked to."}
        return self._finish(task, "failed", {"error": error, **reported})

    def _finish(self, task: Task, status: Literal["completed", "failed"], changes: Document) -> Decision:
        try:
            written = self._stubbornly(lambda: self._store.finish(task, status, changes))
        except Unstorable:
            status = "failed"
            changes = {"error": {"code": "invalid_output", "message": "The handler's result can't be stored."}}
            written = self._stubbornly(lambda: self._store.finish(task, "failed", changes))
        if not written and not self._was_written(task, status, changes["error"]):
            log.warning("the result of attempt %s came too late and is not kept", task.attempts)
            return Settled()
        reason = (changes["error"] or {"code": "completed"})["code"]
        TASKS_FINISHED.labels(task.kind, reason).inc()
        log.info("finished attempt %s: %s", task.attempts, reason)
        return Settled()

    def _put_off(self, task: Task, error: Document, reported: Document, *, pause: float, count: Setback) -> Decision:
        """Let the task wait for its next try, or give it up when its time would be over by then."""
        now = self._clock()
        if pause >= (task.deadline - now).total_seconds():
            return self._finish(task, "failed", {"error": expiry(task, error), **reported})
        retry_at = now + timedelta(seconds=pause)
        changes = {"error": error, **reported}
        written = self._stubbornly(lambda: self._store.put_off(task, changes, retry_at=retry_at, count=count))
        if not written and not self._was_written(task, "pending", error):
            return Settled()
        TASKS_PUT_OFF.labels(task.kind, error["code"]).inc()
        log.info("attempt %s put off for %.0f s: %s", task.attempts, pause, error["code"])
        return Wait(pause, {"x-attempt": task.attempts})

    def _was_written(self, task: Task, status: Status, error: Document | None) -> bool:
        """Whether an attempt's last write was refused only because it had been made: its answer was lost, and it was
        repeated."""
        stored = self._stubbornly(lambda: self._store.get(task.id))
        if stored is None:
            return False
        return (stored.status, stored.attempts, stored.document["error"]) == (status, task.attempts, error)

    def _patiently(self, operation: Callable[[], T], until: threading.Event | None = None) -> T:
        """Wait for a database that is away, however long it takes: the message is safe meanwhile, and the places that
        wait take no more. Raises Draining when the engine is to stop before the database is back."""
        for pause in itertools.chain(STORE_PAUSES, itertools.repeat(STORE_PAUSES[-1])):
            try:
                return operation()
            except StoreUnavailable:
                if (until or self.draining).wait(pause):
                    raise Draining from None
        raise AssertionError("unreachable: the pauses never end")

    def _stubbornly(self, operation: Callable[[], T]) -> T:
        """Wait for the database also while the engine stops, to the end of its grace: there is a result to lose."""
        return self._patiently(operation, until=self.hurry)


def _request_id(message: Message) -> dict[str, str]:
    request_id = message.headers.get("x-request-id")
    return {"request_id": request_id} if isinstance(request_id, str) else {}


def _checked(kind: Kind, outputs: Any) -> Document:
    """What a handler returned, if it is what its kind gives."""
    try:
        given = outputs.model_dump() if isinstance(outputs, kind.outputs) else outputs
        checked = kind.outputs.model_validate(given)
        size = len(checked.model_dump_json().encode())
    except ValidationError as error:
        wrong = [(item["loc"], item["type"]) for item in error.errors(include_input=False, include_url=False)]
        log.warning("the handler of kind %s returned what is not its kind's output: %s", kind.name, wrong)
        raise Failed("invalid_output", "The handler's result is not what this kind of task gives.") from None
    except ValueError:
        raise Failed("invalid_output", "The handler's result is not what this kind of task gives.") from None
    if size > MAX_OUTPUT_BYTES:
        raise Failed("invalid_output", f"The result is larger than {MAX_OUTPUT_BYTES // 1024 // 1024} MiB.")
    return checked.model_dump(mode="json")


def _pause(tries: int) -> float:
    """Seconds until the next try, after so many that failed. Whole ones: that is what wait queues are made for."""
    return max(1.0, round(min(LAST_PAUSE, FIRST_PAUSE * 2.0**tries) * random.uniform(0.75, 1.25)))
