"""How the house is built, held by tests: which way the arrows point, and which library lives in which room."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from functions.engine.kinds import handler_names
from sluice.kinds import kinds
from sluice.task import MOVES, STATUSES

ROOT = Path(__file__).resolve().parent.parent
OURS = ("sluice", "functions", "embedded", "offline_model")
SOURCES = sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))

DOORS = ("add_task", "get_tasks", "cancel_task", "retry_task")

#: The rooms (a file, or a folder) that may know a foreign library.
ROOMS = {
    "pymongo": {"sluice/store.py"},
    "bson": {"sluice/store.py"},
    "pika": {"sluice/rabbit/"},
    "openai": {"functions/engine/model.py"},
    "httpx2": {"functions/engine/model.py"},
    "httpcore2": {"functions/engine/model.py"},
    "markdown_it": {"functions/engine/fences.py"},
    "mongomock": {"embedded/stand_ins.py"},
    "waitress": {"embedded/__main__.py"},
    "flask": {"sluice/flask_door.py", "embedded/app.py", *(f"functions/{name}/main.py" for name in DOORS)},
    "starlette": {"sluice/async_worker.py"},
    "uvicorn": {"sluice/async_worker.py"},
    "uvicorn_worker": {"sluice/async_worker.py"},
    "uvloop": set(),  # only named, as what uvicorn is to work with; httptools too
    "httptools": set(),
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arrows_point_inward_and_each_library_has_its_room(path: Path) -> None:
    here = name_of(path)
    for module in imports(path):
        top = module.split(".")[0]
        assert here.startswith(tuple(ROOMS.get(top, {here}))), f"{top} is not for {here}"
        if here.startswith("sluice/"):
            assert top not in {"functions", "embedded", "offline_model", "tests"}, "the library imports only itself"
        if here.startswith("offline_model/"):
            assert top not in {"sluice", "functions", "embedded", "tests"}
        if here.startswith("functions/"):
            assert top not in {"embedded", "offline_model", "tests"}
            function = here.split("/")[1]
            assert not module.startswith("functions.") or module.startswith(f"functions.{function}"), (
                "functions never import each other"
            )
        assert top != "tests"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_settings_read_the_environment(path: Path) -> None:
    allowed = {"sluice/settings.py", "functions/gunicorn.conf.py"}
    assert name_of(path) in allowed or not re.search(r"os\.(environ|getenv)", path.read_text())


def test_the_task_and_its_errors_know_nothing_but_python() -> None:
    for name in ("task", "errors"):
        for module in imports(ROOT / "sluice" / f"{name}.py"):
            top = module.split(".")[0]
            assert top in sys.stdlib_module_names or module == "sluice.errors"


@pytest.mark.parametrize("name", DOORS)
def test_a_door_is_thin(name: str) -> None:
    source = (ROOT / "functions" / name / "main.py").read_text()
    assert len(source.splitlines()) <= 60
    assert (ROOT / "functions" / name / "requirements.txt").exists()


def test_each_function_lists_what_it_imports() -> None:
    """The requirements of a function hold every library that its code, and the library's rooms that it uses, import."""
    listed = {
        folder.name: set(re.findall(r"^([a-z0-9-]+)==", (folder / "requirements.txt").read_text(), re.M))
        for folder in (ROOT / "functions").iterdir()
        if (folder / "requirements.txt").exists()
    }
    http = {"functions-framework", "flask", "gunicorn", "pika", "pymongo", "pydantic", "prometheus-client"}
    http |= {"starlette", "uvicorn", "uvicorn-worker", "uvloop", "httptools"}
    assert listed.pop("engine") == {"pika", "pymongo", "pydantic", "prometheus-client", "openai", "markdown-it-py"}
    assert listed == dict.fromkeys(DOORS, http)


def test_every_pin_is_the_one_of_the_constraints() -> None:
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    pins = {_normal(name): version for name, version in pins.items()}
    for path in [
        *ROOT.glob("functions/*/requirements.txt"),
        ROOT / "embedded/requirements.txt",
        ROOT / "tests/requirements.txt",
        ROOT / "bench/requirements.txt",
    ]:
        for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", path.read_text(), re.M):
            assert pins[_normal(name)] == version, f"{path}: {name}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_kind_has_a_handler_and_every_handler_a_kind() -> None:
    assert sorted(kinds()) == sorted(handler_names())


def test_a_terminal_status_is_left_only_by_a_retry() -> None:
    for status in STATUSES:
        if status in {"completed", "failed", "cancelled"}:
            assert MOVES[status] == {"pending"}
