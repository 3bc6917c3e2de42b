"""Watches the tasks to their end, through the public API, at a cost that does not depend on how many they are.

- A user with few tasks is looked at with one list of summaries. It carries an ETag: while nothing changes, 304 is all.
- A user with many tasks is looked at with one overview (its ETag too), which counts the tasks of each status. Only when
  more are finished than are known, the lists of that status are read, newest first, until as many new ones were found.
  Tasks are done about in the order in which they came, so that this is one page as a rule.
- At the end, tasks that were never seen finished are asked for by their id, once: a task that is gone says 404.

Looks are paced, so that watching is a small part of the load: LOOKS_A_SECOND and REST say how.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlencode

import aiohttp

from tests.load.options import Options
from tests.load.poster import why
from tests.load.record import TERMINAL, Document, Record, Run

#: Looks a second while tasks are posted, and when that is over.
LOOKS_A_SECOND, LOOKS_A_SECOND_AFTERWARDS = 20.0, 100.0

#: The least seconds between two looks at the same user.
USER_SECONDS = 1.0

#: A user with at most so many tasks is looked at with one list. The longest page of a list (its own limit).
FEW_TASKS, PAGE = 50, 200

#: How long one answer may take, and the pause after none came, in seconds.
ANSWER_SECONDS, AWAY_SECONDS = 10.0, 1.0

#: Where an answer's tag is kept beside its fields.
ETAG = "ETag"

#: Looks at once; how many times as long as a look the pause after it is, and the longest such pause in seconds: where
#: answers are slow because the server is busy, watching must not be what it is busy with.
WATCHERS, REST, LONGEST_REST = 2, 5.0, 2.0


@dataclass
class Watched:
    """One user: the tasks that are not known to be finished, and what was heard last."""

    name: str
    total: int = 0
    open: dict[str, Record] = field(default_factory=dict)
    #: How many of the user's tasks were seen in each final status.
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TERMINAL, 0))
    #: The ids of those, and what is known of those whose posts are still without an answer.
    finished: set[str] = field(default_factory=set)
    early: dict[str, Document] = field(default_factory=dict)
    #: The last answer of each path that has an ETag.
    answers: dict[str, tuple[str, Document]] = field(default_factory=dict)
    next_look: float = 0.0


class Watcher:
    def __init__(self, options: Options, run: Run) -> None:
        self._options = options
        self._run = run
        self._users: dict[str, Watched] = {}
        self._waiting: deque[Watched] = deque()

    def add(self, record: Record) -> None:
        """Watch this task too."""
        if (user := self._users.get(record.user)) is None:
            user = self._users[record.user] = Watched(record.user)
            self._waiting.append(user)
        user.total += 1
        if (document := user.early.pop(record.id, None)) is not None:
            record.learn(document)
        if not record.is_terminal:
            user.open[record.id] = record
            return
        self._run.finished += 1
        if record.id not in user.finished:  # its first post was accepted without an answer, and it is done already
            user.finished.add(record.id)
            user.seen[str(record.status)] += 1

    async def watch(self) -> None:
        """Returns when posting is over and each accepted task is known to be finished, or after the timeout."""
        async with self._session() as session:
            watchers = [asyncio.create_task(self._work(session)) for _ in range(WATCHERS)]
            try:
                await asyncio.gather(*watchers)
            finally:
                for watcher in watchers:
                    watcher.cancel()
                await asyncio.gather(*watchers, return_exceptions=True)

    async def last_look(self) -> None:
        """Ask for each task that is still open by its id: afterwards `status` is what it is, "gone", or "unknown"."""
        left = deque(record for user in self._users.values() for record in user.open.values())

        async def work() -> None:
            while left:
                record = left.popleft()
                try:
                    status, document = await self._get(session, f"/tasks/get/{record.id}")
                except _Away:
                    left.appendleft(record)
                    return
                if status == 200:
                    self._note(self._users[record.user], document)
                else:  # an error's answer does not say how the task is
                    record.status = "gone" if status == 404 else "unknown"

        async with self._session() as session:
            await asyncio.gather(*(work() for _ in range(WATCHERS)))
        for record in left:
            record.status = "unknown"

    def _session(self) -> aiohttp.ClientSession:
        # Connections of its own: a look must not wait behind the posts.
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=WATCHERS), timeout=timeout)

    @property
    def _is_over(self) -> bool:
        run = self._run
        if run.posting_ended is None:
            return False
        return run.open == 0 or run.clock() > run.posting_ended + self._options.timeout

    async def _work(self, session: aiohttp.ClientSession) -> None:
        run = self._run
        while not self._is_over:
            pause = WATCHERS / (LOOKS_A_SECOND if run.posting_ended is None else LOOKS_A_SECOND_AFTERWARDS)
            user = self._next()
            if user is not None:
                began = run.clock()
                try:
                    await self._look(session, user)
                    pause = max(pause, min(REST * (run.clock() - began), LONGEST_REST))
                except _Away:
                    pause = AWAY_SECONDS
                finally:
                    user.next_look = run.clock() + USER_SECONDS
                    self._waiting.append(user)
            await asyncio.sleep(pause)

    def _next(self) -> Watched | None:
        """The user that was not looked at for the longest time; None while it is nobody's turn."""
        for _ in range(len(self._waiting)):
            if self._waiting[0].open and self._waiting[0].next_look <= self._run.clock():
                return self._waiting.popleft()
            self._waiting.rotate(-1)
        return None

    async def _look(self, session: aiohttp.ClientSession, user: Watched) -> None:
        if user.total <= FEW_TASKS:
            page = await self._ask(session, user, user_id=user.name, view="summary", limit=FEW_TASKS)
            for document in page["tasks"]:
                self._note(user, document)
            return
        overview = await self._ask(session, user, "/overview", user_id=user.name)
        for status in TERMINAL:
            cursor: str | None = None
            while (new := overview["tasks"][status] - user.seen[status]) > 0:
                query = {"cursor": cursor} if cursor else {}
                # A few more than are new: the order in which tasks end is not quite the one in which they came.
                limit = min(PAGE, new + new // 4 + 5)
                path = {"user_id": user.name, "status": status, "view": "summary", "limit": limit}
                page = await self._ask(session, None, **path, **query)
                for document in page["tasks"]:
                    self._note(user, document)
                if (cursor := page["next"]) is None:
                    break

    def _note(self, user: Watched, document: Document) -> None:
        """Take over what is said of a task."""
        task_id = document["_id"]
        if (record := user.open.get(task_id)) is not None:
            record.learn(document)
        if document["status"] in TERMINAL and task_id not in user.finished:
            user.seen[document["status"]] += 1
            user.finished.add(task_id)
            if record is None:
                user.early[task_id] = document
            else:
                del user.open[task_id]
                self._run.finished += 1

    async def _ask(
        self, session: aiohttp.ClientSession, user: Watched | None, call: str = "", **query: str | int
    ) -> Document:
        """The answer to `GET /tasks/get<call>`. With a user it is kept, and the server asked whether it changed.
        Raises _Away."""
        path = f"/tasks/get{call}?{urlencode(query)}"
        tag, kept = ("", {}) if user is None else user.answers.get(path, ("", {}))
        status, document = await self._get(session, path, tag)
        if status == 304:
            return kept
        if status != 200:
            raise _Away
        if user is not None:
            user.answers[path] = (document.pop(ETAG), document)
        return document

    async def _get(self, session: aiohttp.ClientSession, path: str, tag: str = "") -> tuple[int, Document]:
        run = self._run
        try:
            async with session.get(self._options.url + path, headers={"If-None-Match": tag} if tag else {}) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            run.away = why(error)
            raise _Away from None
        run.heard()
        if answer.status != 200:
            return answer.status, {}
        try:
            return 200, {**json.loads(content), ETAG: answer.headers.get("ETag", "")}
        except (ValueError, TypeError):
            raise _Away from None  # something in between answers for it


class _Away(Exception):
    """There was no useful answer."""
