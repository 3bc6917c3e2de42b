"""Posts the tasks. A try without an answer is repeated with the same Idempotency-Key: it stays one task."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator

import aiohttp

from tests.load.client import Meter
from tests.load.options import Options
from tests.load.plan import Post
from tests.load.record import Record, Run

#: How long one try may take, in seconds. Sluice itself answers within 5 s.
TRY_SECONDS = 15.0

#: How long a post is repeated, in seconds.
PATIENCE_SECONDS = 30.0

#: After how long without any answer posting ends, in seconds.
SILENCE_SECONDS = 40.0

#: The first pause before a repetition and the longest, in seconds; each is twice the one before.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0

#: What a try is answered with when the same try may be accepted a moment later.
REPEATED = frozenset({429, 502, 503, 504})

#: How long posts that are on their way still have, once posting was stopped.
LAST_SECONDS = 2.0


class Poster:
    """`on_accepted` is called with each record that was accepted."""

    def __init__(
        self, options: Options, run: Run, posts: Iterator[Post], meter: Meter, on_accepted: Callable[[Record], None]
    ) -> None:
        self._options = options
        self._run = run
        self._posts = posts
        self._meter = meter
        self._on_accepted = on_accepted
        self._stopped = asyncio.Event()

    def stop(self, reason: str) -> None:
        """Post no more."""
        if not self._stopped.is_set() and self._run.posting_ended is None:
            self._run.stopped = reason
        self._stopped.set()

    async def post_all(self) -> None:
        """Returns when each post was answered or given up."""
        run = self._run
        run.started = run.last_answer = run.clock()
        self._meter.start()
        headers = {"Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=TRY_SECONDS)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers=headers, timeout=timeout
        ) as session:
            # A worker a connection: a post that finds none free waits, and the clock runs from when it was due.
            workers = [asyncio.create_task(self._work(session)) for _ in range(self._options.connections)]
            stop = asyncio.create_task(self._wait_for_a_stop(workers))
            try:
                for worker in workers:
                    await asyncio.gather(worker, return_exceptions=True)
                    if not worker.cancelled():
                        worker.result()  # a mistake in here must not look like a quiet end
            finally:
                for task in [*workers, stop]:
                    task.cancel()
                await asyncio.gather(*workers, stop, return_exceptions=True)
                self._meter.stop()
                run.posting_ended = run.clock()

    async def _wait_for_a_stop(self, workers: list[asyncio.Task[None]]) -> None:
        while not self._stopped.is_set():
            silent = self._run.clock() - self._run.last_answer
            if self._run.away is not None and silent > SILENCE_SECONDS:
                self.stop(f"the server gave no answer for {SILENCE_SECONDS:g} s")
            try:
                await asyncio.wait_for(self._stopped.wait(), timeout=1)
            except TimeoutError:
                continue
        await asyncio.wait(workers, timeout=LAST_SECONDS)
        for worker in workers:
            worker.cancel()

    async def _work(self, session: aiohttp.ClientSession) -> None:
        run = self._run
        for post in self._posts:
            due = run.clock() if post.due is None else run.started + post.due
            if (early := due - run.clock()) > 0:
                await asyncio.sleep(early)
            if self._stopped.is_set():
                return
            record = Record(post.number, post.user, due=due, sent=run.clock())
            run.records.append(record)
            await self._post(session, post, record)

    async def _post(self, session: aiohttp.ClientSession, post: Post, record: Record) -> None:
        run, pause = self._run, FIRST_PAUSE
        reason: str | None = None
        try:
            while True:
                again, reason = await self._try(session, post, record)
                if reason is None:
                    run.accepted += 1
                    self._on_accepted(record)
                    return
                if not again or self._stopped.is_set() or run.clock() - record.sent > PATIENCE_SECONDS:
                    break
                run.repeats[reason] = run.repeats.get(reason, 0) + 1
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        except asyncio.CancelledError:
            reason = "no answer before posting was stopped"
            raise
        finally:
            self._meter.posted(record.sent - record.due, run.clock() - record.sent)
            if not record.id:
                record.refused = reason
                run.refused += 1

    async def _try(self, session: aiohttp.ClientSession, post: Post, record: Record) -> tuple[bool, str | None]:
        """One try: whether another one makes sense, and why it was not accepted (None: it was)."""
        run = self._run
        record.tries += 1
        url = f"{self._options.url}/tasks/add"
        try:
            async with session.post(url, data=post.body, headers={"Idempotency-Key": post.key}) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            run.away = why(error)
            return True, f"no answer: {run.away}"
        run.heard()
        if answer.status == 202:
            record.answered = run.clock()
            document = json.loads(content)
            record.id = document["_id"]
            record.learn(document)
            return False, None
        return answer.status in REPEATED, refusal(answer.status, content)


def refusal(status: int, content: bytes) -> str:
    """The status and the title of the problem, and the fields that it names."""
    try:
        problem = json.loads(content)
        fields = ", ".join(error["field"] for error in problem.get("errors", []))
        return f"{status} {problem['title']}" + (f" ({fields})" if fields else "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{status} without problem details"  # a proxy's


def why(error: BaseException) -> str:
    """Why there was no answer, in few words and without addresses, so that the same reason is one line in a table."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "connection closed"
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number).lower()
    return type(error).__name__
