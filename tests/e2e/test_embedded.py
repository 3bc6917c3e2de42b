"""One process with no services, and each part replaced by the real one, singly."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from offline_model import OfflineModel
from tests.e2e.embedded import ROOT, Embedded
from tests.servers.ports import free_port
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually

TASK = {"user_id": "ada", "objective": "Create a function that sums up three numbers.", "language": "python"}


def add_and_wait(sluice: Embedded) -> dict[str, object]:
    answer = sluice.client.post("/tasks/add", json=TASK)
    assert answer.status_code == 202
    location = answer.headers["Location"]
    return eventually(lambda: (t := sluice.client.get(location).json())["status"] in {"completed", "failed"} and t)


def test_without_services_everything_is_a_stand_in_and_says_so(tmp_path: Path) -> None:
    with Embedded(tmp_path) as sluice:
        ready = sluice.client.get("/readyz").json()
        assert "offline model" in ready["model"]
        assert "in memory" in ready["database"]
        assert "in memory" in ready["queue"]
        assert "offline model" in sluice.log_text()
        assert add_and_wait(sluice)["status"] == "completed"
        assert sluice.client.get("/").status_code == 200
        assert "sluice_tasks_finished_total" in sluice.client.get("/metrics").text
        assert sluice.client.get("/tasks").status_code == 404
        sluice.terminate()
        assert sluice.wait(15) == 0


@pytest.mark.parametrize("part", ["database", "queue", "model"])
def test_a_setting_replaces_its_part_by_the_real_one_and_no_other(
    part: str, tmp_path: Path, rabbit: RabbitNode, wire_mongo: WireMongo
) -> None:
    with OfflineModel(seconds_per_answer=0.05) as model:
        settings = {
            "database": {"MONGODB_URI": wire_mongo.uri, "MONGODB_DATABASE": f"test_{tmp_path.name}"},
            "queue": {"RABBITMQ_URL": rabbit.url, "TASK_QUEUE": f"test-{free_port()}"},
            "model": {"OPENAI_BASE_URL": model.base_url},
        }[part]
        with Embedded(tmp_path, **settings) as sluice:
            ready = sluice.client.get("/readyz").json()
            stand_ins = {name for name in ("database", "queue", "model") if "set " in ready.get(name, "")}
            assert stand_ins == {"database", "queue", "model"} - {part}
            assert add_and_wait(sluice)["status"] == "completed"
            assert sum(model.calls().values()) == (1 if part == "model" else 0)


def test_a_body_that_is_too_large_is_refused_by_the_server_of_make_run_too(tmp_path: Path) -> None:
    with Embedded(tmp_path) as sluice:
        for size in (70_000, 500_000, 3_000_000):
            for path in ("/tasks/add", "/tasks/nowhere", "/tasks/cancel/abc"):
                answer = sluice.client.post(path, json={**TASK, "objective": "x" * size})
                assert answer.status_code == {"/tasks/add": 413, "/tasks/nowhere": 405}.get(path, 404)
                assert answer.headers["content-type"] == "application/problem+json"
        assert sluice.client.post("/tasks/add", content=json.dumps(TASK)).status_code == 415
        assert "Traceback" not in sluice.log_text()


def test_what_is_lost_when_it_ends_is_said(tmp_path: Path) -> None:
    with Embedded(tmp_path) as sluice:
        for _ in range(30):
            assert sluice.client.post("/tasks/add", json=TASK).status_code == 202
        sluice.terminate()
        assert sluice.wait(15) == 0
        assert re.search(r"\d+ unfinished tasks are lost", sluice.log_text())
        assert "Traceback" not in sluice.log_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("sed -i '/TITLE/d' sluice/kinds/message.py", "Kind message: TITLE is not defined"),
        (
            "sed -i 's/    message: str/    status: str/' sluice/kinds/message.py",
            "Kind message: these field names are taken",
        ),
        (
            'sed -i \'s/Field(default="", title="M/Field(title="M/\' sluice/kinds/message.py',
            "every output needs a default",
        ),
        ("rm functions/engine/kinds/message.py", "There is no handler in functions/engine/kinds for: message"),
    ],
)
def test_a_kind_that_is_wrong_stops_the_start(change: str, words: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for folder in ("sluice", "functions", "embedded", "offline_model", "web"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    subprocess.run(change, shell=True, check=True, cwd=tree)
    sluice = Embedded(tmp_path, tree=tree)
    sluice.launch()
    assert sluice.wait(15) == 2
    assert words in sluice.log_text()
    assert "Traceback" not in sluice.log_text()
    sluice.stop()


def test_what_keeps_it_from_starting_is_said_in_one_line(tmp_path: Path) -> None:
    with Embedded(tmp_path) as running:
        for settings, words in (
            ({"PORT": str(running.port)}, "listen on port"),
            ({"PORT": "http"}, "PORT"),
            ({"HOST": "nowhere.invalid"}, "HOST"),
            ({"HOST": "192.0.2.1"}, "listen"),
            ({"RABBITMQ_URL": "nonsense://user:hunter2@x"}, "RABBITMQ_URL"),
            ({"MONGODB_URI": "nonsense://user:hunter2@x"}, "MONGODB_URI"),
        ):
            directory = tmp_path / words.replace(" ", "-")
            directory.mkdir()
            other = Embedded(directory, **settings)
            other.launch()
            assert other.wait(15) == 2
            assert words in other.log_text()
            assert "Traceback" not in other.log_text()
            assert "hunter2" not in other.log_text()
