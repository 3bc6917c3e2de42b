"""The functions as they are served, on services in this process whose outages can be had at will."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import functions_framework
import mongomock
import pytest
from pymongo.errors import ServerSelectionTimeoutError
from werkzeug.test import Client, TestResponse

from sluice import async_worker
from sluice.broker import Delivery, Message, Queue
from sluice.errors import BrokerUnavailable
from sluice.kinds import kinds
from sluice.memory import InMemoryTaskBroker
from sluice.services import Services, install, topology
from sluice.settings import Settings
from sluice.store import MongoTaskStore
from sluice.task import Document, Task, new_id, new_task, utc_now
from tests.functions.asgi import AsgiClient

FUNCTIONS = Path(__file__).resolve().parents[2] / "functions"

#: Seconds for which a queue that never confirms is waited for.
PUBLISH_TIMEOUT = 0.1


class Database:
    """A MongoDB client that can go away: then its calls fail as pymongo's do when no server answers."""

    def __init__(self) -> None:
        self.is_away = False
        self._client: Any = mongomock.MongoClient(tz_aware=True)
        self.admin = self

    def command(self, name: str) -> Any:
        self.check()
        return self._client.admin.command(name)

    def __getitem__(self, _name: str) -> Database:
        return self

    def get_collection(self, name: str, **options: Any) -> Collection:
        return Collection(self, self._client["sluice"].get_collection(name, **options))

    def check(self) -> None:
        if self.is_away:
            raise ServerSelectionTimeoutError("db.internal:27017: [Errno 111] Connection refused")


class Collection:
    def __init__(self, database: Database, collection: Any) -> None:
        self._database = database
        self._collection = collection

    def __getattr__(self, name: str) -> Any:
        self._database.check()
        return getattr(self._collection, name)


class Broker(InMemoryTaskBroker):
    """A queue that can go away: it refuses messages at once, or takes them and never confirms."""

    away: Literal["refuses", "silent"] | None = None
    unconfirmed: list[Future[None]]

    def send(self, message: Message, queue: Queue) -> Future[None]:
        if self.away == "refuses":
            raise BrokerUnavailable("queue.internal:5672 refused the connection")
        if self.away == "silent":
            self.unconfirmed.append(future := Future[None]())
            return future
        return super().send(message, queue)

    @property
    def is_connected(self) -> bool:
        return self.away is None and super().is_connected


class Sluice:
    """All four functions behind one of their doors, and what they work with."""

    def __init__(self, door: str = "async") -> None:
        self.door = door
        settings = Settings.load(environment={"PUBLISH_TIMEOUT_SECONDS": str(PUBLISH_TIMEOUT)})
        self.database = Database()
        self.store = MongoTaskStore(self.database)
        self.broker = Broker(topology(settings))
        self.broker.unconfirmed = []
        self.services = Services(settings, self.store, self.broker)

    def client(self, name: str) -> Client:
        """A client of one function, loaded and routed as functions-framework does it."""
        source = str(FUNCTIONS / name / "main.py")
        if self.door == "async":
            return AsgiClient(async_worker.create_app(name, source))
        client: Client = functions_framework.create_app(name, source).test_client()
        return client

    @cached_property
    def adding(self) -> Client:
        return self.client("add_task")

    @cached_property
    def getting(self) -> Client:
        return self.client("get_tasks")

    @cached_property
    def cancelling(self) -> Client:
        return self.client("cancel_task")

    @cached_property
    def retrying(self) -> Client:
        return self.client("retry_task")

    def add(self, key: str | None = None, **fields: Any) -> TestResponse:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.adding.post("/tasks/add", json={"user_id": "ada", "objective": "Add.", **fields}, headers=headers)

    def get(self, task_id: str, **headers: str) -> TestResponse:
        return self.getting.get(f"/tasks/get/{task_id}", headers=headers)

    def list(self, **query: Any) -> TestResponse:
        return self.getting.get("/tasks/get", query_string={"user_id": "ada", **query})

    def cancel(self, task_id: str) -> TestResponse:
        return self.cancelling.post(f"/tasks/cancel/{task_id}")

    def retry(self, task_id: str, **headers: str) -> TestResponse:
        return self.retrying.post(f"/tasks/retry/{task_id}", headers=headers)

    def given(self, **changes: Any) -> Task:
        """A task that is in the database already: an hour old, pending, and changed like this."""
        task = new_task(
            task_id=new_id(),
            user_id="ada",
            kind="code",
            inputs={"objective": "Add.", "language": "python"},
            outputs=kinds()["code"].blank_outputs(),
            now=utc_now() - timedelta(hours=1),
            ttl=timedelta(minutes=5),
        )
        return self.store.insert(task.replace(**changes))

    def stored(self, task_id: str) -> Task | None:
        return self.store.get(task_id)

    def start(self, task_id: str) -> Task:
        """What an engine does first."""
        running = self.store.claim(task_id, engine="engine-1", lease=timedelta(seconds=10))
        assert running is not None
        return running

    def complete(self, task_id: str, **outputs: Any) -> None:
        """What an engine does first and last."""
        assert self.store.finish(self.start(task_id), "completed", {"progress": 100, **outputs})

    def messages(self) -> list[Message]:
        """What waits in the queue; it stays there."""
        deliveries: list[Delivery] = []
        consumer = self.broker.consume(1000, deliveries.append, deliveries.append)
        consumer.close()
        return [delivery.message for delivery in deliveries]

    def is_empty(self) -> bool:
        """Whether neither service holds anything."""
        return self.messages() == [] and self.list().get_json() == {"tasks": [], "next": None}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Through which doors the functions are asked: the one of production, or those that a module names as DOORS."""
    if "sluice" in metafunc.fixturenames:
        metafunc.parametrize("sluice", getattr(metafunc.module, "DOORS", ["async"]), indirect=True)


@pytest.fixture
def sluice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sluice]:
    monkeypatch.setattr("sluice.services._installed", {})
    made = Sluice(request.param)
    install(made.services)
    yield made
    made.broker.close()


def problem_of(response: TestResponse, status: HTTPStatus) -> Document:
    """The problem details of an error answer (RFC 9457), after a look at their form."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    problem: Document = json.loads(response.data)
    assert problem.keys() - {"errors"} == {"type", "title", "status", "detail"}
    assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", status.phrase, status)
    assert isinstance(problem["detail"], str)
    assert problem["detail"]
    for leak in ("Traceback", "Error", "Exception", ".py", "internal:", "Errno"):
        assert leak not in response.text.replace("Internal Server Error", "")
    return problem


def bad_fields(response: TestResponse, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> list[str]:
    """The names of the fields that an error answer complains about."""
    errors = problem_of(response, status)["errors"]
    assert all(error.keys() == {"field", "message"} and error["message"] for error in errors)
    return sorted({error["field"] for error in errors})


def moment(text: str) -> datetime:
    """A time of an answer."""
    assert text.endswith("Z")
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
