"""The same autoscaler over a queue and engines that are only counted, in virtual time: hours in a second."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.scaling.autoscaler import Autoscaler
from tests.scaling.hpa import SYNC_SECONDS
from tests.scaling.keda import Readings
from tests.scaling.scaled_object import ScaledObject

#: Tasks that one engine holds and runs at once: ENGINE_CONCURRENCY's default.
CONCURRENCY = 10

#: Seconds from a pod to its first task: START_DELAY_SECONDS, and what `python -m tests.scaling` measures for a process
#: that starts alone.
START_SECONDS = 2.0

#: How old the management API's count is, in seconds: between one and two with the cluster's rabbitmq.conf.
HTTP_AGE_SECONDS = 1.5


@dataclass(frozen=True)
class Task:
    """When it is posted, and how long it takes. Seconds."""

    at: float
    seconds: float


@dataclass
class Pod:
    created: float
    number: int
    started: bool = False
    told_to_stop: bool = False
    running: int = 0
    #: Since when it has had nothing to do.
    idle_since: float = 0.0


@dataclass
class Result:
    """What a load met with. Waits are in seconds from post to start, in the order of the starts."""

    waits: list[float] = field(default_factory=list)
    #: Waits of those tasks that came first while no engine was wanted.
    cold_waits: list[float] = field(default_factory=list)
    starts: int = 0
    #: Engines that were told to stop while they worked.
    stopped_in_mid_work: int = 0
    idle_seconds: float = 0.0
    #: Questions to RabbitMQ.
    looks: int = 0
    seconds: float = 0.0

    def wait(self, share: float) -> float:
        """What this share of the tasks waited at most."""
        return sorted(self.waits)[max(0, math.ceil(share * len(self.waits)) - 1)]

    @property
    def cold_wait(self) -> float:
        return sum(self.cold_waits) / len(self.cold_waits) if self.cold_waits else 0.0


class Simulation:
    """One load under one ScaledObject; `run` it once."""

    def __init__(self, scaled: ScaledObject, tasks: Iterable[Task], seed: int = 0) -> None:
        self._dice = random.Random(seed)
        self._scaled = scaled
        self._now = 0.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, str, object]] = []
        self._ready: deque[tuple[Task, bool]] = deque()
        self._pods: list[Pod] = []
        self._unfinished = 0
        #: How many tasks were unfinished since when, for the count that is a little old.
        self._history: list[tuple[float, int]] = [(-math.inf, 0)]
        self._left = 0
        for task in tasks:
            self._left += 1
            self._plan(task.at, "post", task)
        self.replicas = 0
        self.result = Result()
        # The loops of KEDA and of the HPA begin at any time, as seen from the load.
        begin = -self._dice.uniform(0, scaled.polling)
        self._autoscaler = Autoscaler(scaled, self, self._read, begin, hpa_after=self._dice.uniform(0, SYNC_SECONDS))

    def run(self) -> Result:
        """Until all is done and no engine is left."""
        self._plan(0.0, "turn", None)
        while self._left or self.replicas:
            self._now, _, what, item = heapq.heappop(self._events)
            if what == "post" and isinstance(item, Task):
                self._ready.append((item, self.replicas == 0 and self._unfinished == 0))
                self._count(1)
            elif what == "started" and isinstance(item, Pod) and item in self._pods:
                item.started, item.idle_since = True, self._now
            elif what == "done" and isinstance(item, Pod):
                self._done(item)
            elif what == "turn":
                self._autoscaler.turn(self._now)
                self._plan(self._autoscaler.next_at, "turn", None)
            self._hand_out()
        self.result.seconds = self._now
        return self.result

    # --- the Deployment ----------------------------------------------------------------------------------------------

    @property
    def created(self) -> int:
        return len(self._pods)

    def scale(self, replicas: int) -> None:
        self.replicas = replicas
        while len(self._pods) < replicas:
            pod = Pod(self._now, next(self._order))
            self._pods.append(pod)
            self._plan(self._now + START_SECONDS, "started", pod)
            self.result.starts += 1
        # The ReplicaSet's choice: those that have not started, then the youngest, by chance among equals.
        self._pods.sort(key=lambda pod: (not pod.started, -self._age(pod), self._dice.random()))
        for pod in self._pods[replicas:]:
            pod.told_to_stop = True
            if pod.running:
                self.result.stopped_in_mid_work += 1
            elif pod.started:
                self.result.idle_seconds += self._now - pod.idle_since
        del self._pods[replicas:]

    def _age(self, pod: Pod) -> int:
        return math.floor(math.log2(max(self._now - pod.created, 1e-9) * 1e9))

    # --- the queue ---------------------------------------------------------------------------------------------------

    def _read(self) -> Readings:
        self.result.looks += len(self._scaled.triggers)
        ages = [when for when, _ in self._history]
        old = self._history[bisect_right(ages, self._now - HTTP_AGE_SECONDS) - 1][1]
        counts = {"amqp": float(len(self._ready)), "http": float(old)}
        return [counts[trigger.protocol] if trigger.queue == "tasks" else 0.0 for trigger in self._scaled.triggers]

    def _count(self, change: int) -> None:
        self._unfinished += change
        self._history.append((self._now, self._unfinished))
        if len(self._history) > 1000:
            del self._history[: bisect_right([when for when, _ in self._history], self._now - HTTP_AGE_SECONDS) - 1]

    def _hand_out(self) -> None:
        free = [pod for pod in self._pods if pod.started and pod.running < CONCURRENCY]
        while self._ready and free:
            task, is_cold = self._ready.popleft()
            pod = min(free, key=lambda pod: pod.running)
            if pod.running == 0:
                self.result.idle_seconds += self._now - pod.idle_since
            pod.running += 1
            if pod.running == CONCURRENCY:
                free.remove(pod)
            self.result.waits.append(self._now - task.at)
            if is_cold:
                self.result.cold_waits.append(self._now - task.at)
            self._plan(self._now + task.seconds, "done", pod)

    def _done(self, pod: Pod) -> None:
        self._left -= 1
        self._count(-1)
        pod.running -= 1
        pod.idle_since = self._now

    def _plan(self, at: float, what: str, item: object) -> None:
        heapq.heappush(self._events, (at, next(self._order), what, item))


def mixed_hour(seed: int) -> list[Task]:
    """Twenty minutes of a task now and then, twenty of waves up to forty at once, twenty with a burst of 200 short ones
    every five minutes."""
    dice = random.Random(seed)
    tasks = []

    def come(begin: float, end: float, a_second: float, waves: bool) -> None:
        at = begin
        while (at := at + dice.expovariate(a_second)) < end:
            if not waves or dice.random() < 0.5 - 0.5 * math.cos(2 * math.pi * (at - begin) / 240):
                tasks.append(Task(at, min(120.0, dice.lognormvariate(math.log(8), 0.6))))

    come(0, 1200, 1 / 45, waves=False)
    come(1200, 2400, 4.0, waves=True)
    for burst in range(4):
        at = 2400 + 300 * burst + dice.uniform(0, 15)
        tasks += [Task(at + number / 200, 2.0) for number in range(200)]
    return tasks
