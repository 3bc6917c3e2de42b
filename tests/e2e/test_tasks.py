"""What becomes of tasks while nothing breaks, with processes as in production, which all of these tests share."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import datetime

import pika
import pytest

from offline_model import OfflineModel
from tests.e2e.stack import Stack
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually

FIELDS = {
    *("_id", "user_id", "kind", "objective", "language", "created_at", "queued_at", "started_at", "completed_at"),
    *("deadline", "status", "progress", "steps", "attempts", "error", "code"),
}


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, rabbit_node: RabbitNode, wire_mongo: WireMongo
) -> Iterator[Stack]:
    """All functions and an engine."""
    for server in (rabbit_node, wire_mongo):
        if not server.running:  # a test before has left it down
            server.start()
    with OfflineModel(scriptable=True, seconds_per_answer=0.1) as model:
        stack = Stack(tmp_path_factory.mktemp("stack"), rabbit_node, wire_mongo, model)
        try:
            stack.start_functions()
            stack.start_engine()
            yield stack
        finally:
            stack.close()


@pytest.fixture
def stack(started: Stack) -> Iterator[Stack]:
    """Each test has a model that has not been asked, and leaves all processes as they were."""
    started.model.clear()
    yield started
    assert started.ended() == []


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def test_a_task_is_accepted_done_and_read_back(stack: Stack) -> None:
    task_id = stack.add(user_id="grace")
    (task,) = stack.wait_until_done([task_id])
    assert task["status"] == "completed"
    assert set(task) >= FIELDS
    namespace: dict[str, object] = {}
    exec(compile(ast.parse(task["code"]), "answer", "exec"), namespace)
    (function,) = [value for name, value in namespace.items() if name.startswith("sum")]
    assert function(1, 2, 3) == 6  # type: ignore[operator]
    assert task["usage"]["total_tokens"] > 0
    assert (task["attempts"], task["error"], task["progress"]) == (1, None, 100)
    assert stack.model.calls() == {task_id: 1}
    listed = stack.client.get(stack.url("/tasks/get?user_id=grace")).json()
    assert [item["_id"] for item in listed["tasks"]] == [task_id]


def test_one_idempotency_key_is_one_task_whatever_is_repeated(stack: Stack) -> None:
    ids = {stack.add(headers={"Idempotency-Key": "k1"}) for _ in range(5)}
    (task_id,) = ids
    stack.wait_until_done([task_id])
    assert stack.add(headers={"Idempotency-Key": "k1"}) == task_id
    assert stack.model.calls() == {task_id: 1}


def test_cancelling_a_running_task_closes_its_call_to_the_model(stack: Stack) -> None:
    stack.model.script([{"fault": "hang"}])
    task_id = stack.add()
    eventually(lambda: stack.model.open_calls() == 1)
    stack.wait_for([task_id], lambda task: task["status"] == "running")
    answer = stack.client.post(stack.url(f"/tasks/cancel/{task_id}"))
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    eventually(lambda: stack.model.closed_early() == 1, 2)
    assert stack.get(task_id)["status"] == "cancelled"
    again = stack.client.post(stack.url(f"/tasks/cancel/{task_id}"))
    assert again.status_code == 409


def test_a_busy_model_is_tried_again_after_the_pause_it_asks_for(stack: Stack) -> None:
    stack.model.script([{"fault": "status", "status": 429, "retry_after": 4, "times": 1}])
    task_id = stack.add()
    (waiting,) = stack.wait_for([task_id], lambda task: task["retry_at"] is not None)
    assert (waiting["status"], waiting["error"]["code"]) == ("pending", "rate_limited")
    (task,) = stack.wait_until_done([task_id])
    assert (task["status"], task["attempts"]) == ("completed", 2)
    first, second = (step["started_at"] for step in task["steps"] if step["name"] == "ask the model")
    assert 4 <= seconds_between(first, second) < 8


def test_a_permanent_error_is_told_at_once(stack: Stack) -> None:
    stack.model.script([{"fault": "status", "status": 401}])
    (task,) = stack.wait_until_done([stack.add()], 10)
    assert (task["status"], task["error"]["code"], task["attempts"]) == ("failed", "model_access", 1)


def test_a_message_that_is_no_task_does_not_stop_the_line(stack: Stack) -> None:
    stack.wait_until_done([stack.add()])
    with pika.BlockingConnection(pika.URLParameters(stack.rabbit.url)) as connection:
        channel = connection.channel()
        for body in (b"", b"garbage", b"[]", b"{}", b'{"_id": 1}', b"\xff\xfe", b"[" * 100_000):
            channel.basic_publish("", stack.queue, body)
        stack.wait_until_done([stack.add() for _ in range(10)])
        unreadable = f"{stack.queue}.unreadable"
        eventually(lambda: channel.queue_declare(unreadable, passive=True).method.message_count == 7)
        for name in (stack.queue, f"{stack.queue}.dead"):
            assert channel.queue_declare(name, passive=True).method.message_count == 0


def test_code_is_seen_while_it_grows(stack: Stack) -> None:
    stack.model.script([{"seconds": 4.0}])
    task_id = stack.add("Fibonacci in Python: return the nth Fibonacci number")
    (growing,) = stack.wait_for([task_id], lambda task: task["code"] != "")
    assert growing["status"] == "running"
    (task,) = stack.wait_until_done([task_id])
    assert len(growing["code"]) < len(task["code"])
