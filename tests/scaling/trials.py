"""What is tried on the cluster, and what has to hold."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pymongo

from tests.e2e.stack import ROOT
from tests.load.options import PASSWORD_VARIABLE
from tests.scaling.autoscaler import Decision
from tests.scaling.cluster import Cluster, stopped_in_mid_work
from tests.scaling.hpa import TOLERANCE
from tests.scaling.node import Pod
from tests.scaling.scaled_object import ScaledObject
from tests.waiting import eventually

#: The burst: so many tasks, so many of them a second, and how long each takes, in seconds.
BURST_TASKS, BURST_RATE, BURST_TASK_SECONDS = 500, 50.0, 2.0

#: Engines at most in the burst, however many the ScaledObject allows: each weighs 70 MB, and 0.6 s of a core to start.
BURST_ENGINES = 10

#: Seconds from the first post to the first start, at most: one polling interval, and an engine's start.
FIRST_START_SECONDS = 4.0

#: Seconds beyond the cooldown after which no engine may be left.
ZERO_SECONDS = 30.0

#: Long tasks outlive the cooldown. That the trial takes no ten minutes, all times of the ScaledObject and of the HPA
#: are divided by this.
LONG_SPEED = 5.0

#: So many long tasks, which is more than three engines hold, and how long each takes, in seconds (LONG_SPEED times that
#: in the ScaledObject's measure).
LONG_TASKS, LONG_TASK_SECONDS = 35, 20.0


@dataclass(frozen=True)
class Check:
    """What has to hold, what was seen, and whether it held."""

    what: str
    seen: str
    holds: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a trial's tasks, and of its engines. Times are Unix times."""

    tasks: list[dict[str, Any]]
    calls: dict[str, int]
    pods: list[Pod]
    decisions: list[Decision]

    @property
    def first_post(self) -> float:
        return min(moment(task["created_at"]) for task in self.tasks)

    @property
    def first_start(self) -> float:
        return min(moment(task["started_at"]) for task in self.tasks)

    @property
    def last_end(self) -> float:
        return max(moment(task["completed_at"]) for task in self.tasks)

    def tasks_survive(self, count: int) -> list[Check]:
        """Every task is completed, was started once, and asked the model once."""
        completed = sum(task["status"] == "completed" for task in self.tasks)
        once = sum(task["attempts"] == 1 for task in self.tasks)
        calls = sum(self.calls.values())
        return [
            Check(f"all {count} tasks are completed", str(completed), completed == len(self.tasks) == count),
            Check("each with exactly one call of the model", f"{calls} calls", calls == len(self.calls) == count),
            Check("none is started twice", f"{once} have one attempt", once == count),
        ]


def moment(text: str | datetime) -> float:
    return (text if isinstance(text, datetime) else datetime.fromisoformat(text)).timestamp()


def burst(cluster: Cluster, scaled: ScaledObject, out: Path) -> list[Check]:
    """From no engine to the maximum and back: 500 tasks of 2 s, posted and watched by the load script, whose files are
    in `out`."""
    scaled = replace(scaled, max_replicas=min(scaled.max_replicas, BURST_ENGINES))
    with cluster.scale_by(scaled) as scaling:
        eventually(lambda: scaling.decisions, 10, "a first look at the queue")
        load = [
            *(sys.executable, "-m", "tests.load", "--url", cluster.ingress.url, "--kind", "code", "--quiet"),
            *("--tasks", str(BURST_TASKS), "--rate", f"{BURST_RATE:g}", "--users", "20", "--connections", "16"),
            *("--kubeconfig", str(cluster.kubeconfig), "--broker", cluster.rabbit.operator_url),
            *("--back-to-zero", str(scaled.cooldown + ZERO_SECONDS), "--out", str(out)),
        ]
        environment = {**os.environ, PASSWORD_VARIABLE: cluster.rabbit.operator_password}
        ended = subprocess.run(load, cwd=ROOT, env=environment, check=False).returncode
        none_left = wait_for_zero(cluster, ZERO_SECONDS)
        seen = outcome_of(cluster, scaling.decisions)
    first, zero = seen.first_start - seen.first_post, none_left - seen.last_end
    woken = next(decision.at for decision in seen.decisions if decision.after) - seen.first_post
    peak = max(decision.after for decision in seen.decisions)
    behind = [decision for decision in seen.decisions if decision.who == "HPA" and not follows(decision, scaled)]
    stopped = len(stopped_in_mid_work(seen.pods))
    return [
        Check("the load script is content", f"exit status {ended}", ended == 0),
        Check(
            f"the first task starts within {FIRST_START_SECONDS:g} s",
            f"{first:.1f} s, {woken:.1f} s of them for the poll",
            first <= FIRST_START_SECONDS,
        ),
        Check(f"engines follow the queue up to {scaled.max_replicas}", f"{peak} at most", peak == scaled.max_replicas),
        Check("each sync wants what the queue asks for", f"{len(behind)} don't", not behind),
        *seen.tasks_survive(BURST_TASKS),
        Check(
            f"no engine {scaled.cooldown:g} s + {ZERO_SECONDS:g} s after the last task",
            f"{zero:.1f} s",
            zero <= scaled.cooldown + ZERO_SECONDS,
        ),
        Check("no engine is stopped in mid-work", f"{stopped} are", stopped == 0),
    ]


def long_tasks(cluster: Cluster, scaled: ScaledObject, *, cured: bool) -> list[Check]:
    """Tasks that outlive the cooldown. With `scaled` not `cured` (amqp triggers alone) engines are to be seen that are
    stopped in mid-work; their tasks survive, because an engine finishes what it has."""
    fast = scaled.faster(LONG_SPEED)
    cluster.model.clear()
    cluster.model.script([{"seconds": LONG_TASK_SECONDS}])
    before, begun = len(cluster.node.pods), time.time()
    with cluster.scale_by(fast, LONG_SPEED) as scaling:
        for _ in range(LONG_TASKS):
            cluster.stack.add()
        eventually(lambda: cluster.node.created, 30, "an engine")
        wait_for_zero(cluster, LONG_TASK_SECONDS * 3 + fast.cooldown + ZERO_SECONDS)
        seen = outcome_of(cluster, scaling.decisions, since=begun, pods=before)
    stopped = stopped_in_mid_work(seen.pods)
    tasks = sum(pod.stopped_in_mid_work for pod in stopped)
    killed = sum(pod.was_killed for pod in seen.pods)
    return [
        Check(
            "no engine is stopped in mid-work" if cured else "engines are stopped in mid-work (the fault)",
            f"{len(stopped)} of {len(seen.pods)}, with {tasks} tasks",
            bool(stopped) is not cured,
        ),
        *seen.tasks_survive(LONG_TASKS),
        Check("every engine ends within its grace", f"{killed} killed", killed == 0),
    ]


def with_amqp_only(scaled: ScaledObject) -> ScaledObject:
    """The same, blind for what engines hold."""
    return replace(scaled, triggers=tuple(trigger for trigger in scaled.triggers if trigger.protocol == "amqp"))


def follows(decision: Decision, scaled: ScaledObject) -> bool:
    """Whether as many engines are wanted as any trigger asks for, but for the HPA's tolerance."""
    if decision.readings is None:
        return True
    asked = max(
        (reading or 0) / trigger.value for reading, trigger in zip(decision.readings, scaled.triggers, strict=True)
    )
    return decision.after >= min(scaled.max_replicas, asked / (1 + TOLERANCE))


def wait_for_zero(cluster: Cluster, seconds: float) -> float:
    """When no engine was wanted any more, and none was there. Raises AssertionError."""
    eventually(lambda: cluster.node.replicas == 0 and cluster.node.running == 0, seconds, "no engine is left")
    return time.time()


def outcome_of(cluster: Cluster, decisions: list[Decision], since: float = 0.0, pods: int = 0) -> Outcome:
    """What there is of the tasks that were created `since`, and of the pods after the first so many."""
    with pymongo.MongoClient[dict[str, Any]](cluster.stack.mongo.uri) as client:
        found = client[cluster.stack.queue]["tasks"].find()
        tasks = [task for task in found if moment(task["created_at"]) >= since]
    return Outcome(tasks, cluster.model.calls(), cluster.node.pods[pods:], list(decisions))


#: What is tried, in this order.
Trial = tuple[str, Callable[[Cluster, ScaledObject, Path], list[Check]]]
TRIALS: list[Trial] = [
    (f"{BURST_TASKS} tasks of {BURST_TASK_SECONDS:g} s, {BURST_RATE:g} a second", burst),
    (
        f"{LONG_TASKS} tasks of {LONG_TASK_SECONDS:g} s, amqp triggers only",
        lambda cluster, scaled, _: long_tasks(cluster, with_amqp_only(scaled), cured=False),
    ),
    (
        f"{LONG_TASKS} tasks of {LONG_TASK_SECONDS:g} s, all triggers",
        lambda cluster, scaled, _: long_tasks(cluster, scaled, cured=True),
    ),
]
