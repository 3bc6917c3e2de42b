"""One of the two services alive is enough to accept a task; with both away nothing is kept."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import Literal

import pytest
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from sluice.errors import BrokerUnavailable, StoreUnavailable
from sluice.services import install
from sluice.settings import Settings
from sluice.sweep import send_unqueued
from sluice.task import Task
from tests.functions.conftest import Sluice, problem_of

DOORS = ["flask", "async"]
EVERY_WAY_TO_BE_AWAY = pytest.mark.parametrize("away", ["refuses", "silent"])
Away = Literal["refuses", "silent"]


def unavailable(response: TestResponse) -> str:
    problem = problem_of(response, HTTPStatus.SERVICE_UNAVAILABLE)
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["Cache-Control"] == "no-store"
    detail: str = problem["detail"]
    return detail


# --- add -------------------------------------------------------------------------------------------------------------


@EVERY_WAY_TO_BE_AWAY
def test_with_the_queue_away_a_task_is_accepted_and_stored_to_be_queued_later(sluice: Sluice, away: Away) -> None:
    sluice.broker.away = away
    response = sluice.add()
    assert response.status_code == HTTPStatus.ACCEPTED
    task = response.get_json()
    assert task["queued_at"] is None
    assert response.headers["Location"] == f"/tasks/get/{task['_id']}"
    assert sluice.get(task["_id"]).get_json() == task
    assert [found.id for found in sluice.store.unqueued(10)] == [task["_id"]]
    assert sluice.messages() == []


def test_a_message_that_is_not_confirmed_in_time_is_taken_back(sluice: Sluice) -> None:
    sluice.broker.away = "silent"
    sluice.add()
    [future] = sluice.broker.unconfirmed
    assert future.cancelled()


def test_with_the_database_away_a_task_is_accepted_and_whole_in_the_queue(sluice: Sluice) -> None:
    sluice.database.is_away = True
    response = sluice.add(language="go")
    assert response.status_code == HTTPStatus.ACCEPTED
    task = response.get_json()
    assert task["queued_at"] == task["created_at"]
    [message] = sluice.messages()
    assert message.id == task["_id"]
    assert Task.from_message(message.body).to_json() == task
    sluice.database.is_away = False
    assert sluice.stored(task["_id"]) is None


@pytest.mark.parametrize("key", [None, "order-1"])
@EVERY_WAY_TO_BE_AWAY
def test_with_both_away_nothing_is_accepted_and_nothing_kept(sluice: Sluice, away: Away, key: str | None) -> None:
    sluice.broker.away, sluice.database.is_away = away, True
    unavailable(sluice.add(key=key))
    assert all(future.cancelled() for future in sluice.broker.unconfirmed)
    sluice.broker.away, sluice.database.is_away = None, False
    assert sluice.is_empty()


def test_a_closed_queue_is_an_away_queue(sluice: Sluice) -> None:
    sluice.broker.close()
    response = sluice.add()
    assert (response.status_code, response.get_json()["queued_at"]) == (HTTPStatus.ACCEPTED, None)


@EVERY_WAY_TO_BE_AWAY
def test_a_key_works_while_one_of_the_two_is_away(sluice: Sluice, away: Away) -> None:
    sluice.broker.away = away
    first = sluice.add(key="k")
    assert sluice.add(key="k").get_json() == first.get_json()
    problem_of(sluice.add(key="k", objective="Subtract."), HTTPStatus.UNPROCESSABLE_ENTITY)
    sluice.broker.away, sluice.database.is_away = None, True
    again = sluice.add(key="k")
    assert (again.status_code, again.get_json()["_id"]) == (HTTPStatus.ACCEPTED, first.get_json()["_id"])


def test_a_bad_request_is_told_so_whatever_is_away(sluice: Sluice) -> None:
    sluice.broker.away, sluice.database.is_away = "refuses", True
    problem_of(sluice.add(objective=""), HTTPStatus.BAD_REQUEST)


def test_once_they_are_back_tasks_are_accepted_as_ever(sluice: Sluice) -> None:
    sluice.broker.away, sluice.database.is_away = "refuses", True
    unavailable(sluice.add())
    sluice.broker.away, sluice.database.is_away = None, False
    task = sluice.add().get_json()
    assert task["queued_at"] is not None
    assert sluice.get(task["_id"]).get_json() == task


def test_accepted_tasks_are_counted_by_where_they_are_kept(sluice: Sluice) -> None:
    sluice.database.is_away = True
    sluice.add()
    sluice.broker.away, sluice.database.is_away = "refuses", False
    sluice.add()
    metrics = sluice.adding.get("/metrics").text
    for place in ("queue", "database"):
        assert f'sluice_tasks_accepted_total{{kept_by="{place}",kind="code"}}' in metrics


def accepted_by(sluice: Sluice, place: str) -> float:
    """How many tasks were accepted, and kept there at first."""
    families = text_string_to_metric_families(sluice.adding.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return sum(
        one.value for one in samples if one.name == "sluice_tasks_accepted_total" and one.labels["kept_by"] == place
    )


@pytest.mark.parametrize("away", [None, "refuses", "silent"])
def test_a_database_that_never_says_whether_it_has_stored_is_not_waited_for_ever(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch, away: Away | None
) -> None:
    storing = Future[Task]()
    monkeypatch.setattr(sluice.store, "insert_soon", lambda _task: storing)
    short = {"PUBLISH_TIMEOUT_SECONDS": "0.1", "STORE_TIMEOUT_SECONDS": "0.1"}
    install(replace(sluice.services, settings=Settings.load(environment=short)))
    sluice.broker.away = away
    before = accepted_by(sluice, "queue")
    response = sluice.add()
    assert storing.cancelled(), "what was not sent by then never will be"
    if away is None:
        assert response.status_code == HTTPStatus.ACCEPTED
        assert [message.id for message in sluice.messages()] == [response.get_json()["_id"]]
        assert accepted_by(sluice, "queue") == before + 1
    else:
        unavailable(response)
        assert all(future.cancelled() for future in sluice.broker.unconfirmed)
        assert sluice.messages() == []
        assert accepted_by(sluice, "queue") == before


# --- add, while the queue comes back ---------------------------------------------------------------------------------


def come_back_before_the_next_insert(sluice: Sluice, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored by then is sent; the task that is about to be is not."""
    insert = sluice.store.insert

    def come_back(task: Task) -> Task:
        sluice.broker.away = None
        send_unqueued(sluice.store, sluice.broker, 1)
        return insert(task)

    monkeypatch.setattr(sluice.store, "insert", come_back)


def wait_for_the_queue(sluice: Sluice, seconds: int) -> None:
    settings = Settings.load(environment={"PUBLISH_TIMEOUT_SECONDS": str(seconds)})
    install(replace(sluice.services, settings=settings))


def test_a_queue_that_comes_back_before_a_task_is_stored_gets_it_at_once(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_the_queue(sluice, 30)
    sluice.broker.away = "refuses"
    come_back_before_the_next_insert(sluice, monkeypatch)
    task = sluice.add().get_json()
    [message] = sluice.messages()
    assert Task.from_message(message.body).to_json() == task == sluice.get(task["_id"]).get_json()
    assert task["queued_at"] is not None
    assert sluice.store.unqueued(10) == []


def test_a_queue_that_was_waited_for_in_vain_is_not_waited_for_again(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    sluice.broker.away = "silent"
    come_back_before_the_next_insert(sluice, monkeypatch)
    task = sluice.add().get_json()
    assert len(sluice.broker.unconfirmed) == 1
    assert sluice.messages() == []
    assert [found.id for found in sluice.store.unqueued(10)] == [task["_id"]], "for the sweep"


@pytest.mark.parametrize("ends", [False, True], ids=["begun", "cancelled"])
def test_what_happens_to_a_task_before_it_is_noted_that_it_is_not_queued_is_in_the_answer(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """Its message was in the queue after all, and an engine was faster; or its owner cancelled it."""
    insert = sluice.store.insert

    def insert_and_more(task: Task) -> Task:
        stored = insert(task)
        if ends:
            assert sluice.store.cancel(task.id)
        else:
            assert sluice.store.claim(task.id, engine="engine-1", lease=timedelta(seconds=10))
        return stored

    monkeypatch.setattr(sluice.store, "insert", insert_and_more)
    sluice.broker.away = "silent"
    response = sluice.add()
    assert response.status_code == HTTPStatus.ACCEPTED
    task = response.get_json()
    assert task["status"] == ("cancelled" if ends else "running")
    assert task == sluice.get(task["_id"]).get_json()
    assert len(sluice.broker.unconfirmed) == 1, "nothing is sent again"


def test_two_tries_to_send_wait_no_longer_than_one(sluice: Sluice, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def refuse(*given: object) -> None:
        waited.append(given[-1])  # type: ignore[arg-type]
        raise BrokerUnavailable("the queue is full")

    wait_for_the_queue(sluice, 30)
    monkeypatch.setattr(sluice.broker, "send", refuse)
    monkeypatch.setattr("sluice.service.publish", refuse)
    assert sluice.add().get_json()["queued_at"] is None
    _, second = waited
    assert second < 30, "of what the first try has left"


# --- retry -----------------------------------------------------------------------------------------------------------


@EVERY_WAY_TO_BE_AWAY
def test_with_the_queue_away_a_retry_is_accepted_to_be_queued_later(sluice: Sluice, away: Away) -> None:
    task_id = sluice.given(status="failed").id
    sluice.broker.away = away
    response = sluice.retry(task_id)
    assert response.status_code == HTTPStatus.ACCEPTED
    assert (response.get_json()["status"], response.get_json()["queued_at"]) == ("pending", None)
    assert sluice.get(task_id).get_json() == response.get_json()
    assert [found.id for found in sluice.store.unqueued(10)] == [task_id]


def test_a_retry_that_is_queued_counts_even_if_the_database_goes_away_before_it_is_noted(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("the database does not answer")

    monkeypatch.setattr(sluice.store, "mark_queued", fail)
    task_id = sluice.given(status="failed").id
    response = sluice.retry(task_id)
    assert response.status_code == HTTPStatus.ACCEPTED
    assert response.get_json()["status"] == "pending"
    assert [message.id for message in sluice.messages()] == [task_id]


def test_with_the_database_away_there_is_no_retry(sluice: Sluice) -> None:
    task = sluice.given(status="failed")
    sluice.database.is_away = True
    unavailable(sluice.retry(task.id))
    assert sluice.messages() == []
    sluice.database.is_away = False
    assert sluice.get(task.id).get_json() == task.to_json()


# --- get and cancel --------------------------------------------------------------------------------------------------


def test_with_the_database_away_nothing_can_be_shown(sluice: Sluice) -> None:
    task_id = sluice.add().get_json()["_id"]
    sluice.database.is_away = True
    unavailable(sluice.get(task_id))
    unavailable(sluice.list())
    unavailable(sluice.list(view="summary"))
    unavailable(sluice.getting.get("/tasks/get/overview?user_id=ada"))


def test_with_the_database_away_the_kinds_are_still_shown(sluice: Sluice) -> None:
    sluice.database.is_away = True
    assert sluice.getting.get("/tasks/get/kinds").status_code == HTTPStatus.OK


def test_with_the_database_away_nothing_is_cancelled(sluice: Sluice) -> None:
    task_id = sluice.add().get_json()["_id"]
    sluice.database.is_away = True
    unavailable(sluice.cancel(task_id))
    sluice.database.is_away = False
    assert sluice.get(task_id).get_json()["status"] == "pending"


def test_with_the_queue_away_tasks_are_shown_and_cancelled_as_ever(sluice: Sluice) -> None:
    task_id = sluice.add().get_json()["_id"]
    sluice.broker.away = "refuses"
    assert sluice.get(task_id).status_code == HTTPStatus.OK
    assert sluice.list().status_code == HTTPStatus.OK
    assert sluice.cancel(task_id).status_code == HTTPStatus.OK


def test_what_can_be_no_id_is_not_found_even_with_the_database_away(sluice: Sluice) -> None:
    sluice.database.is_away = True
    problem_of(sluice.get("x"), HTTPStatus.NOT_FOUND)
    problem_of(sluice.cancel("x"), HTTPStatus.NOT_FOUND)
    problem_of(sluice.retry("x"), HTTPStatus.NOT_FOUND)
