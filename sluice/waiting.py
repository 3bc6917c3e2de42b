"""One way to write what waits, for doors that block and for doors that don't.

A coroutine of this module's awaitables does not know who drives it: `run` blocks its thread at each of them, while
`run_async` lets the event loop go on. So the same code answers under Flask and in the framework's async mode.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

T = TypeVar("T")


class Pending(Protocol):
    """What a coroutine can wait for, in either way."""

    def wait(self) -> Any:
        """Wait on this thread."""

    async def wait_async(self, threads: concurrent.futures.Executor) -> Any:
        """Wait while the event loop goes on."""


class Done:
    """`await Done(future, seconds)`: until the future is done, or the time is over (never, if None). Look at the future
    for what came of it."""

    def __init__(self, future: concurrent.futures.Future[Any], seconds: float | None = None) -> None:
        self.future = future
        self.seconds = None if seconds is None else max(0.0, seconds)

    def __await__(self) -> Generator[Pending, None, None]:
        if not self.future.done():
            yield self

    def wait(self) -> None:
        concurrent.futures.wait([self.future], self.seconds)

    async def wait_async(self, _threads: concurrent.futures.Executor) -> None:
        loop, here = asyncio.get_running_loop(), threading.get_ident()
        over: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            if not over.done():
                over.set_result(None)

        def end_from_its_thread(_: object) -> None:
            if threading.get_ident() == here:
                end()
                return
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(end)

        self.future.add_done_callback(end_from_its_thread)
        timer = None if self.seconds is None else loop.call_later(self.seconds, end)
        try:
            await over
        finally:
            if timer is not None:
                timer.cancel()


class Blocking(Generic[T]):
    """`await Blocking(function)`: what a function gives, or raises, that may block its thread."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function

    def __await__(self) -> Generator[Pending, T, T]:
        return (yield self)

    def wait(self) -> T:
        return self._function()

    async def wait_async(self, threads: concurrent.futures.Executor) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, self._function)


def run(coroutine: Coroutine[Pending, Any, T]) -> T:
    """The coroutine's result, waited for on this thread."""
    go_on: Callable[[], Pending] = partial(coroutine.send, None)
    try:
        while True:
            pending = go_on()
            try:
                go_on = partial(coroutine.send, pending.wait())
            except BaseException as error:
                go_on = partial(coroutine.throw, error)
    except StopIteration as end:
        return cast("T", end.value)


async def run_async(coroutine: Coroutine[Pending, Any, T], threads: concurrent.futures.Executor) -> T:
    """The coroutine's result; what blocks is done by `threads`."""
    go_on: Callable[[], Pending] = partial(coroutine.send, None)
    try:
        while True:
            pending = go_on()
            try:
                go_on = partial(coroutine.send, await pending.wait_async(threads))
            except BaseException as error:
                go_on = partial(coroutine.throw, error)
    except StopIteration as end:
        return cast("T", end.value)
