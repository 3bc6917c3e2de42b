"""The engine's answers to Prometheus, by a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.process import ServerProcess


def test_an_engine_that_shares_its_metrics_answers_too(tmp_path: Path, root: Path, free_port: int) -> None:
    """An engine is one process; but PROMETHEUS_MULTIPROC_DIR may be set for all parts alike."""
    (shared := tmp_path / "metrics").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(root),
        "HOST": "127.0.0.1",
        "PORT": str(free_port),
        "MONGODB_URI": "mongodb://127.0.0.1:1",
        "RABBITMQ_URL": "amqp://127.0.0.1:1",
        "OPENAI_API_KEY": "sk-offline",
        "PROMETHEUS_MULTIPROC_DIR": str(shared),
    }
    answers: list[str] = []

    def has_answered() -> bool:
        try:
            answer = httpx2.get(f"http://127.0.0.1:{free_port}/metrics", timeout=10)
        except httpx2.TransportError:
            return False
        answers.append(answer.text)
        return answer.status_code == 200

    with ServerProcess("engine", [sys.executable, "-m", "functions.engine.main"], tmp_path, environment, has_answered):
        values = {family.name: family.samples[0].value for family in text_string_to_metric_families(answers[-1])}
    assert values["sluice_tasks_running"] == 0
