"""POST /tasks/retry/<id>: a finished task starts again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest

from sluice.task import Task, utc_now
from tests.functions.conftest import Sluice, moment, problem_of


def finished(sluice: Sluice, **changes: Any) -> Task:
    """A task that failed half-way, an hour ago, in its third attempt."""
    then = utc_now() - timedelta(hours=1)
    return sluice.given(
        **{
            "status": "failed",
            "attempts": 3,
            "progress": 40,
            "steps": [{"name": "ask the model", "status": "failed", "ms": 12, "message": None}],
            "error": {"code": "crashed", "message": "The engine died of it."},
            "queued_at": then,
            "started_at": then,
            "completed_at": then,
            "code": "half of it",
            "model": "m",
            "engine": "engine-1",
            "crashes": 3,
            "failures": 2,
            **changes,
        }
    )


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_finished_task_starts_again_with_a_new_deadline_and_nothing_left_of_before(
    sluice: Sluice, status: str
) -> None:
    before = finished(sluice, status=status)
    response = sluice.retry(before.id)
    assert response.status_code == HTTPStatus.ACCEPTED
    assert response.headers["Location"] == f"/tasks/get/{before.id}"
    task = response.get_json()
    assert abs(moment(task["deadline"]) - (datetime.now(UTC) + timedelta(minutes=5))) < timedelta(minutes=1)
    assert abs(moment(task["queued_at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert task == before.to_json() | {
        "status": "pending",
        "deadline": task["deadline"],
        "queued_at": task["queued_at"],
        "started_at": None,
        "completed_at": None,
        "retry_at": None,
        "progress": 0,
        "steps": [],
        "error": None,
        "attempts": 3,
        "code": "",
        "model": None,
        "usage": None,
    }
    assert sluice.get(before.id).get_json() == task


def test_a_task_that_starts_again_is_whole_in_the_queue(sluice: Sluice) -> None:
    task = sluice.retry(finished(sluice).id, **{"X-Request-Id": "req-1"}).get_json()
    [message] = sluice.messages()
    assert message.id == task["_id"]
    assert Task.from_message(message.body).to_json() == task
    assert message.headers == {"x-request-id": "req-1"}


def test_a_task_that_starts_again_has_all_its_chances_and_a_higher_attempt(sluice: Sluice) -> None:
    before = finished(sluice)
    sluice.retry(before.id)
    stored = sluice.stored(before.id)
    assert stored is not None
    assert (stored.crashes, stored.failures) == (0, 0)
    assert sluice.start(before.id).attempts == 4


@pytest.mark.parametrize("status", ["pending", "running"])
def test_an_unfinished_task_can_not_be_retried(sluice: Sluice, status: str) -> None:
    task = sluice.given(status=status)
    assert status in problem_of(sluice.retry(task.id), HTTPStatus.CONFLICT)["detail"]
    stored = sluice.stored(task.id)
    assert stored is not None
    assert stored.document == task.document
    assert sluice.messages() == []


def test_of_two_who_retry_one_is_told_that_it_is_done(sluice: Sluice) -> None:
    task = finished(sluice)
    assert sluice.retry(task.id).status_code == HTTPStatus.ACCEPTED
    problem_of(sluice.retry(task.id), HTTPStatus.CONFLICT)
    assert len(sluice.messages()) == 1


def test_who_comes_second_by_a_hair_is_told_so(sluice: Sluice, monkeypatch: pytest.MonkeyPatch) -> None:
    task = finished(sluice)
    monkeypatch.setattr(sluice.store, "restart", lambda *_, **__: None)
    problem_of(sluice.retry(task.id), HTTPStatus.CONFLICT)
    assert sluice.messages() == []


def test_a_task_of_a_kind_that_is_gone_can_not_be_retried(sluice: Sluice) -> None:
    task = finished(sluice, kind="poem")
    problem_of(sluice.retry(task.id), HTTPStatus.CONFLICT)


@pytest.mark.parametrize("task_id", ["0" * 32, "x", "A" * 32, "%00", "$ne"])
def test_a_task_that_is_not_there_is_not_found(sluice: Sluice, task_id: str) -> None:
    problem_of(sluice.retry(task_id), HTTPStatus.NOT_FOUND)
