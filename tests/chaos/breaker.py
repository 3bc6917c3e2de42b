"""Does what the schedule says: one thread a lane, each fault noted with the times at which it really was on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pika
import pymongo.errors
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

from sluice.broker import PAUSES
from sluice.task import Task
from tests.chaos.cluster import Cluster
from tests.chaos.history import Interval
from tests.chaos.schedule import ENGINES, LINKS, Fault
from tests.servers.proxy import Proxy
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo

#: What no consumer can make a task of.
GARBAGE = (
    b"",
    b"garbage",
    b"[]",
    b"{}",
    b'{"_id": 1}',
    b"\xff\xfe\x00",
    b"[" * 10_000,
    b'{"_id": "0123456789abcdef0123456789abcdef", "user_id": "eve", "kind": "probe", "status": "pending"}',
    b"x" * 1_000_000,
)

#: What says that a server is down just now: another lane has seen to that.
AWAY = (AMQPError, AMQPConnectorException, pymongo.errors.PyMongoError, OSError)

#: What each fault of the model has its server do.
MODEL_FAULTS: dict[str, dict[str, object]] = {
    "429": {"fault": "status", "status": 429, "retry_after": 3},
    "500": {"fault": "status", "status": 500},
    "401": {"fault": "status", "status": 401},
}


class Breaker:
    """Carries out the faults of a schedule against a cluster."""

    def __init__(self, cluster: Cluster, faults: list[Fault]) -> None:
        self._cluster = cluster
        self._history = cluster.history
        lanes = {fault.lane: [one for one in faults if one.lane == fault.lane] for fault in faults}
        self._threads = [
            threading.Thread(target=self._run, args=[lane, ones], name=lane, daemon=True)
            for lane, ones in lanes.items()
        ]
        self._began = 0.0
        self.errors: list[BaseException] = []

    def start(self) -> None:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Returns when all is over and up again. Raises what went wrong with a tool, not with Sluice."""
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def finale(self) -> None:
        """The last blow before the calm: every engine dies in the middle of its work."""
        self._do(Fault(time.monotonic() - self._began, "engines", "kill", "all", 0.0, 0.0))

    def _run(self, lane: str, faults: list[Fault]) -> None:
        try:
            for fault in faults:
                time.sleep(max(0.0, self._began + fault.at - time.monotonic()))
                self._do(fault)
        except BaseException as error:
            error.add_note(f"in the lane {lane}")
            self.errors.append(error)

    def _do(self, fault: Fault) -> None:
        began = time.time()
        with self._broken(fault):
            time.sleep(fault.lasts)
        self._history.faults.append(Interval(fault, began, time.time()))

    def _broken(self, fault: Fault) -> ExitStack:
        """Breaks something; leaving it mends that again, and returns when all is up."""
        stack = ExitStack()
        match fault.lane:
            case "engines" | "functions":
                for name in ENGINES if fault.target == "all" else [fault.target]:
                    stack.enter_context(self._process(name, fault.sort))
            case "servers":
                for name in fault.target.split("+"):
                    server = self._cluster.rabbit if name == "broker" else self._cluster.mongo
                    stack.enter_context(_server(server, fault.sort))
            case "links":
                names = [name for name in LINKS if name.startswith(fault.target.rstrip("*"))]
                for name in names:
                    stack.enter_context(_link(self._cluster.links[name], fault))
            case "model":
                stack.enter_context(self._model(fault))
            case "queue":
                with suppress(*AWAY):
                    getattr(self, f"_{fault.sort}")(fault)
        return stack

    @contextmanager
    def _process(self, name: str, how: str) -> Iterator[None]:
        process = self._cluster.processes[name]
        with self._cluster.locks[name]:
            if how == "freeze":
                process.freeze()
            elif how == "terminate":
                self._cluster.stop(name)
            else:
                process.kill()
            yield
            if how == "freeze":
                process.thaw()
            else:
                self._cluster.start(name)

    @contextmanager
    def _model(self, fault: Fault) -> Iterator[None]:
        rule = MODEL_FAULTS.get(fault.sort, {"fault": fault.sort})
        self._cluster.model.script([{**rule, "probability": 0.3 + 0.7 * fault.draw, "seed": int(fault.at * 1000)}])
        yield
        self._cluster.model.script([])

    # --- the queue ---------------------------------------------------------------------------------------------------

    def _queue(self, target: str) -> str:
        topology = self._cluster.topology
        return {"tasks": topology.tasks, "dead": topology.dead, "retry": topology.waits[PAUSES[0]]}[target].name

    def _garbage(self, fault: Fault) -> None:
        """Messages that are no tasks, confirmed."""
        self._history.garbage_perhaps += 1
        with self._cluster.channel() as channel:
            channel.confirm_delivery()
            channel.basic_publish("", self._queue(fault.target), GARBAGE[int(fault.draw * len(GARBAGE))])
        if fault.target != "retry":  # from there it moves on without a confirm, and may be lost on the way
            self._history.garbage_perhaps -= 1
            self._history.garbage += 1

    def _duplicate(self, fault: Fault) -> None:
        """A second message of some task, as it is now: waiting, running or long at its end."""
        with self._cluster.tasks() as tasks:
            found = list(tasks.find({}).sort("created_at", -1).limit(30))
        if found:
            task = Task(random.Random(fault.draw).choice(found))
            with self._cluster.channel() as channel:
                channel.basic_publish(
                    "", self._queue(fault.target), task.to_message(), pika.BasicProperties(delivery_mode=2)
                )

    def _steal(self, fault: Fault) -> None:
        """One message of a task that the database knows disappears."""
        with self._cluster.channel() as channel:
            method, _, body = channel.basic_get(self._queue(fault.target))
            if method is None:
                return
            with suppress(Exception), self._cluster.tasks() as tasks:
                task_id = Task.from_message(body).id
                if tasks.find_one({"_id": task_id}) is not None:
                    self._history.stolen.add(task_id)
                    channel.basic_ack(method.delivery_tag)


@contextmanager
def _server(server: RabbitNode | WireMongo, how: str) -> Iterator[None]:
    {"kill": server.kill, "stop": server.stop, "freeze": server.freeze}[how]()
    yield
    if how == "freeze":
        server.thaw()
    else:
        server.start()


@contextmanager
def _link(proxy: Proxy, fault: Fault) -> Iterator[None]:
    direction = "to_server" if fault.draw < 0.5 else "to_client"
    break_it: dict[str, Callable[[], None]] = {
        "reset": proxy.reset_all,
        "cut": lambda: proxy.cut_mid_frame(int(fault.draw * 600)),
        "drop": proxy.drop,
        "stall": proxy.stall,
        "half-open": lambda: proxy.half_open(direction),
        "delay": lambda: proxy.delay(0.05 + 0.45 * fault.draw, jitter=0.1),
        "throttle": lambda: proxy.throttle(int(2_000 + 20_000 * fault.draw)),
        "refuse": proxy.refuse,
    }
    break_it[fault.sort]()
    yield
    proxy.heal()
