"""How questions of many threads are combined, with an answerer that is a function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore

import pytest

from sluice.combining import Combiner
from tests.waiting import eventually


class Answers:
    """Answers a round with ten times each question, once it may."""

    def __init__(self, threads: ThreadPoolExecutor, at_once: int) -> None:
        self.rounds: list[list[int]] = []
        self.may = Semaphore(0)
        self._threads = threads
        self._combiner = Combiner(self.answer, at_once=at_once)

    def answer(self, questions: Sequence[int]) -> list[int]:
        self.rounds.append(list(questions))
        assert self.may.acquire(timeout=10)
        if 13 in questions:
            raise ZeroDivisionError
        return [10 * question for question in questions]

    def ask(self, *questions: int) -> list[Future[int]]:
        """Ask, each question on a thread of its own, in this order."""
        futures = []
        for question in questions:
            known = len(self._combiner._waiting) + len(self.rounds)
            futures.append(self._threads.submit(self._combiner, question))
            eventually(lambda known=known: len(self._combiner._waiting) + len(self.rounds) == known + 1)
        return futures


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.mark.parametrize("at_once", [1, 2])
def test_who_comes_while_as_many_rounds_as_may_be_are_on_their_way_goes_with_all_others(
    threads: ThreadPoolExecutor, at_once: int
) -> None:
    answers = Answers(threads, at_once)
    alone = answers.ask(*range(at_once))
    together = answers.ask(7, 8, 9)
    assert answers.rounds == [[number] for number in range(at_once)], "nobody waits for company"
    answers.may.release()
    eventually(lambda: answers.rounds[at_once:] == [[7, 8, 9]])
    answers.may.release(at_once)
    assert [future.result(5) for future in (*alone, *together)] == [*range(0, 10 * at_once, 10), 70, 80, 90]
    answers.may.release()
    assert answers.ask(4)[0].result(5) == 40, "it is free again"


def test_a_round_holds_no_more_than_it_may(threads: ThreadPoolExecutor) -> None:
    answers = Answers(threads, 1)
    answers._combiner._most = 2
    futures = answers.ask(1, 2, 3, 4, 5, 6)
    answers.may.release(10)
    assert [future.result(5) for future in futures] == [10, 20, 30, 40, 50, 60]
    assert answers.rounds == [[1], [2, 3], [4, 5], [6]]


def test_what_a_round_raises_is_raised_to_all_of_it_and_to_nobody_else(threads: ThreadPoolExecutor) -> None:
    answers = Answers(threads, 1)
    [before] = answers.ask(1)
    failed = answers.ask(2, 13)
    answers.may.release()
    assert before.result(5) == 10
    eventually(lambda: len(answers.rounds) == 2)
    [after] = answers.ask(3)
    answers.may.release(2)
    for future in failed:
        with pytest.raises(ZeroDivisionError):
            future.result(5)
    assert after.result(5) == 30


def test_an_answer_too_few_is_an_error_and_nobody_waits_for_it(threads: ThreadPoolExecutor) -> None:
    combiner: Combiner[int, int] = Combiner(lambda _questions: [])
    for _ in range(2):
        with pytest.raises(ValueError, match="zip"):
            threads.submit(combiner, 1).result(5)


@pytest.mark.parametrize("at_once", [1, 3])
def test_each_thread_gets_its_own_answer(hasty_threads: None, at_once: int) -> None:
    combiner: Combiner[int, int] = Combiner(lambda questions: [-question for question in questions], at_once=at_once)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(combiner, range(5000))) == [-number for number in range(5000)]
    assert combiner._free == at_once
