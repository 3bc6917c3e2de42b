"""One run: post, watch, observe, until all is known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from tests.load.client import Meter
from tests.load.observers import NotObserved, Sampler, observers_for
from tests.load.options import Options
from tests.load.plan import WrongUsage, posts
from tests.load.poster import Poster, why
from tests.load.record import Run
from tests.load.watcher import Watcher

#: How long the first answer may take, in seconds.
FIRST_ANSWER_SECONDS = 10.0

#: Pause between two looks at whether the replicas are zero again, in seconds.
ZERO_SECONDS = 0.2


class Unreachable(Exception):
    """Sluice did not answer before the first post; the message says why."""


class Load:
    """A run, made inside an event loop. `stop` may be called at any time: no more posts, no more waiting."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.run = Run()
        self.meter = Meter()
        self._observers = observers_for(options)
        self._poster: Poster | None = None
        self._watching: asyncio.Task[None] | None = None

    def stop(self) -> None:
        self.run.interrupted = True
        if self._poster is not None:
            self._poster.stop("interrupted")
        if self._watching is not None:
            self._watching.cancel()  # it may be waiting for a server that is frozen

    async def carry_out(self, show: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Returns when all is known that will be. `show` runs meanwhile. Raises Unreachable or WrongUsage before
        the first post."""
        run, options = self.run, self.options
        try:
            plan = posts(options, await fetch_kinds(options.url))
            for observer in self._observers:
                await observer.observe()
            watcher = Watcher(options, run)
            self._poster = Poster(options, run, plan, self.meter, watcher.add)
            if run.interrupted:
                return
            sampler = Sampler(run, self._observers)
            async with asyncio.TaskGroup() as group:
                sampling = group.create_task(sampler.sample())
                showing = group.create_task(show()) if show else None
                async with asyncio.TaskGroup() as work:
                    work.create_task(self._poster.post_all())
                    self._watching = work.create_task(watcher.watch())
                if run.open and not run.interrupted:
                    await watcher.last_look()
                elif self._sees_replicas:
                    await self._wait_for_zero()
                sampler.stop()
                await sampling
                if showing is not None:
                    showing.cancel()
        except NotObserved as error:
            raise WrongUsage(f"it can't be observed: {error}") from None
        finally:
            for observer in self._observers:
                await observer.close()

    @property
    def _sees_replicas(self) -> bool:
        return any("replicas_ready" in sample.observed for sample in self.run.samples)

    async def _wait_for_zero(self) -> None:
        until = self.run.clock() + self.options.back_to_zero
        while not self.run.interrupted and self.run.clock() < until and not is_zero(self.run.samples[-1].observed):
            await asyncio.sleep(ZERO_SECONDS)


def is_zero(observed: dict[str, int]) -> bool:
    """Whether no replica is wanted, and none is there."""
    return observed.get("replicas_wanted") == 0 and observed.get("replicas_ready") == 0


async def fetch_kinds(url: str) -> list[dict[str, Any]]:
    """What `GET /tasks/get/kinds` lists. Raises Unreachable."""
    timeout = aiohttp.ClientTimeout(total=FIRST_ANSWER_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{url}/tasks/get/kinds") as answer:
            content = await answer.read()
        if answer.status != 200:
            raise Unreachable(f"{url} answers {answer.status} to GET /tasks/get/kinds: is Sluice there?")
        kinds: list[dict[str, Any]] = json.loads(content)["kinds"]
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unreachable(f"{url} can't be reached: {why(error)}") from None
    except (ValueError, KeyError, TypeError):
        raise Unreachable(f"{url} is something else than Sluice: it does not list kinds of task") from None
    return kinds
