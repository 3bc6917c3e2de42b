"""What breaks costs no task, with processes as in production; what a restart may cost is in test_restarts.py and
test_endurance.py."""

from __future__ import annotations

import shutil
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pika

from offline_model import OfflineModel
from tests.e2e.stack import BIN, PATHS, ROOT, Stack
from tests.servers.ports import free_port
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually


def test_when_an_engine_is_killed_another_completes_its_ten_tasks(stack: Stack) -> None:
    stack.start_functions("add", "get")
    stack.model.script([{"times": 10, "seconds": 60}])
    first = stack.start_engine(LEASE_SECONDS="3")
    ids = [stack.add() for _ in range(10)]
    stack.wait_for(ids, lambda task: task["status"] == "running")
    eventually(lambda: stack.model.open_calls() == 10)
    first.kill()
    stack.start_engine(LEASE_SECONDS="3")
    tasks = stack.wait_until_done(ids, 45)
    assert {(task["status"], task["attempts"]) for task in tasks} == {("completed", 2)}
    assert all(task["code"] for task in tasks)


def test_an_engine_that_was_frozen_can_not_overwrite_its_successor(stack: Stack) -> None:
    stack.start_functions("add", "get")
    stack.model.script([{"times": 1, "seconds": 3, "answer": "```python\nfrom_the_frozen_engine = 1\n```"}])
    first = stack.start_engine(LEASE_SECONDS="1")
    task_id = stack.add()
    stack.wait_for([task_id], lambda task: task["status"] == "running")
    eventually(lambda: stack.model.open_calls() == 1)
    first.freeze()
    # The broker would notice after two missed heartbeats (20 s). Cutting the connection is the same, sooner.
    stack.rabbit.ctl("close_all_connections", "test")
    stack.start_engine(LEASE_SECONDS="1")
    (task,) = stack.wait_until_done([task_id], 30)
    first.thaw()
    eventually(lambda: "came too late" in first.log_text() or "taken it over" in first.log_text(), 20)
    after = stack.get(task_id)
    assert after == task
    assert (after["status"], after["attempts"]) == ("completed", 2)
    assert "frozen" not in after["code"]


def test_with_rabbitmq_away_tasks_are_accepted_and_done_when_it_is_back(stack: Stack, rabbit: RabbitNode) -> None:
    stack.start_functions("add", "get")
    stack.start_engine()
    stack.wait_until_done([stack.add()])
    rabbit.stop()
    started = time.monotonic()
    ids = [stack.add() for _ in range(5)]
    assert time.monotonic() - started < 5
    assert {stack.get(task_id)["queued_at"] for task_id in ids} == {None}
    rabbit.start()
    tasks = stack.wait_until_done(ids, 30)
    assert {(task["status"], task["attempts"]) for task in tasks} == {("completed", 1)}


def test_with_mongodb_away_tasks_are_accepted_and_done_when_it_is_back(stack: Stack, wire_mongo: WireMongo) -> None:
    stack.start_functions("add", "get")
    engine = stack.start_engine()
    stack.wait_until_done([stack.add()])
    wire_mongo.stop()
    ids = [stack.add() for _ in range(3)]
    answer = stack.client.get(stack.url(f"/tasks/get/{ids[0]}"))
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    wire_mongo.start()
    tasks = [eventually(lambda i=i: stack.completed(i), 20) for i in ids]  # type: ignore[misc]
    assert {(task["status"], task["attempts"]) for task in tasks} == {("completed", 1)}
    assert engine.running


def test_with_both_away_nothing_is_accepted_within_five_seconds(
    stack: Stack, rabbit: RabbitNode, wire_mongo: WireMongo
) -> None:
    stack.start_functions("add", "get")
    rabbit.stop()
    wire_mongo.stop()
    started = time.monotonic()
    answer = stack.client.post(stack.url("/tasks/add"), json={"user_id": "ada", "objective": "x"})
    assert time.monotonic() - started < 5
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["content-type"] == "application/problem+json"
    wire_mongo.start()
    rabbit.start()
    assert eventually(lambda: _list(stack), 10)["tasks"] == []


def _list(stack: Stack) -> dict[str, list[object]] | None:
    answer = stack.client.get(stack.url("/tasks/get?user_id=ada"))
    return answer.json() if answer.status_code == 200 else None


def test_tasks_that_no_engine_took_in_time_say_so_and_can_be_retried(stack: Stack) -> None:
    stack.settings["TASK_TTL_SECONDS"] = "2"
    stack.start_functions()
    ids = [stack.add() for _ in range(5)]
    with pika.BlockingConnection(pika.URLParameters(stack.rabbit.url)) as connection:
        channel = connection.channel()
        eventually(lambda: channel.queue_declare(f"{stack.queue}.dead", passive=True).method.message_count == 5)
    stack.start_engine()
    tasks = stack.wait_until_done(ids, 5)
    assert {(task["status"], task["error"]["code"]) for task in tasks} == {("failed", "expired")}
    for task_id in ids:
        stack.history.pop(task_id)
        answer = stack.client.post(stack.url(f"/tasks/retry/{task_id}"))
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    tasks = stack.wait_until_done(ids, 10)
    assert {(task["status"], task["error"]) for task in tasks} == {("completed", None)}


def test_a_task_that_kills_its_engine_is_given_up_and_harms_nobody_else(
    tmp_path: Path, rabbit: RabbitNode, wire_mongo: WireMongo, model: OfflineModel
) -> None:
    tree = tmp_path / "tree"
    for name in ("sluice", "functions"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "sluice/kinds/poison.py").write_text(
        "from sluice import kinds\nTITLE = 'Poison'\n"
        "class Inputs(kinds.Inputs):\n    pass\n"
        "class Outputs(kinds.Outputs):\n    pass\n"
    )
    (tree / "functions/engine/kinds/poison.py").write_text(
        "import os, signal, time\ndef run(task, step):\n    time.sleep(1)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    stack = Stack(tmp_path, rabbit, wire_mongo, model, tree)
    try:
        stack.start_functions("add", "get")
        stack.model.script([{"times": 9, "seconds": 2.0}, {"seconds": 0.5}])
        engine = stack.start_engine(LEASE_SECONDS="1")
        innocent = [stack.add() for _ in range(9)]
        poison = stack.add(kind="poison")
        eventually(lambda: not engine.running, 20)
        second = stack.start_engine(LEASE_SECONDS="1")
        tasks = stack.wait_until_done(innocent, 60)
        assert {task["status"] for task in tasks} == {"completed"}
        (task,) = stack.wait_until_done([poison], 60)
        assert (task["status"], task["error"]["code"], task["attempts"]) == ("failed", "crashed", 3)
        assert second.running, "only the first engine died"
    finally:
        stack.close()


def test_an_engine_reconnects_to_a_broker_that_restarts_while_tasks_run(stack: Stack, rabbit: RabbitNode) -> None:
    stack.start_functions("add", "get")
    stack.model.script([{"seconds": 6.0}])
    stack.start_engine()
    ids = [stack.add() for _ in range(10)]
    eventually(lambda: stack.model.open_calls() == 10)
    rabbit.restart()
    tasks = stack.wait_until_done(ids, 60)
    assert {(task["status"], task["attempts"]) for task in tasks} == {("completed", 1)}
    assert stack.model.calls() == dict.fromkeys(ids, 1), "the running attempts went on"
    stack.model.script([])
    stack.wait_until_done([stack.add()], 20)


def test_an_engine_at_rest_needs_little_memory_and_says_how_it_is(stack: Stack) -> None:
    engine = stack.start_engine()
    status = Path(f"/proc/{engine.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident < 80 * 1024
    port = engine.port  # type: ignore[attr-defined]
    metrics = stack.client.get(f"http://127.0.0.1:{port}/metrics").text
    assert "sluice_tasks_running 0.0" in metrics
    engine.terminate()
    assert engine.wait(10) == 0


def test_wrong_settings_stop_the_start_and_are_all_named(stack: Stack) -> None:
    engine = stack._process(
        "wrong",
        [sys.executable, "-m", "functions.engine.main"],
        {
            **stack.environment(),
            "MONGODB_URI": "",
            "RABBITMQ_URL": "",
            "TASK_TTL_SECONDS": "soon",
            "OPENAI_BASE_URL": "x",
        },
        0,
    )
    engine.launch()
    assert engine.wait(10) == 2
    for name in ("MONGODB_URI", "RABBITMQ_URL", "TASK_TTL_SECONDS", "OPENAI_BASE_URL"):
        assert name in engine.log_text()
    assert "Traceback" not in engine.log_text()


def test_each_function_starts_with_the_stock_command(stack: Stack) -> None:
    for name in PATHS.values():
        port = free_port()
        command = [BIN / "functions-framework", "--source", f"functions/{name}/main.py", "--target", name]
        process = stack._process(name, [*command, "--port", str(port)], stack.environment(), port, "/readyz")
        process.launch()
    for process in stack._processes:
        process.wait_until_ready()
        process.terminate()
    assert [process.wait(20) for process in stack._processes] == [0, 0, 0, 0]


def test_a_message_that_was_handed_out_too_often_still_reaches_its_task(stack: Stack) -> None:
    """Its headers say that it has died before. RabbitMQ 3.10 would take its way through a wait queue for a cycle."""
    stack.start_functions("add", "get")
    task_id = stack.add()
    with pika.BlockingConnection(pika.URLParameters(stack.rabbit.url)) as connection:
        channel = connection.channel()
        for _ in range(21):
            method, _, _ = eventually(lambda: (got := channel.basic_get(stack.queue))[0] and got)
            channel.basic_nack(method.delivery_tag, requeue=True)
        eventually(lambda: channel.queue_declare(f"{stack.queue}.dead", passive=True).method.message_count == 1)
    stack.start_engine(SWEEP_SECONDS="1000")
    (task,) = stack.wait_until_done([task_id], 15)
    assert (task["status"], task["attempts"]) == ("completed", 1)


def test_a_function_with_wrong_settings_ends_instead_of_answering_errors(stack: Stack) -> None:
    port = free_port()
    environment = stack.environment(
        FUNCTION_SOURCE="functions/add_task/main.py", FUNCTION_TARGET="add_task", PORT=str(port), RABBITMQ_URL=""
    )
    command = [BIN / "gunicorn", "-c", "functions/gunicorn.conf.py", "functions_framework.aio:app"]
    function = stack._process("wrong", command, environment, port)
    function.launch()
    assert function.wait(20) not in (None, 0)
    assert "RABBITMQ_URL is not set" in function.log_text()


def test_callers_that_never_finish_their_requests_do_not_hold_a_function_for_ever(stack: Stack) -> None:
    stack.start_functions("add")
    port = int(stack.url("/tasks/add").split(":")[2].split("/")[0])
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(16)]
    for connection in slow:
        connection.sendall(b"POST /tasks/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: 1000\r\n\r\n{")
    assert stack.client.get(stack.url("/tasks/add").replace("/tasks/add", "/healthz"), timeout=20).status_code == 200
    for connection in slow:
        connection.close()


def test_a_head_without_end_is_refused_before_it_fills_the_memory(stack: Stack) -> None:
    stack.start_functions("add")
    port = int(stack.url("/tasks/add").split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        with suppress(ConnectionError):  # it hangs up in the middle
            for number in range(100):
                connection.sendall(b"X-%d: %s\r\n" % (number, b"x" * 8000))
        with suppress(ConnectionResetError):
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert stack.client.get(stack.url("/tasks/add").replace("/tasks/add", "/healthz")).status_code == 200


def test_a_request_that_is_on_its_way_when_a_function_is_stopped_is_answered(stack: Stack) -> None:
    (function,) = stack.start_functions("add")
    stack.add()
    stack.mongo.freeze()
    try:
        with ThreadPoolExecutor(1) as caller:
            adding = caller.submit(stack.add)  # it waits for the database for two seconds
            sent = eventually(lambda: _depth(stack) == 2)
            function.terminate()
            assert sent
            assert adding.result(20)
        assert function.wait(20) == 0
    finally:
        stack.mongo.thaw()


def _depth(stack: Stack) -> int:
    with pika.BlockingConnection(pika.URLParameters(stack.rabbit.url)) as connection:
        return int(connection.channel().queue_declare(stack.queue, passive=True).method.message_count)
