"""One process with no services, and each part replaced by the real one, singly."""

from __future__ import annotations

from pathlib import Path

import pytest

from offline_model import OfflineModel
from tests.e2e.embedded import Embedded
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


def test_what_keeps_it_from_starting_is_said_in_one_line(tmp_path: Path) -> None:
    with Embedded(tmp_path) as running:
        for settings, words in (
            ({"PORT": str(running.port)}, "listen on port"),
            ({"PORT": "http"}, "PORT"),
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
