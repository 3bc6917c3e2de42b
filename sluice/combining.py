"""Flat combining: of the threads that ask for the same at the same time, one asks for all of them.

The idea is Hendler, Incze, Shavit and Tzafrir's (https://doi.org/10.1145/1810479.1810540). It is for callers that may
block; `sluice.writer` is for those that may not.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class _Call(Generic[Q, A]):
    __slots__ = ("answers", "error", "group", "question", "woken")

    def __init__(self, question: Q) -> None:
        self.question = question
        #: The one answer, once it is there; or why there is none.
        self.answers: list[A] = []
        self.error: BaseException | None = None
        #: The calls that this one is to ask for, itself first; None while somebody else may ask for it.
        self.group: list[_Call[Q, A]] | None = None
        self.woken = threading.Lock()
        self.woken.acquire()


class Combiner(Generic[Q, A]):
    """Calls `ask` with the questions of many threads.

    `at_once` rounds may be on their way at the same time. Who comes while there are fewer asks at once, for itself
    alone: nobody waits for company. Who come meanwhile go together, up to `most`, in the next round that begins, which
    one of them makes. So rounds are small while answers are quick, and grow with the time that they take.
    """

    def __init__(self, ask: Callable[[Sequence[Q]], Sequence[A]], *, at_once: int = 1, most: int = sys.maxsize) -> None:
        """`ask` gives one answer to each question, in their order; what it raises is raised to all who asked."""
        self._ask = ask
        self._free, self._most = at_once, most
        self._lock = threading.Lock()
        self._waiting: list[_Call[Q, A]] = []

    def __call__(self, question: Q) -> A:
        call: _Call[Q, A] = _Call(question)
        with self._lock:
            if self._free:
                self._free -= 1
                call.group = [call]
            else:
                self._waiting.append(call)
        if call.group is None:
            call.woken.acquire()
        if call.group is not None:
            self._lead(call.group)
        if call.error is not None:
            raise call.error
        return call.answers[0]

    def _lead(self, group: list[_Call[Q, A]]) -> None:
        try:
            for call, answer in zip(group, self._ask([call.question for call in group]), strict=True):
                call.answers.append(answer)
        except BaseException as error:
            for call in group:
                call.error = error
        with self._lock:
            following, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            if following:
                following[0].group = following
            else:
                self._free += 1
        for call in (*following[:1], *group[1:]):
            call.woken.release()
