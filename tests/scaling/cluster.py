"""Sluice as in the cluster, on this machine: the functions behind an ingress, RabbitMQ configured as there, the wire
database, the offline model, and an autoscaler that starts and stops real engines."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import httpx2

from offline_model import OfflineModel
from tests.e2e.stack import ROOT, Stack
from tests.scaling.api_server import ApiServer
from tests.scaling.autoscaler import Autoscaler, Decision
from tests.scaling.broker import ClusterRabbit
from tests.scaling.node import Node, Pod, read_pod_template
from tests.scaling.scaled_object import ScaledObject
from tests.scaling.scalers import Scalers
from tests.servers.nginx import Ingress
from tests.servers.ports import LOOPBACK, free_port
from tests.servers.process import ServerProcess
from tests.servers.wire_mongo import WireMongo

#: What stands for the scheduler, the image and the container before an engine's process starts, in seconds.
START_DELAY_SECONDS = 1.0

SCALED_OBJECT = ROOT / "keda" / "scaled-object.yaml"
ENGINE = ROOT / "k8s" / "base" / "engine.yaml"


class Cluster:
    """Everything but the autoscaler runs while it is entered; `scale_by` adds that. Each task of the kind `code` takes
    `task_seconds`, in the model."""

    def __init__(self, directory: Path, task_seconds: float, start_delay: float = START_DELAY_SECONDS) -> None:
        self._directory = directory
        self._start_delay = start_delay
        self._template = read_pod_template(ENGINE)
        self._exits = ExitStack()
        self.model = OfflineModel(seconds_per_answer=task_seconds)
        self.rabbit = ClusterRabbit(directory / "rabbit")
        self._mongo = WireMongo(directory / "mongo")

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            exits.enter_context(self.model)
            exits.enter_context(self.rabbit)
            exits.enter_context(self._mongo)
            self.stack = Stack(self._directory, self.rabbit, self._mongo, self.model)
            exits.callback(self.stack.close)
            self.stack.queue = "tasks"
            self.stack.settings = {"DECLARE_QUEUES": "false", "RABBITMQ_URL": self.rabbit.url_of("add-task")}
            self.stack.start_functions("add", "get")
            functions = {path: self.stack.url(path).removesuffix(path) for path in ("/tasks/add", "/tasks/get")}
            self.ingress = exits.enter_context(Ingress(self._directory / "ingress", functions["/tasks/get"], functions))
            self.node = Node(self._engine, is_ready, self._template, self._start_delay)
            exits.callback(self.node.close)
            api = exits.enter_context(ApiServer(lambda: self.node.replicas, lambda: self.node.ready))
            self.kubeconfig = self._directory / "kubeconfig"
            api.write_kubeconfig(self.kubeconfig)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def scale_by(self, scaled: ScaledObject, speed: float = 1.0) -> Scaling:
        """Scale the engines as this ScaledObject says, from now on; `speed` divides the HPA's own times."""
        return Scaling(scaled, self.node, Scalers(scaled.triggers, self.rabbit.keda_urls()), speed)

    def _engine(self, number: int) -> ServerProcess:
        environment = self.stack.environment(
            **self._template.environment, RABBITMQ_URL=self.rabbit.url_of("engine"), PORT=str(free_port())
        )
        command = [sys.executable, "-m", "functions.engine.main"]
        return ServerProcess(f"engine-{number}", command, self._directory, environment, working_directory=ROOT)


def is_ready(engine: ServerProcess) -> bool:
    """The readiness probe."""
    assert engine.env is not None
    try:
        return httpx2.get(f"http://{LOOPBACK}:{engine.env['PORT']}/readyz", timeout=1).status_code == 200
    except httpx2.HTTPError:
        return False


class Scaling:
    """An autoscaler at work on a thread of its own, while it is entered. Its clock is the machine's, in Unix time."""

    def __init__(self, scaled: ScaledObject, node: Node, scalers: Scalers, speed: float) -> None:
        self._scalers = scalers
        self._autoscaler = Autoscaler(scaled, node, scalers.read, time.time(), speed=speed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="autoscaler", daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._scalers.close()
        if self._error is not None:
            raise self._error

    @property
    def decisions(self) -> list[Decision]:
        return self._autoscaler.decisions

    def _run(self) -> None:
        try:
            while not self._stop.wait(max(0.0, self._autoscaler.next_at - time.time())):
                self._autoscaler.turn(time.time())
        except Exception as error:  # for the thread that leaves the context
            self._error = error


def stopped_in_mid_work(pods: list[Pod]) -> list[Pod]:
    """The engines that were working on something when they were told to stop."""
    return [pod for pod in pods if pod.told_to_stop is not None and pod.stopped_in_mid_work > 0]
