"""The cluster's part: a Deployment whose pods are real engine processes on this machine.

`scale` is what KEDA and the HPA do to it. Which pods go first is the ReplicaSet controller's choice (kubernetes v1.35,
`pkg/controller/controller_utils.go`, `ActivePodsWithRanks`): those that do not run yet, then those that are not ready,
then the youngest, in steps of a logarithm and by chance among equals. All pods are on one node, and none has a deletion
cost, so that the other rules say nothing here.
"""

from __future__ import annotations

import math
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.servers.process import ServerProcess

#: Seconds between two looks at the pods.
LOOK_SECONDS = 0.05

#: Seconds between two questions whether a pod is ready: asking costs the machine, and only the record needs it.
READY_SECONDS = 0.5

#: What an engine logs when it is told to stop, with how many tasks were in mid-work.
STOPPING = re.compile(r"stopping; (\d+) tasks are being finished")


@dataclass(frozen=True)
class PodTemplate:
    """What a manifest says of a pod's life: seconds from SIGTERM to SIGKILL, and plain environment variables."""

    grace: float
    environment: dict[str, str]


def read_pod_template(path: Path) -> PodTemplate:
    """The pods of the one Deployment in a YAML file."""
    (deployment,) = [item for item in yaml.safe_load_all(path.read_text()) if item["kind"] == "Deployment"]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    environment = {item["name"]: item["value"] for item in container.get("env", []) if "value" in item}
    return PodTemplate(float(spec["terminationGracePeriodSeconds"]), environment)


@dataclass
class Pod:
    """One engine. Times are of time.monotonic(); None is not yet."""

    process: ServerProcess
    created: float
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    launched: float | None = None
    ready: float | None = None
    asked: float = 0.0
    told_to_stop: float | None = None
    ended: float | None = None

    @property
    def was_killed(self) -> bool:
        return self.process.exit_code is not None and self.process.exit_code < 0

    @property
    def stopped_in_mid_work(self) -> int:
        """How many tasks it was working on when it was told to stop."""
        found = STOPPING.search(self.process.log_text())
        return int(found[1]) if found else 0


class Node:
    """Keeps as many engines as it is told. `start_delay` seconds stand for what a real node does before the process
    starts: scheduling, perhaps the image, the container. `make` gives the process of a new pod, not started yet, and
    `is_ready` answers the readiness probe."""

    def __init__(
        self,
        make: Callable[[int], ServerProcess],
        is_ready: Callable[[ServerProcess], bool],
        template: PodTemplate,
        start_delay: float,
    ) -> None:
        self._make = make
        self._is_ready = is_ready
        self._template = template
        self._start_delay = start_delay
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.replicas = 0
        #: Every pod there ever was.
        self.pods: list[Pod] = []
        self._thread = threading.Thread(target=self._keep, name="node", daemon=True)
        self._thread.start()

    def scale(self, replicas: int) -> None:
        """Want so many pods; pods are made and told to stop at once, and start and end in their own time."""
        with self._lock:
            self.replicas = replicas
            wanted = self._wanted()
            for _ in range(replicas - len(wanted)):
                self.pods.append(Pod(self._make(len(self.pods)), time.monotonic()))
            for pod in sorted(wanted, key=lambda pod: deletion_order(pod, time.monotonic()))[
                : max(0, len(wanted) - replicas)
            ]:
                self._tell_to_stop(pod)

    @property
    def created(self) -> int:
        with self._lock:
            return len(self._wanted())

    @property
    def ready(self) -> int:
        with self._lock:
            return sum(pod.ready is not None for pod in self._wanted())

    @property
    def running(self) -> int:
        """Processes that are there, also those that have been told to stop."""
        return sum(pod.launched is not None and pod.ended is None for pod in self.pods)

    def close(self) -> None:
        """Kill everything."""
        self._stop.set()
        self._thread.join()
        for pod in self.pods:
            pod.process.kill()

    def _wanted(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.told_to_stop is None and pod.ended is None]

    def _tell_to_stop(self, pod: Pod) -> None:
        pod.told_to_stop = time.monotonic()
        if pod.launched is None:
            pod.ended = pod.told_to_stop
        else:
            pod.process.terminate()

    def _keep(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            with self._lock:
                pods = [pod for pod in self.pods if pod.ended is None]
                for pod in pods:
                    self._look_after(pod, time.monotonic())
            for pod in pods:
                if pod.launched is not None and pod.ready is None and time.monotonic() - pod.asked >= READY_SECONDS:
                    pod.asked = time.monotonic()
                    if self._is_ready(pod.process):
                        pod.ready = time.monotonic()

    def _look_after(self, pod: Pod, now: float) -> None:
        if pod.launched is None:
            if now - pod.created >= self._start_delay:
                pod.process.launch()
                pod.launched = now
        elif not pod.process.running:
            pod.ended = now
            pod.process.kill()  # what it may have left behind
        elif pod.told_to_stop is not None and now - pod.told_to_stop > self._template.grace:
            pod.process.kill()


def deletion_order(pod: Pod, now: float) -> tuple[bool, bool, float, str]:
    """The smallest goes first."""
    age = now - pod.ready if pod.ready is not None else now - pod.created
    # `logarithmicRankDiff`, in nanoseconds.
    return pod.launched is not None, pod.ready is not None, math.floor(math.log2(max(age * 1e9, 1))), pod.uid
