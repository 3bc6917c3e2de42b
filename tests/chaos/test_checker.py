"""The judge itself: it finds nothing in a history that kept the promises, and each breach where there is one."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sluice.task import Task
from tests.chaos.bugs import BUGS
from tests.chaos.checker import AFTERMATH, RULES, check
from tests.chaos.history import Document, History, Interval, Mend, Request, Run, Wish
from tests.chaos.schedule import Fault, schedule

T0 = datetime(2026, 1, 1, tzinfo=UTC)
DONE, CANCELLED, EXPIRED, RETRIED = (character * 32 for character in "0123")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def life(task_id: str, mark: str, *changes: Document) -> list[Document]:
    """Versions of a probe: pending, and then changed step by step."""
    first = {
        "_id": task_id,
        "user_id": "ada",
        "kind": "probe",
        "mark": mark,
        "milliseconds": 10,
        "outcome": "done",
        "created_at": T0,
        "queued_at": T0,
        "started_at": None,
        "completed_at": None,
        "deadline": at(60),
        "retry_at": None,
        "status": "pending",
        "progress": 0,
        "steps": [],
        "attempts": 0,
        "error": None,
        "made_by": 0,
    }
    versions = [first]
    for change in changes:
        versions.append({**versions[-1], **change})
    return versions


RUNNING = {"status": "running", "attempts": 1, "started_at": at(1), "engine": "e1"}
COMPLETED = {"status": "completed", "completed_at": at(2), "made_by": 1, "progress": 100}
EXPIRY = {"code": "expired", "message": "No engine could take the task before its time was over. Try it again."}


def request(action: str, task_id: str, status: int | None, sent: float, body: Document | None = None) -> Request:
    return Request(action, "ada", at(sent).timestamp(), at(sent + 0.1).timestamp(), status, body or {}, None, task_id)


@pytest.fixture
def good() -> History:
    versions = {
        DONE: life(DONE, "m0", RUNNING, COMPLETED),
        CANCELLED: life(CANCELLED, "m1", RUNNING, {"status": "cancelled", "completed_at": at(2)}),
        EXPIRED: life(EXPIRED, "m2", {"status": "failed", "completed_at": at(61), "error": EXPIRY}),
        RETRIED: life(
            RETRIED,
            "m3",
            RUNNING,
            COMPLETED,
            {"status": "pending", "completed_at": None, "made_by": 0, "deadline": at(65)},
            {**RUNNING, "attempts": 2},
            {**COMPLETED, "made_by": 2},
        ),
    }
    history = History(
        wishes={f"m{n}": Wish(f"m{n}", "ada", "probe", None) for n in range(4)},
        versions=versions,
        faults=[Interval(Fault(0, "servers", "kill", "broker", 9, 0), at(20).timestamp(), at(90).timestamp())],
        runs=[Run(DONE, 1, 0, 1), Run(CANCELLED, 1, 0), Run(RETRIED, 1, 0, 1), Run(RETRIED, 2, 0, 1)],
        healthy=["m0"],
        queues={"tasks": 0, "dead": 0, "unreadable": 2},
        garbage=2,
        calm=at(90).timestamp(),
        settled=at(95).timestamp(),
    )
    for mark, (task_id, lives) in enumerate(versions.items()):
        added = request("add", "", 202, 0, {"_id": task_id})
        added.mark, added.task_id = f"m{mark}", None
        history.requests += [added, request("get", task_id, 200, 100, Task(lives[-1]).to_json())]
    history.requests += [request("cancel", CANCELLED, 200, 1.5), request("retry", RETRIED, None, 4)]
    return history


def test_nothing_is_found_where_nothing_is_wrong(good: History) -> None:
    assert check(good) == []


def change(task_id: str, **fields: object) -> Callable[[History], None]:
    """One more version of a task."""
    return lambda history: history.versions[task_id].append({**history.versions[task_id][-1], **fields})


def insert(task_id: str, place: int, **fields: object) -> Callable[[History], None]:
    def do(history: History) -> None:
        versions = history.versions[task_id]
        versions.insert(place, {**versions[place - 1], **fields})

    return do


def alter(task_id: str, **fields: object) -> Callable[[History], None]:
    """The last version is another one."""
    return lambda history: history.versions[task_id][-1].update(fields)


def say(action: str, task_id: str, status: int, sent: float, body: Document | None = None) -> Callable[[History], None]:
    return lambda history: history.requests.append(request(action, task_id, status, sent, body))


def second_task(history: History) -> None:
    history.versions["9" * 32] = [{**version, "_id": "9" * 32} for version in history.versions[DONE]]
    history.runs.append(Run("9" * 32, 1, 0, 1))


def older_read(history: History) -> None:
    old = Task(history.versions[DONE][0]).to_json()
    history.requests.append(request("get", DONE, 200, 101, old))


BREACHES: list[tuple[str, Callable[[History], None]]] = [
    ("what_is_accepted_exists", lambda history: history.versions.pop(DONE)),
    ("every_task_comes_to_its_end", lambda history: history.versions[DONE].pop()),
    ("every_task_comes_to_its_end", lambda history: setattr(history, "settled", None)),
    ("queues_are_empty_at_the_end", lambda history: history.queues.update(dead=1)),
    ("queues_are_empty_at_the_end", lambda history: history.queues.update(unreadable=1)),
    ("only_legal_moves", insert(CANCELLED, 1, status="completed", made_by=0)),
    ("only_legal_moves", lambda history: history.versions[DONE].pop(0)),
    ("an_end_is_final", change(DONE, made_by=2)),
    ("an_end_is_final", change(DONE, status="pending")),
    ("attempts_only_grow", insert(DONE, 2, attempts=0)),
    ("attempts_only_grow", insert(DONE, 2, attempts=3)),
    ("the_deadline_stands", insert(DONE, 2, deadline=at(99))),
    ("the_deadline_stands", insert(DONE, 2, milliseconds=11)),
    ("a_start_is_in_time", insert(DONE, 2, attempts=2, started_at=at(61))),
    ("a_result_is_the_newest_attempts", alter(RETRIED, made_by=1)),
    ("a_result_is_the_newest_attempts", lambda history: history.runs.clear()),
    ("one_result_a_life", change(DONE, status="failed", error=EXPIRY)),
    ("a_cancelled_task_gets_no_result", change(CANCELLED, made_by=1)),
    ("a_cancelled_task_gets_no_result", alter(DONE, status="cancelled")),
    ("an_answer_is_what_was_stored", say("get", DONE, 200, 50, {"status": "completed"})),
    ("an_answer_is_what_was_stored", older_read),
    ("a_failure_has_a_reason_that_happened", lambda history: history.faults.clear()),
    ("a_failure_has_a_reason_that_happened", alter(EXPIRED, completed_at=at(30))),
    ("a_failure_has_a_reason_that_happened", alter(EXPIRED, error={"code": "crashed", "message": ""})),
    ("a_failure_has_a_reason_that_happened", alter(EXPIRED, error={"code": "internal_error", "message": ""})),
    ("a_failure_has_a_reason_that_happened", alter(EXPIRED, error={"code": "probe_failed", "message": ""})),
    ("a_failure_has_a_reason_that_happened", alter(EXPIRED, error={"code": "refused", "message": ""})),
    ("a_completed_task_was_asked_to", lambda history: setattr(history.wishes["m0"], "outcome", "fail")),
    ("one_wish_is_one_task", second_task),
    ("answers_are_those_of_the_contract", say("get", DONE, 500, 50)),
    ("answers_are_those_of_the_contract", say("get", DONE, 404, 101)),
    ("processes_behave", lambda history: history.misconduct.append("engine-0 ended by itself with 1")),
    ("a_healthy_run_calls_the_model_once", lambda history: history.calls.update({DONE: 1})),
    ("every_attempt_calls_the_model_once", lambda history: history.calls.update({RETRIED: 3})),
    (
        "the_sweep_is_not_needed_in_the_calm",
        lambda history: history.mends.append(Mend(history.calm + AFTERMATH + 1, DONE, "abandoned")),
    ),
]


@pytest.mark.parametrize(("rule", "breach"), BREACHES, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(BREACHES)])
def test_each_breach_is_found(good: History, rule: str, breach: Callable[[History], None]) -> None:
    broken = copy.deepcopy(good)
    breach(broken)
    assert rule in {violation.rule for violation in check(broken)}


def test_the_document_names_each_rule_and_each_bug(root: Path) -> None:
    text = (root / "docs/reliability.md").read_text()
    assert {rule.__name__ for rule in RULES} <= set(re.findall(r"`(\w+)`", text))
    assert set(BUGS) <= set(re.findall(r"`([a-z-]+)`", text))


def test_each_rule_is_tried() -> None:
    assert {rule for rule, _ in BREACHES} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("name", BUGS)
def test_each_bug_can_still_be_made(root: Path, tmp_path: Path, name: str) -> None:
    file = BUGS[name].file
    (tmp_path / file).parent.mkdir(parents=True)
    shutil.copy(root / file, tmp_path / file)
    BUGS[name].put_into(tmp_path)
    compile((tmp_path / file).read_text(), file, "exec")


def test_a_seed_is_a_schedule() -> None:
    assert schedule(7, 300) == schedule(7, 300)
    assert schedule(7, 300) != schedule(8, 300)
    assert schedule(7, 300)[:20] == schedule(7, 600)[:20], "a longer storm begins as a shorter one"
