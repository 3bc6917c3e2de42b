"""The database does what it is asked, but its answer is lost, and the engine asks again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from functions.engine.handler import Retry, Step
from functions.engine.worker import Settled, Wait
from sluice.task import Document
from tests.engine.doubles import Bench, Database, message_of


class Forgetful(Database):
    """Loses the answers of the next so many operations of a name."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: Counter[str] = Counter()

    def _operate(self, name: str, run: Callable[[], Any], *arguments: Document) -> Any:
        answer = super()._operate(name, run, *arguments)
        if self.lost[name] > 0:
            self.lost[name] -= 1
            raise AutoReconnect("the answer is lost")
        return answer


@pytest.fixture
def bench() -> Bench:
    return Bench(database=Forgetful())


def lose(bench: Bench, name: str) -> None:
    assert isinstance(bench.database, Forgetful)
    bench.database.lost[name] = 1


@pytest.mark.parametrize(("attempts", "claim"), [(0, "update_one"), (1, "find_one_and_update")])
def test_a_claim_whose_answer_was_lost_is_still_this_engines(bench: Bench, attempts: int, claim: str) -> None:
    task = bench.stored(attempts=attempts)
    lose(bench, claim)
    assert bench.worker(lambda inputs, _step: {"message": inputs.text}).work(message_of(task)) == Settled()
    done = bench.now(task)
    assert (done.status, done.attempts, done.crashes) == ("completed", attempts + 1, 0)
    assert isinstance(bench.database, Forgetful)
    assert bench.database.lost[claim] == 0, "it was asked"


def test_a_result_whose_answer_was_lost_is_counted_as_written(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def handler(inputs: Any, step: Step) -> Document:
        lose(bench, "update_one")
        return {"message": inputs.text}

    task = bench.stored()
    assert bench.worker(handler).work(message_of(task)) == Settled()
    assert bench.now(task).status == "completed"
    assert "too late" not in caplog.text


def test_a_pause_whose_answer_was_lost_keeps_the_message(bench: Bench) -> None:
    def handler(inputs: Any, step: Step) -> Document:
        lose(bench, "update_one")
        raise Retry("busy", "The model is busy.")

    task = bench.stored()
    assert isinstance(bench.worker(handler).work(message_of(task)), Wait), (
        "the task is pending: its message must not go"
    )
    put_off = bench.now(task)
    assert (put_off.status, put_off.failures) == ("pending", 1)
