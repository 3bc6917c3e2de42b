"""POST /tasks/cancel/<id>: a task that is not finished can be stopped."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from tests.functions.conftest import Sluice, moment, problem_of


def test_a_waiting_task_is_cancelled_and_never_started(sluice: Sluice) -> None:
    task = sluice.add().get_json()
    response = sluice.cancel(task["_id"])
    assert response.status_code == HTTPStatus.OK
    assert response.headers["Cache-Control"] == "no-store"
    cancelled = response.get_json()
    assert moment(cancelled["completed_at"]) >= moment(task["created_at"])
    assert cancelled == task | {"status": "cancelled", "completed_at": cancelled["completed_at"]}
    assert sluice.get(task["_id"]).get_json() == cancelled
    with pytest.raises(AssertionError):
        sluice.start(task["_id"])


def test_a_running_task_is_cancelled_and_its_engine_can_not_finish_it(sluice: Sluice) -> None:
    task_id = sluice.add().get_json()["_id"]
    running = sluice.start(task_id)
    response = sluice.cancel(task_id)
    assert response.status_code == HTTPStatus.OK
    assert (response.get_json()["status"], response.get_json()["attempts"]) == ("cancelled", 1)
    assert "engine" not in response.get_json()
    assert not sluice.store.finish(running, "completed", {"code": "too late"})
    assert sluice.get(task_id).get_json() == response.get_json()


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_finished_task_can_not_be_cancelled(sluice: Sluice, status: str) -> None:
    task = sluice.given(status=status)
    assert status in problem_of(sluice.cancel(task.id), HTTPStatus.CONFLICT)["detail"]
    stored = sluice.stored(task.id)
    assert stored is not None
    assert stored.document == task.document


def test_cancelling_twice_says_so(sluice: Sluice) -> None:
    task_id = sluice.add().get_json()["_id"]
    sluice.cancel(task_id)
    problem_of(sluice.cancel(task_id), HTTPStatus.CONFLICT)


@pytest.mark.parametrize("task_id", ["0" * 32, "x", "A" * 32, "%00", "$ne"])
def test_a_task_that_is_not_there_is_not_found(sluice: Sluice, task_id: str) -> None:
    problem_of(sluice.cancel(task_id), HTTPStatus.NOT_FOUND)


def test_a_body_is_not_needed_and_does_no_harm(sluice: Sluice) -> None:
    task_id = sluice.add().get_json()["_id"]
    response = sluice.cancelling.post(f"/tasks/cancel/{task_id}", data=b"{", content_type="application/json")
    assert response.status_code == HTTPStatus.OK
