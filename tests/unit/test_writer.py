"""How writes are grouped, with a database that is a function."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import pytest

from sluice import writer
from sluice.errors import SluiceError, StoreUnavailable, Unstorable
from sluice.task import Task
from sluice.writer import GroupWriter
from tests.waiting import eventually


class Database:
    """Takes groups one after the other; may be held, and may be away."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.goes_on = Event()
        self.goes_on.set()
        self.is_away = False
        self.writer = GroupWriter(self.write)

    def write(self, tasks: Sequence[Task]) -> list[Task | SluiceError]:
        self.groups.append([task.id for task in tasks])
        assert self.goes_on.wait(10)
        if self.is_away:
            raise StoreUnavailable("away")
        return [Unstorable("bad") if task.id == "bad" else task for task in tasks]

    def add(self, *names: str) -> list[Future[Task]]:
        return [self.writer.add(Task({"_id": name})) for name in names]

    def hold(self) -> Future[Task]:
        """Have the database busy with one task, so that those that follow wait."""
        self.goes_on.clear()
        (first,) = self.add("first")
        eventually(lambda: self.groups[-1:] == [["first"]])
        return first


@pytest.fixture
def database() -> Database:
    return Database()


def test_what_comes_while_a_group_is_on_its_way_is_the_next_group(database: Database) -> None:
    first = database.hold()
    futures = database.add("a", "b", "c")
    database.goes_on.set()
    assert [future.result(5).id for future in (first, *futures)] == ["first", "a", "b", "c"]
    assert database.groups == [["first"], ["a", "b", "c"]]


def test_each_task_has_an_outcome_of_its_own(database: Database) -> None:
    database.hold()
    good, bad, other = database.add("good", "bad", "other")
    database.goes_on.set()
    assert (good.result(5).id, other.result(5).id) == ("good", "other")
    with pytest.raises(Unstorable):
        bad.result(5)


def test_a_cancelled_task_that_was_not_sent_never_is(database: Database) -> None:
    first = database.hold()
    taken_back, kept = database.add("a", "b")
    assert taken_back.cancel()
    assert not first.cancel(), "it is on its way"
    database.goes_on.set()
    assert kept.result(5).id == "b"
    assert database.groups == [["first"], ["b"]]
    assert database.writer._count == database.writer._bytes == 0


@pytest.mark.parametrize(("bound", "value"), [("MAX_WAITING", 3), ("MAX_WAITING_BYTES", 3 * writer._FRAME_BYTES)])
def test_more_than_may_wait_is_refused_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    database.hold()
    monkeypatch.setattr(writer, bound, value)
    waiting: list[Future[Task]] = []
    with suppress(StoreUnavailable):
        for number in range(10):
            waiting += database.add(str(number))
    assert len(waiting) == 3
    database.goes_on.set()
    assert [future.result(5).id for future in waiting] == [str(number) for number in range(len(waiting))]
    assert database.add("again")[0].result(5).id == "again", "there is room again"


@pytest.mark.parametrize(("bound", "value"), [("MAX_GROUP", 2), ("MAX_GROUP_BYTES", 2 * writer._FRAME_BYTES + 2)])
def test_large_groups_are_parted(database: Database, monkeypatch: pytest.MonkeyPatch, bound: str, value: int) -> None:
    monkeypatch.setattr(writer, bound, value)
    database.hold()
    futures = database.add("a", "b", "c", "d", "e")
    database.goes_on.set()
    assert [future.result(5).id for future in futures] == ["a", "b", "c", "d", "e"]
    assert database.groups == [["first"], ["a", "b"], ["c", "d"], ["e"]]


def test_when_the_database_is_away_all_that_waited_fail_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tries: the one that was on its way, and one for all that came meanwhile, however many groups they are."""
    monkeypatch.setattr(writer, "MAX_GROUP", 2)
    futures = [database.hold(), *database.add("a", "b", "c", "d", "e")]
    database.is_away = True
    database.goes_on.set()
    for future in futures:
        with pytest.raises(StoreUnavailable):
            future.result(5)
    assert database.groups == [["first"], ["a", "b"]]
    database.is_away = False
    assert database.add("later")[0].result(5).id == "later"


def test_an_unforeseen_error_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    broken = [True]

    def write(tasks: Sequence[Task]) -> Sequence[Task]:
        if broken:
            raise ZeroDivisionError
        return tasks

    group_writer = GroupWriter(write)
    with pytest.raises(ZeroDivisionError):
        group_writer.add(Task({"_id": "a"})).result(5)
    broken.clear()
    assert group_writer.add(Task({"_id": "b"})).result(5).id == "b"
    assert "unforeseen" in caplog.text


def test_closing_writes_what_waits_and_takes_no_more(database: Database) -> None:
    database.hold()
    futures = database.add("a", "b")
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(database.writer.close)
        time.sleep(0.05)
        assert not closing.done()
        database.goes_on.set()
        closing.result(5)
    assert all(future.done() for future in futures)
    assert database.writer._thread is not None
    assert not database.writer._thread.is_alive()
    with pytest.raises(StoreUnavailable):
        database.add("late")


def test_there_is_no_thread_before_the_first_task(database: Database) -> None:
    """A thread that ran before a fork would be missing after it."""
    assert database.writer._thread is None
    database.writer.close()
