"""KEDA and the HPA as their makers built them, the manifests for production, real engines; and the model of it that
`make scaling` runs, under the same load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pymongo
import pytest
import yaml

from offline_model import OfflineModel
from tests.control_plane.production import Production
from tests.control_plane.programs import programs_missing
from tests.scaling.cluster import SCALED_OBJECT, Cluster
from tests.scaling.hpa import SYNC_SECONDS
from tests.scaling.scaled_object import read_scaled_object
from tests.servers import require
from tests.servers.rabbit import rabbitmq_missing
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(3600)  # the first time everything is built

#: So many tasks at once, and how long each takes, in seconds. The HPA looks every 15 s: it sees all of them unfinished,
#: and up to five more.
BURST, TASK_SECONDS = 55, 20.0

#: Then one in so many seconds, which one engine can do: the others have to go one after the other.
TRICKLE_SECONDS = 3.0

#: What the burst asks for, with ten tasks for an engine, and how many engines may go at a step.
PEAK, STEP = 6, 2

#: The waiting times of the manifest on the way down, in seconds, shortened so that a run takes minutes.
WINDOW_SECONDS, STEP_SECONDS, COOLDOWN_SECONDS = 45, 30, 30

#: Seconds from the first post to the first start, at most: a poll, the scheduler, an engine's start on a busy machine.
FIRST_START_SECONDS = 15.0

#: Seconds beyond the cooldown after which no engine may be wanted.
ZERO_SECONDS = 30.0

#: (Unix time, engines wanted)
Wanted = Sequence[tuple[float, int]]


@dataclass(frozen=True)
class Course:
    """What happened under the load. Times are seconds after the first post."""

    wanted: list[tuple[float, int]]
    first_start: float
    tasks: list[dict[str, Any]]
    zero_after_last: float
    calls: int
    posted: int

    def __str__(self) -> str:
        steps = ", ".join(f"{count} at {at:.1f} s" for at, count in self.wanted)
        return (
            f"{self.posted} tasks; engines wanted: {steps}; first start after {self.first_start:.1f} s;"
            f" none wanted {self.zero_after_last:.1f} s after the last task"
        )


def write_scaled_object(folder: Path) -> Path:
    """The manifest with those times, in a file."""
    scaled = yaml.safe_load(SCALED_OBJECT.read_text())
    down = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    scaled["spec"]["cooldownPeriod"] = COOLDOWN_SECONDS
    down["stabilizationWindowSeconds"] = WINDOW_SECONDS
    (policy,) = down["policies"]
    policy["periodSeconds"] = STEP_SECONDS
    file = folder / "scaled-object.yaml"
    file.write_text(yaml.safe_dump(scaled))
    return file


def run(
    add: Callable[[int], object], wanted: Callable[[], Wanted], tasks_of: tuple[WireMongo, str], model: OfflineModel
) -> Course:
    """Post the load, and wait until the engines have come and gone. The tasks are in this database of that server."""
    numbers = iter(range(BURST, 1000))
    begun = time.time()
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(add, range(BURST)))
    enough = threading.Event()
    posted = BURST

    def trickle() -> None:
        nonlocal posted
        while not enough.wait(TRICKLE_SECONDS):
            add(next(numbers))
            posted += 1

    poster = threading.Thread(target=trickle)
    poster.start()
    try:
        eventually(lambda: [count for _, count in wanted()[-2:]] in ([3, 1], [2, 1]), 300, "one engine is left")
    finally:
        enough.set()
        poster.join()
    eventually(lambda: wanted()[-1][1] == 0, TASK_SECONDS + COOLDOWN_SECONDS + ZERO_SECONDS, "no engine is wanted")
    mongo, database = tasks_of
    with pymongo.MongoClient[dict[str, Any]](mongo.uri, tz_aware=True) as client:
        tasks = list(client[database]["tasks"].find())
    last = max(task["completed_at"].timestamp() for task in tasks if task["completed_at"])
    steps = [(at - begun, count) for at, count in wanted()]
    first = min(task["started_at"].timestamp() for task in tasks if task["started_at"]) - begun
    return Course(steps, first, tasks, wanted()[-1][0] - last, sum(model.calls().values()), posted)


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    require(programs_missing() or rabbitmq_missing())
    directory = tmp_path_factory.mktemp("scaling")
    with ExitStack() as exits:
        production = Production(directory, exits, TASK_SECONDS)
        production.scale_by(write_scaled_object(directory))
        yield production


@pytest.fixture(scope="module")
def real(production: Production) -> Course:
    return run(production.add, lambda: production.wanted, (production.mongo, "sluice"), production.model)


def test_engines_follow_the_tasks_from_none_to_many_and_back(real: Course) -> None:
    print(f"\nreal:  {real}")
    follows_the_manifest(real)
    assert real.first_start < FIRST_START_SECONDS


def follows_the_manifest(course: Course) -> None:
    counts = [count for _, count in course.wanted]
    assert counts[:3] == [0, 1, PEAK]
    assert counts[-2:] == [1, 0]
    assert all(0 < before - after <= STEP for before, after in pairwise(counts[2:]))
    assert COOLDOWN_SECONDS - 5 < course.zero_after_last < COOLDOWN_SECONDS + ZERO_SECONDS


def test_every_task_is_done_once_while_engines_come_and_go(real: Course) -> None:
    assert len(real.tasks) == real.posted == real.calls
    assert {task["status"] for task in real.tasks} == {"completed"}
    assert {task["attempts"] for task in real.tasks} == {1}


def test_no_engine_is_killed_and_every_round_of_the_sweep_succeeds(production: Production, real: Course) -> None:
    eventually(lambda: not production.engines(), 60, "the engines have drained")
    ended = [(pod, what) for _, pod, what in production.node.events if what.startswith("ended")]
    assert "ended with -9" not in {what for pod, what in ended if pod.startswith("engine")}
    assert {what for pod, what in ended if pod.startswith("sweep")} == {"ended with 0"}


def test_the_model_takes_the_same_course(real: Course, tmp_path: Path) -> None:
    scaled, begun = read_scaled_object(write_scaled_object(tmp_path)), time.time()
    with Cluster(tmp_path, TASK_SECONDS) as cluster, cluster.scale_by(scaled) as scaling:

        def wanted() -> Wanted:
            changes = [(each.at, each.after) for each in list(scaling.decisions) if each.before != each.after]
            return [(begun, 0), *changes]

        def add(number: int) -> None:
            cluster.stack.add(f"Add {number}.")

        model = run(add, wanted, (cluster.stack.mongo, cluster.stack.queue), cluster.model)
    print(f"\nmodel: {model}")
    follows_the_manifest(model)
    assert abs(model.first_start - real.first_start) < FIRST_START_SECONDS
    # Where the HPA is in its 15 s when the first task comes is chance, and can make one step more.
    assert abs(model.wanted[-1][0] - real.wanted[-1][0]) < SYNC_SECONDS + STEP_SECONDS
