"""The HTTP servers that are measured, each started as its documentation recommends."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.lab import ROOT, Lab, Started
from bench.load import load
from sluice.broker import Topology
from tests.servers.ports import free_port

#: Requests before a measurement, so that every process and thread has its connection.
WARM_REQUESTS = 200


@dataclass(frozen=True)
class Door:
    """A running server that takes tasks at `url` and puts them into `queue`."""

    process: Started
    url: str
    queue: str


def sluice(lab: Lab, queue: str, *, workers: int = 2, store: bool = False) -> Door:
    """Sluice's add function by the command of its image. Without `store` tasks are kept nowhere but in the queue; with
    it, in the wire database."""
    return _sluice(lab, image_command(), queue, free_port(), workers, store)


def sluice_flask(lab: Lab, queue: str, *, workers: int = 2, store: bool = False) -> Door:
    """Sluice's add function as the Flask function that it is too, in gunicorn's threads."""
    port = free_port()
    gunicorn = [*_gunicorn(port, workers), "-k", "gthread", "--threads", "16", "functions_framework:app"]
    return _sluice(lab, gunicorn, queue, port, workers, store)


def _sluice(lab: Lab, command: Sequence[str], queue: str, port: int, workers: int, store: bool) -> Door:
    environment = {
        "FUNCTION_SOURCE": "bench/add_task.py",
        "FUNCTION_TARGET": "add_task",
        "STORE": "mongodb" if store else "free",
        "MONGODB_URI": lab.mongo().uri if store else "mongodb://127.0.0.1:9/",
        "MONGODB_DATABASE": queue,
        "RABBITMQ_URL": lab.rabbit.url,
        "TASK_QUEUE": queue,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": str(workers),
    }
    return _started(lab, "sluice", command, environment, port, queue)


def image_command() -> list[str]:
    """What the image of a function runs, with this Python: the CMD of the stage `http` in functions/Dockerfile."""
    stage = (ROOT / "functions" / "Dockerfile").read_text().partition("AS http\n")[2]
    found = re.search(r"^CMD (\[.*\])$", stage, re.M)
    assert found is not None
    program, *arguments = json.loads(found[1])
    assert program == "python"
    return [sys.executable, *arguments]


def fastapi_celery(lab: Lab, queue: str, *, workers: int = 2, store: bool = False, confirm: bool = True) -> Door:
    """https://fastapi.tiangolo.com/deployment/server-workers/, without its access log, which others don't write."""
    port = free_port()
    environment = _peer_environment(lab, queue, store) | {"CONFIRM": "1" if confirm else "0"}
    app = "bench.peers.fastapi_celery:app"
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--workers", str(workers), "--no-access-log", app]
    return _started(lab, "fastapi-celery", command, environment, port, queue)


def flask_pika(lab: Lab, queue: str, *, workers: int = 2, store: bool = False) -> Door:
    """https://docs.gunicorn.org/en/stable/design.html: threads, for an application that waits."""
    port = free_port()
    command = [*_gunicorn(port, workers), "-k", "gthread", "--threads", "16", "bench.peers.flask_pika:app"]
    return _started(lab, "flask-pika", command, _peer_environment(lab, queue, store), port, queue)


def _gunicorn(port: int, workers: int) -> list[str]:
    quiet = ["--no-control-socket", "--log-level", "warning"]
    return [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", str(workers), *quiet]


def _peer_environment(lab: Lab, queue: str, store: bool) -> dict[str, str]:
    return {
        "RABBITMQ_URL": lab.rabbit.url,
        "TASK_QUEUE": queue,
        **({"MONGODB_URI": lab.mongo().uri} if store else {}),
    }


def _started(lab: Lab, name: str, command: Sequence[str], environment: dict[str, str], port: int, queue: str) -> Door:
    base = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with urllib.request.urlopen(f"{base}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)

    process = lab.start(name, command, environment, ready)
    door = Door(process, f"{base}/tasks/add", queue)
    try:
        load(door.url, connections=64, requests=WARM_REQUESTS)
    except BaseException:
        print(process.log_tail(), file=sys.stderr)
        process.stop()
        raise
    return door


def delete_queues(lab: Lab, queue: str) -> None:
    """Delete a queue and those that Sluice or dramatiq have made beside it, with all that is in them."""
    beside = (f"{queue}.DQ", f"{queue}.XQ", *(found.name for found in Topology(queue).queues))
    with lab.channel() as channel:
        for name in {queue, *beside}:
            channel.queue_delete(name)  # one that does not exist is fine too


def waiting(channel: Any, queue: str) -> int:
    """Messages that wait in a queue."""
    return int(channel.queue_declare(queue, passive=True).method.message_count)
