"""The written model of what Sluice promises, held against a history. Each rule is a function that yields what breaks
it; `check` asks them all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from sluice.kinds.code import Outputs as CodeOutputs
from sluice.task import MOVES, Task
from tests.chaos.history import TERMINAL, Document, History, mark_of, seconds

#: Seconds from the last fault to the end of the last task: the tasks' time, what a message may spend in a wait queue on
#: its way to the dead letters, and the sweep's patience.
SETTLED_WITHIN = 90.0

#: Seconds after the last fault until which the sweep may still find what a fault has left behind.
AFTERMATH = 25.0

#: Seconds that a fault's consequences may outlast it: connections that are opened again, heartbeats that were missed.
ECHO = 25.0

#: The fields that tell what a task is, and never change.
IDENTITY = ("_id", "user_id", "kind", "objective", "language", "mark", "milliseconds", "outcome", "text", "created_at")

#: What a task shows of its result.
RESULTS = ("made_by", "message", *CodeOutputs.model_fields)

#: Why a task of kind `code` may fail for good, and the faults of the model of which one must have been on.
MODEL_REASONS = {
    "model_access": {"401"},
    "refused": {"refuse", "content_filter"},
    "cut_off": {"length"},
    "empty_answer": {"empty"},
}


@dataclass(frozen=True)
class Violation:
    rule: str
    task_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what} ({self.task_id or 'no task'})"


Rule = Callable[[History], Iterator[tuple[str, str]]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


def check(history: History) -> list[Violation]:
    """All that is broken; nothing, if the promises were kept."""
    return [Violation(one.__name__, task_id, what) for one in RULES for task_id, what in one(history)]


# --- accepted means done or explained --------------------------------------------------------------------------------


@rule
def what_is_accepted_exists(history: History) -> Iterator[tuple[str, str]]:
    """The task of each 202 is in the database at the end."""
    for mark, task_id in history.accepted.items():
        if task_id not in history.versions:
            yield task_id, f"{mark} was answered 202 and is nowhere"


@rule
def every_task_comes_to_its_end(history: History) -> Iterator[tuple[str, str]]:
    """Each task that exists is terminal in time after the last fault, asked for with success or not."""
    for task_id, versions in history.versions.items():
        if versions[-1]["status"] not in TERMINAL:
            yield task_id, f"still {versions[-1]['status']}"
    if history.settled is None:
        yield "", f"not everything was settled {SETTLED_WITHIN:g} s after the last fault: {history.queues}"


@rule
def queues_are_empty_at_the_end(history: History) -> Iterator[tuple[str, str]]:
    """Nothing is left in any queue but the garbage, of which every piece is kept."""
    for name, count in history.queues.items():
        if count and name != "unreadable":
            yield "", f"{count} messages left in {name}"
    kept = history.queues.get("unreadable", 0)
    # A piece that is moved while its queue's connection is cut may be moved twice.
    if kept < history.garbage:
        yield "", f"{history.garbage} messages were no tasks, {kept} are kept"
    if kept > 2 * (history.garbage + history.garbage_perhaps) + 10:
        yield "", f"{history.garbage} (or {history.garbage_perhaps} more) were no tasks, but {kept} are kept"


# --- one task's life -------------------------------------------------------------------------------------------------


@rule
def only_legal_moves(history: History) -> Iterator[tuple[str, str]]:
    """The status goes along the arrows of a task's life, from pending."""
    for task_id, versions in history.versions.items():
        if versions[0]["status"] != "pending":
            yield task_id, f"began as {versions[0]['status']}"
        for old, new in _changes(versions):
            if old["status"] != new["status"] and new["status"] not in MOVES[old["status"]]:
                yield task_id, f"{old['status']} to {new['status']}"


@rule
def an_end_is_final(history: History) -> Iterator[tuple[str, str]]:
    """A terminal document changes only when somebody retries it, no more often than it was asked for."""
    for task_id, versions in history.versions.items():
        restarts = 0
        for old, new in _changes(versions):
            if old["status"] in TERMINAL:
                if new["status"] == "pending":
                    restarts += 1
                else:
                    yield task_id, f"changed after its end: {_difference(old, new)}"
        asked = history.asked(task_id, "retry")
        if restarts > asked:
            yield task_id, f"left its end {restarts} times, but was retried {asked} times"


@rule
def attempts_only_grow(history: History) -> Iterator[tuple[str, str]]:
    """One by one, and only when the task is started."""
    for task_id, versions in history.versions.items():
        for old, new in _changes(versions):
            grown = new["attempts"] - old["attempts"]
            if grown not in (0, 1) or (grown == 1 and new["status"] != "running"):
                yield task_id, f"attempts from {old['attempts']} to {new['attempts']}, {new['status']}"


@rule
def the_deadline_stands(history: History) -> Iterator[tuple[str, str]]:
    """Only a person's retry gives a task more time; what a task is never changes at all."""
    for task_id, versions in history.versions.items():
        for old, new in _changes(versions):
            restarted = old["status"] in TERMINAL and new["status"] == "pending"
            if old["deadline"] != new["deadline"] and not restarted:
                yield task_id, f"the deadline moved from {old['deadline']} to {new['deadline']}"
            for name in IDENTITY:
                if old.get(name) != new.get(name):
                    yield task_id, f"{name} changed"


@rule
def a_start_is_in_time(history: History) -> Iterator[tuple[str, str]]:
    """No attempt begins after the deadline."""
    for task_id, versions in history.versions.items():
        for old, new in _changes(versions):
            if new["attempts"] > old["attempts"] and new["started_at"] >= new["deadline"]:
                yield task_id, f"attempt {new['attempts']} began at {new['started_at']}, after {new['deadline']}"


# --- results ---------------------------------------------------------------------------------------------------------


@rule
def a_result_is_the_newest_attempts(history: History) -> Iterator[tuple[str, str]]:
    """What a completed task shows was made by the attempt whose number it carries, to the end."""
    ended = {(run.task_id, run.attempt) for run in history.runs if run.ended is not None}
    for task_id, versions in history.versions.items():
        for task in versions:
            if task["status"] != "completed":
                continue
            if task["kind"] == "probe":
                if task["made_by"] != task["attempts"]:
                    yield task_id, f"the result of attempt {task['made_by']}, at attempt {task['attempts']}"
                elif (task_id, task["attempts"]) not in ended:
                    yield task_id, f"a result of attempt {task['attempts']}, which never got so far"
            elif task["kind"] == "code" and not task["code"]:
                yield task_id, "completed without code"
            elif task["kind"] == "message" and task["message"] != task["text"]:
                yield task_id, "completed with another text"


@rule
def one_result_a_life(history: History) -> Iterator[tuple[str, str]]:
    """Between two retries at most one end is ever written."""
    for task_id, versions in history.versions.items():
        for life in _lives(versions):
            ends = [task for task in life if task["status"] in TERMINAL]
            if len(ends) > 1:
                yield task_id, f"{len(ends)} ends in one life: {[end['status'] for end in ends]}"


@rule
def a_cancelled_task_gets_no_result(history: History) -> Iterator[tuple[str, str]]:
    """Cancelled only because somebody asked; then its outputs stay as they were."""
    for task_id, versions in history.versions.items():
        for old, new in _changes(versions):
            if new["status"] == "cancelled":
                if any(old.get(name) != new.get(name) for name in RESULTS):
                    yield task_id, "a result appeared in a cancelled task"
                if old["status"] != "cancelled" and not history.asked(task_id, "cancel"):
                    yield task_id, "cancelled, and nobody asked for it"


@rule
def an_answer_is_what_was_stored(history: History) -> Iterator[tuple[str, str]]:
    """Each read shows one version of the task as it was stored, and no read an older one than a read before it."""
    shown: dict[str, list[Document]] = {}
    newest: dict[str, tuple[float, int]] = {}
    for request in sorted(history.requests, key=lambda one: one.ended):
        task_id = request.task_id
        if request.action != "get" or request.status != 200 or task_id is None:
            continue
        if task_id not in shown:
            shown[task_id] = [Task(version).to_json() for version in history.versions.get(task_id, [])]
        places = [place for place, version in enumerate(shown[task_id]) if version == request.body]
        if not places:
            yield task_id, f"a read showed what was never stored: {request.body}"
            continue
        ended, place = newest.get(task_id, (0.0, 0))
        if request.sent >= ended and places[-1] < place:
            yield task_id, f"a read showed version {places[-1]} after one that showed {place}"
        newest[task_id] = (request.ended, max(place, places[0]))


# --- why -------------------------------------------------------------------------------------------------------------


@rule
def a_failure_has_a_reason_that_happened(history: History) -> Iterator[tuple[str, str]]:
    """Each error code is held against what was asked for and what was broken at that time."""
    for task_id, versions in history.versions.items():
        for life in _lives(versions):
            if life[-1]["status"] == "failed" and (complaint := _unexplained(history, life)):
                yield task_id, f"{life[-1]['error']['code']}: {complaint}"


def _unexplained(history: History, life: list[Document]) -> str | None:
    """What is wrong with the reason that a failed life gives; None if it happened."""
    task = life[-1]
    began, ended = seconds(task["deadline"]) - history.ttl, seconds(task["completed_at"])
    code, wish = task["error"]["code"], history.wish_of(task)
    faults = history.faults_between(began - ECHO, ended)
    if wish is None:
        return "nobody wished for this task"
    if code == "probe_failed":
        return None if wish.outcome == "fail" else "the probe was not asked to fail"
    if code == "crashed":
        return None if wish.kind == "poison" else "this task harms nobody"
    if code == "expired":
        early = task["completed_at"] < task["deadline"]
        if early and "The last try" not in task["error"]["message"]:
            return f"its time was over only at {task['deadline']}"
        return None if faults else "nothing was broken in all its time"
    if code == "timed_out":
        return None if faults and task["attempts"] else "nothing was broken while it ran"
    if code in MODEL_REASONS:
        on = {one.fault.sort for one in faults if one.fault.lane == "model"}
        return None if on & MODEL_REASONS[code] else f"the model's faults at that time were {sorted(on)}"
    return "no task of these may fail so"


@rule
def a_completed_task_was_asked_to(history: History) -> Iterator[tuple[str, str]]:
    """No task is completed that should have failed, and a poison never is."""
    for task_id, versions in history.versions.items():
        for life in _lives(versions):
            wish = history.wish_of(life[-1])
            if life[-1]["status"] == "completed" and wish and (wish.outcome == "fail" or wish.kind == "poison"):
                yield task_id, f"a {wish.kind} that was to {wish.outcome} is completed"


# --- clients ---------------------------------------------------------------------------------------------------------


@rule
def one_wish_is_one_task(history: History) -> Iterator[tuple[str, str]]:
    """However often a client asks for the same thing with one Idempotency-Key (or once, without), there is one task."""
    tasks = Counter(mark_of(versions[0]) for versions in history.versions.values())
    for mark, count in tasks.items():
        if count > 1:
            yield "", f"{count} tasks for {mark}"
    ids = defaultdict(set)
    for request in history.requests:
        if request.action == "add" and request.status == 202:
            ids[request.mark].add(request.body["_id"])
    for mark, answered in ids.items():
        if len(answered) > 1:
            yield "", f"{mark} was answered with {len(answered)} ids"


@rule
def answers_are_those_of_the_contract(history: History) -> Iterator[tuple[str, str]]:
    """No answer has a status that the call does not have in this use: above all, none says 500."""
    expected = {
        "add": {202, 503},
        "get": {200, 404, 503},
        "cancel": {200, 404, 409, 503},
        "retry": {202, 404, 409, 503},
    }
    found: set[str] = set()
    for request in sorted(history.requests, key=lambda one: one.sent):
        if request.status is not None and request.status not in expected[request.action]:
            yield request.task_id or "", f"{request.action} was answered {request.status}: {request.body}"
        if request.status == 404 and request.task_id in found:
            yield request.task_id or "", f"{request.action} said 404 after a read had found it"
        if request.status == 200 and request.task_id is not None and request.ended <= request.sent + 1:
            found.add(request.task_id)


@rule
def processes_behave(history: History) -> Iterator[tuple[str, str]]:
    """None ends by itself, but for a poisoned engine; each obeys SIGTERM in its grace period, with exit status 0."""
    for what in history.misconduct:
        yield "", what


# --- no waste, no luck -----------------------------------------------------------------------------------------------


@rule
def a_healthy_run_calls_the_model_once(history: History) -> Iterator[tuple[str, str]]:
    """Before the storm each task is done at its first attempt, with one call to the model where it needs one."""
    ids = {mark_of(versions[0]): task_id for task_id, versions in history.versions.items()}
    for mark in history.healthy:
        task_id = ids.get(mark)
        if task_id is None:
            yield "", f"{mark} is nowhere"
            continue
        first = _lives(history.versions[task_id])[0][-1]
        calls = history.calls.get(task_id, 0)
        if first["attempts"] != 1 or calls != (first["kind"] == "code"):
            yield task_id, f"{first['kind']}: {first['attempts']} attempts, {calls} calls"


@rule
def every_attempt_calls_the_model_once(history: History) -> Iterator[tuple[str, str]]:
    """Also in the storm: no attempt asks the model more often than the library's own retries explain (none)."""
    for task_id, calls in history.calls.items():
        versions = history.versions.get(task_id)
        if versions and calls > versions[-1]["attempts"]:
            yield task_id, f"{calls} calls in {versions[-1]['attempts']} attempts"


@rule
def the_sweep_is_not_needed_in_the_calm(history: History) -> Iterator[tuple[str, str]]:
    """What faults have left behind is brought on by messages alone: the sweep is for messages that were lost, and
    nothing loses one in the calm. (A task whose message the tests took away is excused.)"""
    for mend in history.mends:
        if mend.at > history.calm + AFTERMATH and mend.task_id not in history.stolen:
            yield mend.task_id, f"mended ({mend.what}) {mend.at - history.calm:.0f} s after the last fault"


# ---------------------------------------------------------------------------------------------------------------------


def _changes(versions: list[Document]) -> Iterator[tuple[Document, Document]]:
    return pairwise(versions)


def _lives(versions: list[Document]) -> list[list[Document]]:
    """The versions between two retries."""
    lives = [[versions[0]]]
    for old, new in _changes(versions):
        if old["status"] in TERMINAL and new["status"] == "pending":
            lives.append([])
        lives[-1].append(new)
    return lives


def _difference(old: Document, new: Document) -> str:
    names = [name for name in {*old, *new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {old.get(name)!r} to {new.get(name)!r}"[:120] for name in sorted(names))
