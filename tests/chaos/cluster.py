"""All of Sluice, to be broken: the functions and engines as in production, RabbitMQ, the wire database, the offline
model, and a proxy on every way between them. Engines that die are started again, as a cluster would."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pika
import pymongo

from offline_model import OfflineModel
from sluice.broker import Topology
from tests.chaos.bugs import Bug
from tests.chaos.history import Document, History
from tests.chaos.schedule import ENGINES, FUNCTIONS, LINKS
from tests.e2e.stack import ROOT, Stack
from tests.servers.process import ServerProcess
from tests.servers.proxy import Proxy
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo

HERE = Path(__file__).resolve().parent

#: Seconds, all shorter than in production, so that everything happens often.
TTL, LEASE, GRACE = 60, 3, 15
SETTINGS = {
    "TASK_TTL_SECONDS": str(TTL),
    "LEASE_SECONDS": str(LEASE),
    "ENGINE_GRACE_SECONDS": str(GRACE),
    "ATTEMPT_TIMEOUT_SECONDS": "12",
    "OPENAI_TIMEOUT_SECONDS": "6",
    "SWEEP_SECONDS": "5",
}

#: Seconds beyond its grace that a stopping engine may need: handlers that have to be stopped, connections that hang.
LAST_WORDS = 15

#: Seconds between two looks at whether all processes are there.
LOOK_SECONDS = 0.2


class Cluster:
    """As a context manager it starts everything, and stops it at the end."""

    def __init__(self, directory: Path, history: History, bug: Bug | None = None) -> None:
        """`bug` is put into the copy of the product that runs."""
        self.directory = directory
        self.history = history
        self._bug = bug
        self.notes = directory / "runs.jsonl"
        self.tree = directory / "tree"
        self.rabbit = RabbitNode(directory / "rabbit")
        self.mongo = WireMongo(directory / "mongo")
        self.model = OfflineModel(scriptable=True, seconds_per_answer=0.5)
        self.links: dict[str, Proxy] = {}
        self.processes: dict[str, ServerProcess] = {}
        self.locks = {name: threading.RLock() for name in (*ENGINES, *FUNCTIONS)}
        self._close = ExitStack()
        self._over = threading.Event()

    def __enter__(self) -> Cluster:
        with ExitStack() as opened:
            opened.enter_context(self.rabbit)
            opened.enter_context(self.mongo)
            opened.enter_context(self.model)
            for name in LINKS:
                self.links[name] = opened.enter_context(Proxy(self._port_of(name.partition(">")[2])))
            self._grow_tree()
            self.stack = Stack(self.directory, self.rabbit, self.mongo, self.model, self.tree)
            opened.callback(self.stack.close)
            self._start()
            keeper = threading.Thread(target=self._keep_up, name="keeper", daemon=True)
            keeper.start()
            opened.callback(keeper.join)
            opened.callback(self._over.set)
            self._close = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    @property
    def topology(self) -> Topology:
        return Topology(self.stack.queue, TTL)

    def down(self) -> list[str]:
        """Whoever is not there now."""
        return [name for name, process in self.processes.items() if not process.running]

    # --- what the breaker and the judge look at, past all proxies ----------------------------------------------------

    @contextmanager
    def tasks(self) -> Iterator[pymongo.collection.Collection[Document]]:
        client: pymongo.MongoClient[Document] = pymongo.MongoClient(
            self.mongo.uri, serverSelectionTimeoutMS=1000, socketTimeoutMS=3000, tz_aware=True
        )
        with client:
            yield client[self.stack.queue]["tasks"]

    @contextmanager
    def channel(self) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        parameters = pika.URLParameters(f"{self.rabbit.url}?socket_timeout=3&stack_timeout=3&heartbeat=5")
        with pika.BlockingConnection(parameters) as connection:
            yield connection.channel()

    def queue_lengths(self) -> dict[str, int]:
        """Messages in every queue, waiting or handed out; by the rest of its name."""
        lines = self.rabbit.ctl("list_queues", "name", "messages", "--no-table-headers").splitlines()
        lengths = dict(line.split("\t") for line in lines if line.startswith(self.stack.queue))
        return {name.removeprefix(self.stack.queue).strip(".") or "tasks": int(n) for name, n in lengths.items()}

    # --- processes ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        stack = self.stack
        stack.settings |= SETTINGS | {"CHAOS_NOTES": str(self.notes)} | self._ways("functions")
        stack.start_functions()
        self.processes = {process.name: process for process in stack._processes}
        for name in ENGINES:
            process = stack.start_engine(wait=False, OPENAI_BASE_URL=self._model_url(), **self._ways(name))
            self.processes[name] = process

    def _ways(self, who: str) -> dict[str, str]:
        broker, database = self.links[f"{who}>broker"].port, self.links[f"{who}>database"].port
        return {
            "RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{broker}/%2F",
            "MONGODB_URI": f"mongodb://127.0.0.1:{database}/?directConnection=true",
        }

    def _model_url(self) -> str:
        return f"http://127.0.0.1:{self.links['engines>model'].port}/v1"

    def _port_of(self, what: str) -> int:
        if what == "model":
            return int(self.model.base_url.split(":")[2].split("/")[0])
        return self.rabbit.amqp_port if what == "broker" else self.mongo.port

    def _grow_tree(self) -> None:
        """A copy of the product with the tests' own kinds."""
        for name in ("sluice", "functions"):
            shutil.copytree(ROOT / name, self.tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for source in (HERE / "kinds").glob("*.py"):
            kind, _, half = source.stem.partition("_")
            folder = "functions/engine/kinds" if half == "handler" else "sluice/kinds"
            shutil.copy(source, self.tree / folder / f"{kind}.py")
        if self._bug is not None:
            self._bug.put_into(self.tree)

    def _keep_up(self) -> None:
        """Start again what ended by itself, as Kubernetes does; only a poisoned engine may end so."""
        while not self._over.wait(LOOK_SECONDS):
            for name, process in self.processes.items():
                if process.running or not self.locks[name].acquire(blocking=False):
                    continue
                try:
                    if not process.running:
                        if process.exit_code != -9 or name in FUNCTIONS:
                            self.history.misconduct.append(f"{name} ended by itself with {process.exit_code}")
                        self.start(name)
                finally:
                    self.locks[name].release()

    def start(self, name: str) -> None:
        """Start a process again. An engine is not waited for: the first thing that it takes may be a poison."""
        self.processes[name].launch()
        if name in FUNCTIONS:
            self.processes[name].wait_until_ready()

    def stop(self, name: str) -> None:
        """SIGTERM, and an exit in good time and order. (An engine may have a poison in it, or may have been started so
        short a time ago that it does not listen to signals yet; then it has taken nothing.)"""
        process = self.processes[name]
        process.terminate()
        try:
            code = process.wait(GRACE + LAST_WORDS)
            if code != 0 and not (code in (-9, -15) and name in ENGINES):
                self.history.misconduct.append(f"{name} ended with {code} after SIGTERM")
        except subprocess.TimeoutExpired:
            self.history.misconduct.append(f"{name} did not end in {GRACE + LAST_WORDS} s after SIGTERM")
        finally:
            process.kill()
