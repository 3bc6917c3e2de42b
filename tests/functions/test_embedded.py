"""All of Sluice behind one port: which path leads where."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

import jsonschema_rs
import pytest
from werkzeug.test import Client

from embedded.app import ROOT, make_app
from embedded.stand_ins import choose_services
from functions.engine.engine import Engine
from offline_model import OfflineModel
from sluice.services import install
from sluice.settings import Settings
from tests.functions.conftest import bad_fields, problem_of
from tests.waiting import eventually


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of everything, with stand-ins for all services."""
    models: list[OfflineModel] = []
    start = OfflineModel.start

    def note_and_start(model: OfflineModel) -> OfflineModel:
        models.append(model)
        start(model)
        model.script([{"match": "Refuse", "fault": "refuse"}, {"match": "Wait", "fault": "status", "status": 429}])
        return model

    monkeypatch.setattr(OfflineModel, "start", note_and_start)
    monkeypatch.setattr("sluice.services._installed", {})
    services = choose_services(Settings.load(environment={}))
    install(services)
    engine = Engine(services)
    app = make_app(engine, services)
    engine.start()
    yield Client(app)
    assert engine.drain(grace=5)
    services.broker.close()
    for model in models:
        model.stop()


def test_each_path_leads_to_its_function(client: Client) -> None:
    assert bad_fields(client.post("/tasks/add", json={})) == ["objective", "user_id"]
    assert client.get("/tasks/get?user_id=nobody").get_json() == {"tasks": [], "next": None}
    assert client.get("/tasks/get/kinds").get_json()["kinds"]
    for path in (f"/tasks/get/{'0' * 32}", f"/tasks/cancel/{'0' * 32}", f"/tasks/retry/{'0' * 32}"):
        response = client.open(path, method="GET" if "get" in path else "POST")
        assert "task" in problem_of(response, HTTPStatus.NOT_FOUND)["detail"]


def test_a_task_that_is_added_can_be_read(client: Client) -> None:
    accepted = client.post("/tasks/add", json={"user_id": "ada", "kind": "message", "text": "Hello."})
    assert accepted.status_code == HTTPStatus.ACCEPTED
    read = client.get(accepted.headers["Location"])
    assert read.status_code == HTTPStatus.OK
    assert read.get_json()["text"] == "Hello."


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({"objective": "Create a function that sums up three numbers."}, {"status": "completed", "error": None}),
        ({"objective": "Refuse this."}, {"status": "failed", "retry_at": None}),
        ({"objective": "Wait for me."}, {"status": "pending", "attempts": 1}),
        ({"kind": "message", "text": "Hello."}, {"status": "completed", "message": "Hello."}),
    ],
    ids=["done", "failed", "tried again", "message"],
)
def test_a_task_is_at_all_times_what_the_document_says(
    client: Client, fields: dict[str, str], seen: dict[str, object]
) -> None:
    components = client.get("/tasks/get/openapi.json").get_json()["components"]
    task = jsonschema_rs.Draft202012Validator({"$ref": "#/components/schemas/Task", "components": components})
    accepted = client.post("/tasks/add", json={"user_id": "ada", **fields})

    def is_seen() -> bool:
        shown = client.get(accepted.headers["Location"]).get_json()
        task.validate(shown)
        return bool(shown["steps"]) and seen.items() <= shown.items()

    eventually(is_seen)


@pytest.mark.parametrize("path", ["/", "/index.html"])
def test_the_page_is_the_file_and_is_never_kept_unasked(client: Client, path: str) -> None:
    with client.get(path, buffered=True) as response:
        assert response.status_code == HTTPStatus.OK
        assert response.mimetype == "text/html"
        assert response.data == (ROOT / "web" / "page" / "index.html").read_bytes()
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_that_has_not_changed_is_not_sent_again(client: Client) -> None:
    with client.get("/", buffered=True) as response:
        etag = response.headers["ETag"]
    with client.get("/", headers={"If-None-Match": etag}, buffered=True) as response:
        assert (response.status_code, response.data) == (HTTPStatus.NOT_MODIFIED, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/../../../../../../etc/passwd",
        "/%2e%2e/pyproject.toml",
        "/..%2fpyproject.toml",
        "/%2e%2e%2fpyproject.toml",
        "/%252e%252e/pyproject.toml",
        "/./../pyproject.toml",
        "/index.html/../../pyproject.toml",
        "/..\\pyproject.toml",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/%00",
        "/index.html%00.txt",
        "/..",
        "/.",
        "/tasks/get/../../pyproject.toml",
        f"/{'a' * 5000}",
    ],
)
def test_no_path_leads_out_of_the_pages_folder(client: Client, path: str) -> None:
    with client.get(path, buffered=True) as response:
        problem_of(response, HTTPStatus.NOT_FOUND)


@pytest.mark.parametrize("path", ["/../pyproject.toml", "/web/../../pyproject.toml", "//etc/passwd", "/\\..\\x"])
def test_a_server_that_does_not_tidy_paths_is_no_way_out_either(client: Client, path: str) -> None:
    with client.get("/", environ_overrides={"PATH_INFO": path}, buffered=True) as response:
        problem_of(response, HTTPStatus.NOT_FOUND)


@pytest.mark.parametrize("path", ["/nowhere", "/tasks", "/tasks/", "/tasks/addition", "/tasks/add/x"])
def test_an_unknown_path_is_a_problem(client: Client, path: str) -> None:
    problem_of(client.get(path), HTTPStatus.NOT_FOUND)


@pytest.mark.parametrize("path", ["/", "/index.html", "/healthz"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_method_that_the_page_does_not_take_is_a_problem(client: Client, path: str, method: str) -> None:
    response = client.open(path, method=method)
    problem_of(response, HTTPStatus.METHOD_NOT_ALLOWED)
    assert "GET" in response.headers["Allow"]


def test_it_is_healthy_and_ready_and_says_what_only_stands_in(client: Client) -> None:
    assert client.get("/healthz").get_json() == {"status": "ok", "complaints": []}
    ready = client.get("/readyz")
    assert ready.status_code == HTTPStatus.OK
    assert ready.get_json()["status"] == "ready"
    assert "offline model" in ready.get_json()["model"]
    assert "in memory" in ready.get_json()["database"]
    assert "in memory" in ready.get_json()["queue"]


def test_its_metrics_can_be_had(client: Client) -> None:
    client.get("/tasks/get/kinds")
    assert 'function="get_tasks"' in client.get("/metrics").text
