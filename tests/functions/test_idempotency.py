"""Idempotency-Key: a request that is sent again is the same task, not a second one."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from sluice.task import id_from_key
from tests.functions.conftest import Sluice, bad_fields, problem_of


def test_the_same_key_and_body_give_the_same_task(sluice: Sluice) -> None:
    first, second = sluice.add(key="order-1"), sluice.add(key="order-1")
    assert first.status_code == second.status_code == HTTPStatus.ACCEPTED
    assert first.get_json() == second.get_json()
    assert first.headers["Location"] == second.headers["Location"]
    assert len(sluice.list().get_json()["tasks"]) == 1
    assert len(sluice.messages()) == 1


def test_a_key_in_quotes_is_the_same_as_a_bare_one(sluice: Sluice) -> None:
    assert sluice.add(key='"order-1"').get_json() == sluice.add(key="order-1").get_json()


def test_a_default_that_is_given_is_the_same_body(sluice: Sluice) -> None:
    assert sluice.add(key="k").get_json() == sluice.add(key="k", language="python", kind="code").get_json()


def test_another_key_is_another_task(sluice: Sluice) -> None:
    assert sluice.add(key="order-1").get_json()["_id"] != sluice.add(key="order-2").get_json()["_id"]


def test_without_a_key_every_request_is_a_task(sluice: Sluice) -> None:
    assert sluice.add().get_json()["_id"] != sluice.add().get_json()["_id"]


def test_the_same_key_for_another_user_is_another_task(sluice: Sluice) -> None:
    first, second = sluice.add(key="k", user_id="ada"), sluice.add(key="k", user_id="bob")
    assert second.status_code == HTTPStatus.ACCEPTED
    assert first.get_json()["_id"] != second.get_json()["_id"]
    assert second.get_json()["user_id"] == "bob"


def test_the_same_key_with_another_body_is_refused(sluice: Sluice) -> None:
    task = sluice.add(key="k").get_json()
    for response in (
        sluice.add(key="k", objective="Subtract."),
        sluice.add(key="k", language="go"),
        sluice.adding.post(
            "/tasks/add",
            json={"user_id": "ada", "kind": "message", "text": "Add."},
            headers={"Idempotency-Key": "k"},
        ),
    ):
        problem_of(response, HTTPStatus.UNPROCESSABLE_ENTITY)
    assert sluice.list().get_json()["tasks"] == [task]
    assert len(sluice.messages()) == 1


@pytest.mark.parametrize("key", ["", " ", '""', "x" * 256, "é", "a\tb"])
def test_a_key_that_is_none_is_refused_by_name(sluice: Sluice, key: str) -> None:
    assert bad_fields(sluice.add(key=key)) == ["Idempotency-Key"]
    assert sluice.is_empty()


@pytest.mark.parametrize("key", ["x", "x" * 255, '"', "two words", "8e03978e-40d5-43dd-bc93-6894a57f9324"])
def test_every_other_key_is_taken(sluice: Sluice, key: str) -> None:
    assert sluice.add(key=key).status_code == HTTPStatus.ACCEPTED


def test_a_key_that_is_used_again_shows_the_task_as_it_is_now(sluice: Sluice) -> None:
    task_id = sluice.add(key="k").get_json()["_id"]
    sluice.complete(task_id, code="print(1)")
    replayed = sluice.add(key="k")
    assert replayed.status_code == HTTPStatus.ACCEPTED
    assert (replayed.get_json()["status"], replayed.get_json()["code"]) == ("completed", "print(1)")
    assert replayed.get_json() == sluice.get(task_id).get_json()
    assert "engine" not in replayed.get_json()
    assert len(sluice.messages()) == 1, "a task that is done is not sent again"


def test_a_key_still_means_the_same_task_after_a_crash_between_the_two_writes(sluice: Sluice) -> None:
    sluice.database.is_away = True
    first = sluice.add(key="k").get_json()
    sluice.database.is_away = False
    second = sluice.add(key="k").get_json()
    assert first["_id"] == second["_id"] == id_from_key("ada", "k")
    assert {message.id for message in sluice.messages()} == {first["_id"]}
    assert len(sluice.list().get_json()["tasks"]) == 1


def test_a_body_that_is_refused_does_not_use_its_key_up(sluice: Sluice) -> None:
    assert bad_fields(sluice.add(key="k", objective="")) == ["objective"]
    assert sluice.add(key="k").status_code == HTTPStatus.ACCEPTED
