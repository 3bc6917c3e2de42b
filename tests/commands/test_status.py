"""`make status`: one table of what a cluster shows, and honest about what it does not show."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sluice.store import open_mongodb
from sluice.task import new_task
from tests.commands.running import ROOT, path_of, run
from tests.servers.wire_mongo import WireMongo

#: A kubectl for which the answers lie beside it, each in a file named after what is asked for.
KUBECTL = """
answer() { if [ -e "$(dirname "$0")/$1" ]; then cat "$(dirname "$0")/$1"; else echo "$2" >&2; exit 1; fi; }
case "$*" in
    *current-context*) echo stand-in ;;
    *"get pods"*) answer pods ;;
    *"get deployments"*) answer deployments ;;
    *"get statefulsets"*) answer statefulsets ;;
    *"get scaledobjects"*) answer scaledobjects 'error: the server has no resource type "scaledobjects"' ;;
    *rabbitmqctl*) answer queues 'Error from server (NotFound): statefulsets.apps "rabbitmq" not found' ;;
    *functions.get_tasks.status*) answer tasks 'The database does not answer.' ;;
    *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""


def pod(name: str, container: dict[str, Any], **metadata: str) -> dict[str, Any]:
    created = (datetime.now(UTC) - timedelta(hours=3)).isoformat().replace("+00:00", "Z")
    return {
        "metadata": {"name": name, "creationTimestamp": created, **metadata},
        "spec": {"nodeName": "node-1", "containers": [{}]},
        "status": {"phase": "Running", "containerStatuses": [{"restartCount": 0, "state": {}, **container}]},
    }


def workload(name: str, wanted: int, ready: int) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"replicas": wanted}, "status": {"readyReplicas": ready}}


def table(directory: Path, answers: dict[str, object]) -> list[str]:
    """The lines, with single blanks, that the command prints when kubectl answers so."""
    path = path_of(directory / "bin", {"kubectl": KUBECTL})
    (directory / "bin" / "dirname").symlink_to("/usr/bin/dirname")
    for name, answer in answers.items():
        wrapped = {"items": answer} if isinstance(answer, list) and name != "queues" else answer
        (directory / "bin" / name).write_text(json.dumps(wrapped))
    ended = run("status", path)
    assert ended.returncode == 0, ended.stderr
    return [" ".join(line.split()) for line in ended.stdout.splitlines()]


def test_the_table_shows_pods_replicas_queues_and_tasks(tmp_path: Path) -> None:
    lines = table(
        tmp_path,
        {
            "pods": [
                pod("engine-1", {"ready": True, "restartCount": 2}),
                pod("web-1", {"ready": False, "state": {"waiting": {"reason": "ImagePullBackOff"}}}),
                pod("web-0", {"ready": True}, deletionTimestamp="2026-01-01T00:00:00Z"),
                {**pod("sweep-1", {"ready": False}), "status": {"phase": "Succeeded"}},
                {"metadata": {"name": "new", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": [{}]}}
                | {"status": {"phase": "Pending"}},
            ],
            "deployments": [workload("engine", 4, 3), workload("web", 1, 0)],
            "statefulsets": [workload("rabbitmq", 1, 1)],
            "scaledobjects": [
                {
                    "spec": {"scaleTargetRef": {"name": "engine"}},
                    "status": {"conditions": [{"type": "Active", "status": "True"}]},
                }
            ],
            "queues": [
                {"name": "tasks", "messages_ready": 120, "messages_unacknowledged": 40},
                {"name": "tasks.retry.1", "messages_ready": 2, "messages_unacknowledged": 0},
                {"name": "tasks.retry.30", "messages_ready": 1, "messages_unacknowledged": 0},
                {"name": "tasks.dead", "messages_ready": 5, "messages_unacknowledged": 1},
            ],
            "tasks": {"pending": 162, "running": 40, "completed": 10_000},
        },
    )
    assert lines[0] == "cluster: stand-in"
    for line in (
        "engine-1 Running 1/1 2 3h node-1",
        "web-1 ImagePullBackOff 0/1 0 3h node-1",
        "web-0 ending 1/1 0 3h node-1",
        "engine 4 3 KEDA, active: True",
        "web 1 0 -",
        "rabbitmq 1 1 -",
        "tasks 120 40",
        "tasks.retry.* 3 0",
        "tasks.dead 5 1",
        "tasks pending running completed",
        "162 40 10000 or more",
    ):
        assert line in lines
    assert [line for line in lines if line.startswith("new Pending 0/1 0 ")]
    assert not [line for line in lines if line.startswith("sweep-1")]


def test_what_is_outside_of_the_cluster_or_does_not_answer_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    lines = table(tmp_path, {"pods": [], "deployments": [workload("engine", 0, 0)], "statefulsets": []})
    assert "engine 0 0 -" in lines
    assert "can't be seen: RabbitMQ is not in this cluster" in lines
    assert "can't be seen: The database does not answer." in lines


def test_tasks_of_all_users_are_counted(tmp_path: Path) -> None:
    with WireMongo(tmp_path) as server:
        store = open_mongodb(server.uri, "sluice")
        for number in range(3):
            store.insert(
                new_task(
                    task_id=f"task-{number}",
                    user_id=f"user-{number}",
                    kind="message",
                    inputs={"text": "hello"},
                    outputs={},
                    now=datetime.now(UTC),
                    ttl=timedelta(minutes=5),
                )
            )
        store.cancel("task-0")
        store.close()
        counted = ask_for_status(MONGODB_URI=server.uri)
    assert counted.returncode == 0, counted.stderr
    assert json.loads(counted.stdout) == {"pending": 2, "running": 0, "completed": 0, "failed": 0, "cancelled": 1}


def test_without_a_database_there_is_a_reason_and_no_number() -> None:
    away = ask_for_status(MONGODB_URI="mongodb://127.0.0.1:1", STORE_TIMEOUT_SECONDS="0.1")
    assert (away.returncode, away.stdout) == (1, "")
    assert "database" in away.stderr
    unset = ask_for_status()
    assert (unset.returncode, unset.stdout) == (2, "")
    assert "MONGODB_URI" in unset.stderr


def ask_for_status(**settings: str) -> subprocess.CompletedProcess[str]:
    """As `make status` does in a pod of get-tasks, with no settings but these."""
    command = [sys.executable, "-m", "functions.get_tasks.status"]
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False, timeout=60)
