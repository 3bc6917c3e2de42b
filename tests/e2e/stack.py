"""Sluice as in production: each function under gunicorn, engines as processes of their own, a real RabbitMQ, the wire
database, and the offline model."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from offline_model import OfflineModel
from tests.servers.ports import free_port
from tests.servers.process import ServerProcess
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent

PATHS = {"add": "add_task", "get": "get_tasks", "cancel": "cancel_task", "retry": "retry_task"}
TERMINAL = {"completed", "failed", "cancelled"}


class Stack:
    """Starts processes of Sluice and talks to them as a client does. `tree` holds the code that they run."""

    def __init__(
        self, directory: Path, rabbit: RabbitNode, mongo: WireMongo, model: OfflineModel, tree: Path = ROOT
    ) -> None:
        self.directory = directory
        self.rabbit = rabbit
        self.mongo = mongo
        self.model = model
        self.tree = tree
        self.queue = f"test-{uuid.uuid4().hex[:8]}"
        self.settings: dict[str, str] = {}
        self._ports: dict[str, int] = {}
        self._processes: list[ServerProcess] = []
        self.client = httpx2.Client(timeout=10)
        #: Every status that `watch` and `get` have seen of a task, in order.
        self.history: dict[str, list[str]] = {}

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.stop()
        self.client.close()

    # --- processes ---------------------------------------------------------------------------------------------------

    def environment(self, **more: str) -> dict[str, str]:
        path = f"{self.tree}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "PYTHONPATH": path,
            "MONGODB_URI": self.mongo.uri,
            "MONGODB_DATABASE": self.queue,
            "RABBITMQ_URL": self.rabbit.url,
            "TASK_QUEUE": self.queue,
            "OPENAI_API_KEY": "sk-offline",
            "OPENAI_BASE_URL": self.model.base_url,
            "HOST": "127.0.0.1",
            "WORKERS": "1",
            **self.settings,
            **more,
        }

    def start_functions(self, *paths: str) -> list[ServerProcess]:
        """Start these functions (all, when none is named) as in production."""
        started = []
        for path in paths or PATHS:
            port = self._ports[path] = free_port()
            name = PATHS[path]
            environment = self.environment(
                FUNCTION_SOURCE=f"{self.tree}/functions/{name}/main.py", FUNCTION_TARGET=name, PORT=str(port)
            )
            command = [BIN / "gunicorn", "-c", f"{self.tree}/functions/gunicorn.conf.py", "functions_framework.aio:app"]
            started.append(self._process(name, command, environment, port))
        for process in started:
            process.launch()
        for process in started:
            process.wait_until_ready()
        return started

    def start_engine(self, *, wait: bool = True, **settings: str) -> ServerProcess:
        port = free_port()
        command = [sys.executable, "-m", "functions.engine.main"]
        process = self._process(
            f"engine-{len(self._processes)}",
            command,
            self.environment(PORT=str(port), **settings),
            port,
            "/readyz" if wait else "/healthz",
        )
        process.start()
        return process

    def ended(self) -> list[str]:
        """The names of the processes that were started and run no more."""
        return [process.name for process in self._processes if not process.running]

    def worker_of(self, function: str) -> int:
        """The id of the process that serves a function; the one that was started only watches over it."""
        (watching,) = [process.pid for process in self._processes if process.name == function]
        (worker,) = Path(f"/proc/{watching}/task/{watching}/children").read_text().split()
        return int(worker)

    def _process(
        self, name: str, command: list[Any], environment: dict[str, str], port: int, path: str = "/healthz"
    ) -> ServerProcess:
        process = ServerProcess(
            name,
            command,
            self.directory,
            environment,
            ready=lambda: _answers(f"http://127.0.0.1:{port}{path}"),
            working_directory=self.tree,
        )
        process.port = port  # type: ignore[attr-defined]
        self._processes.append(process)
        return process

    # --- a client ----------------------------------------------------------------------------------------------------

    def url(self, path: str) -> str:
        """The URL of a public path, at the function that serves it."""
        return f"http://127.0.0.1:{self._ports[path.split('/')[2].split('?')[0]]}{path}"

    def add(self, objective: str = "Create a function that sums up three numbers.", **more: Any) -> str:
        """Add a task; returns its id."""
        headers = more.pop("headers", {})
        fields = {"user_id": "ada", "objective": objective, "language": "python"} if "kind" not in more else {}
        answer = self.client.post(self.url("/tasks/add"), json={"user_id": "ada", **fields, **more}, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["_id"])

    def get(self, task_id: str) -> dict[str, Any]:
        answer = self.client.get(self.url(f"/tasks/get/{task_id}"))
        assert answer.status_code == 200, answer.text
        task: dict[str, Any] = answer.json()
        seen = self.history.setdefault(task_id, [])
        if not seen or seen[-1] != task["status"]:
            assert not seen or seen[-1] not in TERMINAL, f"{task_id} went from {seen[-1]} to {task['status']}"
            seen.append(task["status"])
        return task

    def completed(self, task_id: str) -> dict[str, Any] | None:
        """The task, if it is completed. None too while the database is away."""
        answer = self.client.get(self.url(f"/tasks/get/{task_id}"))
        task: dict[str, Any] = answer.json()
        return task if answer.status_code == 200 and task["status"] == "completed" else None

    def wait_for(
        self, task_ids: list[str], condition: Callable[[dict[str, Any]], bool], seconds: float = 30
    ) -> list[dict[str, Any]]:
        """The tasks, once the condition holds for each."""
        return [eventually(lambda i=i: (t := self.get(i)) and condition(t) and t, seconds) for i in task_ids]  # type: ignore[misc]

    def wait_until_done(self, task_ids: list[str], seconds: float = 30) -> list[dict[str, Any]]:
        return self.wait_for(task_ids, lambda task: task["status"] in TERMINAL, seconds)


def _answers(url: str) -> bool:
    try:
        return bool(httpx2.get(url, timeout=2).status_code == 200)
    except httpx2.HTTPError:
        return False
