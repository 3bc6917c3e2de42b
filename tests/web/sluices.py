"""Sluice on one origin, for a browser: in one process, or as in production behind an ingress."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest

from offline_model import OfflineModel
from tests.e2e.embedded import Embedded
from tests.e2e.stack import PATHS, TERMINAL, Stack
from tests.servers.nginx import Ingress, WebNginx
from tests.servers.process import ServerProcess
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually

#: For tests that both ways to start Sluice are to pass.
both = pytest.mark.parametrize("sluice", ["embedded", "cluster"], indirect=True, scope="module")
both_lasting = pytest.mark.parametrize("lasting_sluice", ["embedded", "cluster"], indirect=True, scope="module")


class Sluice(ABC):
    """What a test of the page may do with either. `url` has no slash at its end, and is the same after `start`."""

    url: str

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        # A connection that is kept would be a dead one after `kill`.
        self._client = httpx2.Client(base_url=self.url, timeout=10, limits=httpx2.Limits(max_keepalive_connections=0))
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self.close()

    @abstractmethod
    def start(self) -> None:
        """Starts it, or what `kill` has ended. Returns when it answers."""

    @abstractmethod
    def kill(self) -> None:
        """Ends by SIGKILL what serves HTTP: connections are refused from now on."""

    @abstractmethod
    def close(self) -> None:
        """Ends all of it."""

    def post(self, path: str, **more: Any) -> httpx2.Response:
        """POST, with the arguments of httpx2 (`json`, `headers`, …)."""
        return self._client.post(path, **more)

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self._client.get(path, **more)

    def add(self, user_id: str, **fields: Any) -> str:
        """Adds a task, of kind code if nothing else is said; returns its id."""
        if "kind" not in fields:
            fields = {"objective": "Create a function that sums up three numbers.", "language": "python", **fields}
        answer = self.post("/tasks/add", json={"user_id": user_id, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["_id"])

    def task(self, task_id: str) -> dict[str, Any]:
        """The task as it is now."""
        answer = self.get(f"/tasks/get/{task_id}")
        assert answer.status_code == 200, answer.text
        task: dict[str, Any] = answer.json()
        return task

    def done(self, task_id: str, seconds: float = 30) -> dict[str, Any]:
        """The task, once it is completed, failed or cancelled."""

        def terminal() -> dict[str, Any] | None:
            task = self.task(task_id)
            return task if task["status"] in TERMINAL else None

        return eventually(terminal, seconds, f"{task_id} is done") or {}


class EmbeddedSluice(Sluice):
    """`make run`. What it knows is lost with `kill`, unless `settings` name a database."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self._process = Embedded(directory, **settings)
        self.url = f"http://127.0.0.1:{self._process.port}"

    def start(self) -> None:
        self._process.start()

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.stop()


class ClusterSluice(Sluice):
    """An ingress, the nginx of the image with the page, the four functions under gunicorn, and an engine (which `kill`
    leaves alone). `model` answers, and can be scripted."""

    def __init__(self, directory: Path, rabbit: RabbitNode, mongo: WireMongo) -> None:
        self.directory = directory
        self.model = OfflineModel(scriptable=True, seconds_per_answer=0.1)
        self.stack = Stack(directory, rabbit, mongo, self.model)
        self._front: list[ServerProcess] = []

    def start(self) -> None:
        if not self._front:
            self._start_all()
        stopped = [process for process in self._front if not process.running]
        for process in stopped:
            process.launch()
        for process in stopped:
            process.wait_until_ready()

    def _start_all(self) -> None:
        web = WebNginx(self.directory / "web")
        self.model.start()
        self._front += self.stack.start_functions()
        self.stack.start_engine()
        functions = {
            f"/tasks/{name}": self.stack.url(f"/tasks/{name}").removesuffix(f"/tasks/{name}") for name in PATHS
        }
        ingress = Ingress(self.directory / "ingress", web.url, functions)
        self._front += [web, ingress]
        self.url = ingress.url

    def kill(self) -> None:
        for process in reversed(self._front):
            process.kill()

    def close(self) -> None:
        for process in self._front:
            process.terminate()
        for process in reversed(self._front):
            process.stop()
        self.stack.close()
        self.model.stop()
