"""Sluice as deployed for production, its engines under the real KEDA; RabbitMQ, MongoDB and the model are outside."""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2

from offline_model import OfflineModel
from tests.control_plane.autoscaler import start_keda
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.node import ROOT, Image, Node
from tests.scaling.broker import ClusterRabbit
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually

NAMESPACE = "/api/v1/namespaces/sluice"
ENGINE = "/apis/apps/v1/namespaces/sluice/deployments/engine"

#: The commands of the recipe's two kinds of image, in its order.
ENGINE_COMMAND, FUNCTION_COMMAND = (
    tuple(json.loads(command))
    for command in re.findall(r"^CMD (\[.*\])$", (ROOT / "functions" / "Dockerfile").read_text(), re.MULTILINE)
)

#: What has a process.
IMAGES = {
    "sluice/add-task": Image(
        FUNCTION_COMMAND, {"FUNCTION_SOURCE": "functions/add_task/main.py", "FUNCTION_TARGET": "add_task"}
    ),
    "sluice/engine": Image(ENGINE_COMMAND),
}


class Production:
    """It runs from its making to the end of `exits`. Each task takes `task_seconds`, in the model."""

    def __init__(self, directory: Path, exits: ExitStack, task_seconds: float) -> None:
        self.model = exits.enter_context(OfflineModel(seconds_per_answer=task_seconds))
        self.mongo = exits.enter_context(WireMongo(directory / "mongo"))
        self.rabbit = exits.enter_context(ClusterRabbit(directory / "rabbit"))
        self.plane = exits.enter_context(ControlPlane(directory / "control-plane"))
        self.plane.start_controllers()
        start_keda(self.plane)
        environment = {"OPENAI_BASE_URL": self.model.base_url, "WORKERS": "1"}
        self.node = exits.enter_context(Node(self.plane, directory / "node", IMAGES, environment))
        #: (Unix time, engines wanted), at each change; not those of the deployment itself.
        self.wanted: list[tuple[float, int]] = []
        self._deploy()
        threading.Thread(target=self._note_what_is_wanted, name="wanted", daemon=True).start()
        eventually(lambda: self.wanted and self.wanted[-1][1] == 0, 60, "an empty queue has no engine")
        eventually(lambda: not self.engines(), 60, "the first engine has gone")
        del self.wanted[:-1]

    def add(self, number: int) -> None:
        """Post a task to one of the pods of add-task."""
        address = self.node.address(self._doors[number % len(self._doors)])
        task = {"user_id": "ada", "objective": f"Create a function that adds {number}.", "language": "python"}
        answer = httpx2.post(f"http://{address}:8080/tasks/add", json=task, timeout=30)
        assert answer.status_code == 202, answer.text

    def scale_by(self, scaled_object: Path) -> None:
        """Put another ScaledObject in the place of the deployed one."""
        options = ("--server-side", "--force-conflicts", "--field-manager=sluice", "--namespace=sluice")
        self.plane.kubectl("apply", *options, f"--filename={scaled_object}")

    def engines(self) -> list[str]:
        """The pods that are there, also those that are ending."""
        return self._pods("engine")

    def _pods(self, name: str) -> list[str]:
        found = self.plane.get(f"{NAMESPACE}/pods?labelSelector=app.kubernetes.io/name={name}")
        return [pod["metadata"]["name"] for pod in found["items"]]

    def _deploy(self) -> None:
        self.plane.kubectl("apply", "--server-side", f"--filename={ROOT / 'k8s/base/namespace.yaml'}")
        for name, content in self._secrets().items():
            secret = {"metadata": {"name": name}, "stringData": content}
            self.plane.api.post(f"{NAMESPACE}/secrets", json=secret).raise_for_status()
        answer = self.plane.command("deploy", OVERLAY="production")
        assert answer.returncode == 0, answer.stdout + answer.stderr
        self._doors = self._pods("add-task")

    def _secrets(self) -> dict[str, dict[str, str]]:
        """As `make secrets` makes them, with the addresses of this machine."""
        mongo = {"MONGODB_URI": self.mongo.uri}
        with_queue = ("add-task", "retry-task", "engine", "sweep")
        secrets = {name: {**mongo, "RABBITMQ_URL": self.rabbit.url_of(name)} for name in with_queue}
        urls = {scheme: urlsplit(url) for scheme, url in self.rabbit.keda_urls().items()}
        user = urls["amqp"]
        keda = {scheme: url._replace(netloc=url.netloc.rpartition("@")[2]).geturl() for scheme, url in urls.items()}
        keda |= {"username": unquote(user.username or ""), "password": unquote(user.password or "")}
        model = {"OPENAI_API_KEY": "sk-offline"}
        return {**secrets, "get-tasks": mongo, "cancel-task": mongo, "keda": keda, "model": model}

    def _note_what_is_wanted(self) -> None:
        for engine in self.plane.watch(ENGINE):
            count = engine["spec"]["replicas"]
            if not self.wanted or self.wanted[-1][1] != count:
                self.wanted.append((time.time(), count))
