"""People who use Sluice while it breaks: they add, read, cancel and retry, ask again when no answer comes, and note
every answer."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress

import httpx2

from tests.chaos.history import TERMINAL, Document, History, Request, Wish
from tests.e2e.stack import Stack

#: How often a client asks again, and after how many seconds, when there was no answer or a 503.
TRIES, PAUSE = 8, 0.5

#: Seconds that a client waits for an answer.
PATIENCE = 10

OBJECTIVES = ("Create a function that sums up three numbers.", "Reverse a string.", "Check whether a number is prime.")


class Crowd:
    """Some users, each on a thread of its own, who together add `rate` tasks a second."""

    def __init__(self, stack: Stack, history: History, seed: int, users: int = 4, rate: float = 4.0) -> None:
        self._stack = stack
        self._history = history
        self._pause = users / rate
        self._over = threading.Event()
        self.users = [f"user-{number}" for number in range(users)]
        self._threads = [
            threading.Thread(target=self._live, args=[user, random.Random(f"{seed} {user}")], name=user, daemon=True)
            for user in self.users
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when the last request is over."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _live(self, user: str, dice: random.Random) -> None:
        known: dict[str, str] = {}  # tasks of this user, and their statuses as last seen
        with httpx2.Client(timeout=PATIENCE) as client:
            visitor = Visitor(self._stack, self._history, client, user)
            while not self._over.wait(dice.expovariate(1 / self._pause)):
                wish = make_wish(dice, user, len(self._history.wishes))
                if (task := visitor.add(wish)) is not None:
                    known[task["_id"]] = task["status"]
                self._look_around(visitor, known, dice)

    def _look_around(self, visitor: Visitor, known: dict[str, str], dice: random.Random) -> None:
        recent = list(known)[-40:]
        for task_id in dice.sample(recent, min(3, len(recent))):
            if (seen := visitor.get(task_id)) is not None:
                known[task_id] = seen["status"]
        open_ones = [task_id for task_id in recent if known[task_id] not in TERMINAL]
        if open_ones and dice.random() < 0.15:
            visitor.act("cancel", dice.choice(open_ones))
        ended = [task_id for task_id in recent if known[task_id] in TERMINAL]
        if ended and dice.random() < 0.1:
            visitor.act("retry", dice.choice(ended))


class Visitor:
    """One user's client."""

    def __init__(self, stack: Stack, history: History, client: httpx2.Client, user: str) -> None:
        self._stack = stack
        self._history = history
        self._client = client
        self._user = user

    def add(self, wish: Wish) -> Document | None:
        """Ask for a task; with an Idempotency-Key as often as it takes, without one only once: the second might be a
        second task. The task, if it was accepted."""
        self._history.wishes[wish.mark] = wish
        headers = {} if wish.key is None else {"Idempotency-Key": wish.key}
        for _ in range(TRIES if wish.key else 1):
            answer = self._send("add", "POST", "/tasks/add", json=body_of(wish), headers=headers, mark=wish.mark)
            if answer.status == 202:
                return answer.body
            if answer.status not in (None, 503):
                return None
            time.sleep(PAUSE)
        return None

    def get(self, task_id: str) -> Document | None:
        answer = self._send("get", "GET", f"/tasks/get/{task_id}", task_id=task_id)
        return answer.body if answer.status == 200 else None

    def act(self, action: str, task_id: str) -> None:
        """Cancel or retry; asked again when no answer came, as a person would who does not know whether it worked."""
        for _ in range(TRIES):
            answer = self._send(action, "POST", f"/tasks/{action}/{task_id}", task_id=task_id)
            if answer.status not in (None, 503):
                return
            time.sleep(PAUSE)

    def _send(
        self,
        action: str,
        method: str,
        path: str,
        *,
        json: Document | None = None,
        headers: dict[str, str] | None = None,
        mark: str | None = None,
        task_id: str | None = None,
    ) -> Request:
        sent, status, body = time.time(), None, {}
        request = Request(action, self._user, sent, float("inf"), None, body, mark, task_id)
        self._history.requests.append(request)  # before it is sent: what nobody answers was asked too
        with suppress(httpx2.HTTPError):
            answer = self._client.request(method, self._stack.url(path), json=json, headers=headers)
            status, body = answer.status_code, answer.json()
        request.status, request.body, request.ended = status, body, time.time()
        return request


def make_wish(dice: random.Random, user: str, number: int) -> Wish:
    mark = f"{user}-{number}-{dice.getrandbits(32):08x}"
    (kind,) = dice.choices(("probe", "code", "message", "poison"), (60, 28, 11, 1))
    (outcome,) = dice.choices(("done", "fail", "retry"), (80, 8, 12))
    return Wish(mark, user, kind, mark if dice.random() < 0.7 else None, outcome if kind == "probe" else "done")


def body_of(wish: Wish) -> Document:
    """What the wish says to `POST /tasks/add`. How long a probe takes follows from its mark: each try says the same."""
    dice = random.Random(wish.mark)
    inputs: dict[str, Document] = {
        "probe": {"mark": wish.mark, "milliseconds": int(dice.expovariate(1 / 800)) % 8000, "outcome": wish.outcome},
        "code": {"objective": f"{dice.choice(OBJECTIVES)} {wish.mark}", "language": "python"},
        "message": {"text": f"hello {wish.mark}"},
        "poison": {"mark": wish.mark},
    }
    return {"user_id": wish.user, "kind": wish.kind, **inputs[wish.kind]}
