"""The load script against a real Sluice, as a process: what it finds, and its exit status when things go wrong."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import httpx2
import pytest

from offline_model import OfflineModel
from tests.e2e.embedded import ROOT, Embedded
from tests.load.__main__ import main
from tests.load.options import Options
from tests.load.record import Record, Run
from tests.load.watcher import Watcher
from tests.scaling.api_server import ApiServer
from tests.servers import require
from tests.servers.ports import LOOPBACK, free_port
from tests.servers.proxy import Proxy
from tests.servers.rabbit import RabbitNode, rabbitmq_missing
from tests.waiting import eventually


@pytest.fixture(scope="module")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with Embedded(tmp_path_factory.mktemp("sluice")) as running:
        yield running


def summary(out: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return figures


@contextmanager
def started(out: Path, url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.load", "--url", url, "--out", str(out), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def counted(sluice: Embedded, what: str = "sluice_tasks_accepted_total") -> float:
    lines = sluice.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(what))


def await_answers(sluice: Embedded, accepted: int) -> None:
    """Until so many tasks are accepted, and it is long ago that their posts were answered: both users are looked at
    once a second, and were twice since."""
    eventually(lambda: counted(sluice) == accepted, 20)
    looks = 'sluice_requests_total{function="get_tasks"'
    enough = counted(sluice, looks) + 4
    eventually(lambda: counted(sluice, looks) >= enough, 20)


@pytest.mark.parametrize("content", ["not: [yaml", "a name", "clusters: 5"])
def test_a_kubeconfig_that_is_none_is_said_in_words(
    sluice: Embedded, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kubeconfig").write_text(content)
    url = str(sluice.client.base_url)
    assert main(["--url", url, "--tasks", "1", "--kubeconfig", str(tmp_path / "kubeconfig"), "--quiet"]) == 2
    assert "the kubeconfig" in capsys.readouterr().err


def test_a_run_with_fewer_tasks_than_connections_measures_its_client_too(sluice: Embedded, tmp_path: Path) -> None:
    url = str(sluice.client.base_url)
    assert main(["--url", url, "--tasks", "10", "--rate", "5", "--users", "2", "--quiet", "--out", str(tmp_path)]) == 0
    assert summary(tmp_path)["client"]["loop_lag_p95_seconds"] is not None


def test_tasks_at_a_rate_are_all_seen_to_their_end(
    sluice: Embedded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(sluice.client.base_url)
    assert main(["--url", url, "--tasks", "60", "--rate", "40", "--users", "7", "--out", str(tmp_path)]) == 0
    figures = summary(tmp_path)
    assert (figures["accepted"], figures["completed"], figures["not_finished"]) == (60, 60, {})
    assert figures["posts_per_second"] < 42
    assert figures["submit_seconds"]["p50"] > 0
    assert figures["seconds_to_finish"]["p50"] >= figures["seconds_to_start"]["p50"] >= 0
    assert "completed" in capsys.readouterr().out
    with (tmp_path / "tasks.csv").open() as file:
        tasks = list(csv.DictReader(file))
    assert len({task["id"] for task in tasks}) == 60
    for task in tasks[:3]:
        shown = sluice.client.get(f"/tasks/get/{task['id']}").json()
        assert all(shown[name] == task[name] for name in ("status", "created_at", "started_at", "completed_at"))
    assert "</svg>" in (tmp_path / "load.svg").read_text()


class Counting(Watcher):
    """Notes what it asks."""

    asked: ClassVar[list[str]] = []

    async def _get(self, session: aiohttp.ClientSession, path: str, tag: str = "") -> tuple[int, dict[str, Any]]:
        status, document = await super()._get(session, path, tag)
        self.asked.append(f"{path} {status}")
        return status, document


async def watch_until(watcher: Watcher, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        watching = asyncio.create_task(watcher.watch())
        while not condition():
            await asyncio.sleep(0.02)
    watching.cancel()
    await asyncio.wait([watching])


@pytest.mark.parametrize(
    ("tasks", "first"),
    [
        (20, ["view=summary&limit=50 200"]),  # one list
        (70, ["overview?user_id=TASKS-70 200", "status=completed&view=summary&limit=92 200"]),  # counts, and one list
    ],
)
def test_a_user_whose_tasks_are_known_to_be_finished_costs_one_304_a_look(
    sluice: Embedded, tasks: int, first: list[str]
) -> None:
    user = f"TASKS-{tasks}"
    run = Run(posting_ended=time.time())
    watcher = Counting(Options(str(sluice.client.base_url)), run)
    watcher.asked.clear()
    for number in range(tasks):
        body = {"user_id": user, "kind": "message", "text": "Hello."}
        record = Record(number, user, due=0, sent=0, id=sluice.client.post("/tasks/add", json=body).json()["_id"])
        watcher.add(record)
        run.accepted += 1
    watcher.add(Record(tasks, user, due=0, sent=0, id="f" * 32))  # nobody ever hears of it again
    run.accepted += 1
    overview = f"/tasks/get/overview?user_id={user}"
    eventually(
        lambda: (seen := sluice.client.get(overview).json())["tasks"]["completed"] == tasks and not seen["engines"]
    )
    asyncio.run(watch_until(watcher, lambda: len(watcher.asked) > len(first) + 1))
    assert run.finished == tasks
    for asked, expected in zip(watcher.asked, first, strict=False):
        assert asked.endswith(expected)
    assert all(asked.endswith(" 304") for asked in watcher.asked[len(first) :]), watcher.asked
    asyncio.run(watcher.last_look())
    assert watcher.asked[-1] == f"/tasks/get/{'f' * 32} 404"


#: What a task is in the end, by the answer to the last look at it.
LAST = {"200": "pending", "404": "gone", "429": "unknown", "500": "unknown", "503": "unknown"}


class Answers(BaseHTTPRequestHandler):
    """Answers with the status that a task's id begins with."""

    def do_GET(self) -> None:
        status = int(self.path.rpartition("/")[2][:3])
        times = {"created_at": "2026-01-01T00:00:00Z", "started_at": None, "completed_at": None}
        body = json.dumps({"_id": "200", "status": "pending", "attempts": 0, **times} if status == 200 else {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_the_last_look_takes_an_error_for_no_answer() -> None:
    records = [Record(number, "load-0", due=0, sent=0, id=id_, status="running") for number, id_ in enumerate(LAST)]
    with ThreadingHTTPServer((LOOPBACK, 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        watcher = Watcher(Options(f"http://{LOOPBACK}:{server.server_address[1]}"), Run())
        for record in records:
            watcher.add(record)
        asyncio.run(watcher.last_look())
        server.shutdown()
    assert {record.id: record.status for record in records} == LAST


def test_a_kind_with_inputs_and_a_failure_is_reported_by_its_reason(tmp_path: Path) -> None:
    with OfflineModel(scriptable=True, seconds_per_answer=0.05) as model:
        model.script([{"fault": "status", "status": 401, "times": 3}])
        with Embedded(tmp_path, OPENAI_BASE_URL=model.base_url, OPENAI_API_KEY="none") as sluice:
            url = str(sluice.client.base_url)
            arguments = ["--kind", "code", "--input", "objective=Reverse a string.", "--tasks", "10", "--rate", "20"]
            assert main(["--url", url, "--out", str(tmp_path), "--quiet", *arguments]) == 0
    figures = summary(tmp_path)
    assert (figures["completed"], figures["failed"]) == (7, {"model_access": 3})


def test_a_post_whose_answer_was_lost_is_repeated_and_stays_one_task(sluice: Embedded, tmp_path: Path) -> None:
    before = counted(sluice)
    with Proxy(sluice.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        with started(tmp_path, url, "--tasks", "60", "--rate", "20", "--users", "4") as process:
            for accepted in range(5, 50, 5):  # now and then it is a look at a list that is broken off
                eventually(lambda least=before + accepted: counted(sluice) >= least, 20)
                proxy.cut_mid_frame(300, "to_client")
            output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    figures = summary(tmp_path)
    assert (figures["accepted"], figures["completed"]) == (60, 60)
    assert sum(figures["repeated"].values()) >= 1
    users = [f"load-{figures['run']}-{number}" for number in range(4)]
    counts = [sluice.client.get(f"/tasks/get/overview?user_id={user}").json()["tasks"]["completed"] for user in users]
    assert sum(counts) == 60


def test_ctrl_c_ends_posting_and_still_shows_and_writes_what_is_known(sluice: Embedded, tmp_path: Path) -> None:
    before = counted(sluice)
    with started(tmp_path, str(sluice.client.base_url), "--tasks", "5000", "--rate", "20") as process:
        eventually(lambda: counted(sluice) > before + 10, 20)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Posting was stopped after" in output
    assert "submit latency" in output
    assert "Traceback" not in output
    assert 1 <= summary(tmp_path)["accepted"] < 5000
    assert (tmp_path / "load.svg").exists()


def test_tasks_that_do_not_end_in_time_or_whose_server_is_killed_are_exit_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        OfflineModel(seconds_per_answer=100) as model,
        Embedded(tmp_path, OPENAI_BASE_URL=model.base_url, OPENAI_API_KEY="none") as sluice,
    ):
        url = str(sluice.client.base_url)
        arguments = ["--kind", "code", "--rate", "0", "--users", "2"]
        assert main(["--url", url, "--out", str(tmp_path), "--timeout", "5", "--tasks", "12", *arguments]) == 1
        assert summary(tmp_path)["not_finished"] == {"running": 10, "pending": 2}
        assert "12 accepted tasks were not finished within 5 s" in capsys.readouterr().out
        with started(tmp_path, url, "--timeout", "10", "--tasks", "5", *arguments) as process:
            await_answers(sluice, 17)
            sluice.kill()
            output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "5 accepted tasks were not finished within 10 s after the last post: 5 unknown" in output
    assert "The server does not answer (connection refused)" in output


def test_tasks_that_a_server_has_forgotten_are_exit_status_1(tmp_path: Path) -> None:
    with (
        OfflineModel(seconds_per_answer=100) as model,
        Embedded(tmp_path, OPENAI_BASE_URL=model.base_url, OPENAI_API_KEY="none") as sluice,
    ):
        url = str(sluice.client.base_url)
        arguments = ["--tasks", "5", "--rate", "0", "--kind", "code", "--users", "2", "--timeout", "15"]
        with started(tmp_path, url, *arguments) as process:
            await_answers(sluice, 5)
            sluice.kill()
            sluice.start()  # with an empty memory
            output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "5 gone" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kind", "massage"], "there is no kind 'massage' here; there are: code, message"),
        (["--broker", "http://guest:guest@127.0.0.1:1"], "the broker's management API: connection refused"),
    ],
)
def test_wrong_usage_is_exit_status_2(
    sluice: Embedded, tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", str(sluice.client.base_url), "--out", str(tmp_path), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_server_that_is_not_there_is_exit_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", f"http://127.0.0.1:{free_port()}", "--out", str(tmp_path)]) == 2
    assert "can't be reached: connection refused" in capsys.readouterr().err


def test_tasks_that_are_all_refused_are_exit_status_2(sluice: Embedded, tmp_path: Path) -> None:
    arguments = ["--url", str(sluice.client.base_url), "--out", str(tmp_path), "--tasks", "3", "--input", "text= "]
    assert main(arguments) == 2
    assert summary(tmp_path)["not_accepted"] == {"400 Bad Request (text)": 3}


#: How long the engine of the next test stays without work.
COOLDOWN_SECONDS = 3.0


class Scaler:
    """One engine while there is work, and for a while after that."""

    def __init__(self, sluice: Embedded) -> None:
        self._sluice = sluice
        self._until = 0.0

    def replicas(self) -> int:
        if counted(self._sluice, "sluice_tasks_running") > 0:
            self._until = time.monotonic() + COOLDOWN_SECONDS
        return int(time.monotonic() < self._until)


def test_the_queue_and_the_replicas_are_recorded_until_they_are_zero_again(tmp_path: Path) -> None:
    require(rabbitmq_missing())
    with RabbitNode(tmp_path / "rabbit", management=True) as rabbit, OfflineModel(seconds_per_answer=1.5) as model:
        settings = {"RABBITMQ_URL": rabbit.url, "OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "none"}
        with Embedded(tmp_path, **settings) as sluice:
            url = f"{rabbit.management_url}/api/queues/%2F/tasks"
            eventually(lambda: "messages_ready" in httpx2.get(url).json(), 20, "the queue's first figures")
            scaler = Scaler(sluice)
            with ApiServer(wanted=scaler.replicas, ready=scaler.replicas) as api:
                api.write_kubeconfig(tmp_path / "kubeconfig")
                arguments = ["--url", str(sluice.client.base_url), "--out", str(tmp_path), "--kind", "code"]
                observed = ["--broker", str(rabbit.management_url), "--kubeconfig", str(tmp_path / "kubeconfig")]
                assert main([*arguments, *observed, "--tasks", "30", "--rate", "0", "--back-to-zero", "30"]) == 0
    figures = summary(tmp_path)
    assert figures["completed"] == 30
    assert figures["peak_queue_ready"] > 0
    assert figures["peak_queue_unacked"] == 10
    assert (figures["peak_replicas_wanted"], figures["peak_replicas_ready"]) == (1, 1)
    assert figures["seconds_back_to_zero"] is not None
    assert figures["missing_observations"] < 5  # a busy machine answers one or the other too late
