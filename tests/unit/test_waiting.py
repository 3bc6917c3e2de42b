"""Waiting, by a thread and by an event loop: the same coroutine, the same outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

from sluice import waiting
from sluice.waiting import Blocking, Done

#: Seconds that no test waits for in vain.
LONG = 30.0

Drive = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(params=["run", "run_async"])
def drive(request: pytest.FixtureRequest, threads: ThreadPoolExecutor) -> Drive:
    if request.param == "run":
        return waiting.run
    return lambda coroutine: asyncio.run(waiting.run_async(coroutine, threads))


def later(result: object) -> Future[Any]:
    """A future that another thread completes while somebody waits."""
    future: Future[Any] = Future()
    timer = threading.Timer(0.02, future.set_result, [result])
    timer.daemon = True
    timer.start()
    return future


def test_a_future_is_waited_for(drive: Drive) -> None:
    async def both() -> list[Any]:
        first, second = later(1), later(2)
        await Done(first, LONG)
        await Done(second)
        return [first.result(0), second.result(0)]

    assert drive(both()) == [1, 2]


def test_a_future_may_be_completed_by_the_loop_that_waits_for_it(threads: ThreadPoolExecutor) -> None:
    future: Future[int] = Future()

    async def wait() -> int:
        await Done(future, LONG)
        return future.result(0)

    async def both() -> int:
        asyncio.get_running_loop().call_soon(future.set_result, 4)
        return await waiting.run_async(wait(), threads)

    assert asyncio.run(both()) == 4


def test_a_future_that_is_done_is_not_waited_for(drive: Drive) -> None:
    done: Future[int] = Future()
    done.set_result(3)

    async def wait() -> int:
        await Done(done, 0)
        return done.result(0)

    assert drive(wait()) == 3


@pytest.mark.parametrize("seconds", [0.01, 0, -1])
def test_the_wait_ends_with_its_time_and_leaves_the_future_alone(drive: Drive, seconds: float) -> None:
    never: Future[None] = Future()

    async def wait() -> bool:
        await Done(never, seconds)
        return never.done()

    assert drive(wait()) is False
    assert not never.cancelled()
    never.set_result(None)  # nobody minds


def test_what_a_future_raises_is_for_who_looks_at_it(drive: Drive) -> None:
    failed: Future[None] = Future()
    threading.Timer(0.02, failed.set_exception, [KeyError("k")]).start()

    async def wait() -> str:
        await Done(failed, LONG)
        try:
            failed.result(0)
        except KeyError:
            return "seen"
        return "not seen"

    assert drive(wait()) == "seen"


def test_what_blocks_gives_its_result_or_raises(drive: Drive) -> None:
    async def work() -> list[Any]:
        seen = [await Blocking(lambda: 1)]
        try:
            await Blocking(lambda: {}["k"])
        except KeyError:
            seen.append("raised")
        return [*seen, await Blocking(lambda: 2)]

    assert drive(work()) == [1, "raised", 2]


def test_what_nobody_catches_ends_the_coroutine(drive: Drive) -> None:
    async def work() -> None:
        await Blocking(lambda: {}["k"])

    with pytest.raises(KeyError):
        drive(work())


def test_what_blocks_knows_the_context_that_it_was_called_in(drive: Drive) -> None:
    name: ContextVar[str] = ContextVar("name", default="nobody")

    async def work() -> str:
        token = name.set("ada")
        try:
            return await Blocking(name.get)
        finally:
            name.reset(token)

    assert drive(work()) == "ada"


def test_an_event_loop_goes_on_while_something_blocks(threads: ThreadPoolExecutor) -> None:
    released = threading.Event()

    async def block() -> bool:
        return await Blocking(lambda: released.wait(LONG))

    async def release() -> None:
        released.set()

    async def both() -> bool:
        blocked = asyncio.create_task(waiting.run_async(block(), threads))
        await asyncio.sleep(0)
        await release()
        return await blocked

    assert asyncio.run(both())
