"""The kinds of the library and the handlers of the engine belong together, and cost nothing before they are needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from functions.engine.kinds import find_handler, handler_names
from sluice.kinds import kinds

HEAVY = {"openai", "httpx2", "httpcore2", "flask", "werkzeug", "functions_framework", "markdown_it", "mongomock"}
#: What the engine needs too, but not for its first message.
LATER = {"prometheus_client", "http.server", "http.client", "socketserver", "wsgiref", "functions.engine.model"}


def imported_by(statement: str, root: Path) -> set[str]:
    """The modules that a fresh Python has after this statement."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_every_kind_has_a_handler_and_every_handler_a_kind() -> None:
    assert set(handler_names()) == set(kinds())


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_the_handler_of_a_kind_is_a_function_of_a_task_and_a_step(kind: str) -> None:
    handler = find_handler(kind)
    assert list(handler.__annotations__) == ["task", "step", "return"]
    assert find_handler(kind) is handler


@pytest.mark.parametrize("kind", ["", "video", "../code", "code.py", "__init__", "os", "code.run"])
def test_a_kind_without_a_handler_is_a_lookup_error(kind: str) -> None:
    with pytest.raises(LookupError):
        find_handler(kind)


def test_the_engine_imports_nothing_that_its_first_message_does_not_need(root: Path) -> None:
    statement = "import functions.engine.main, functions.engine.engine, functions.engine.health, sluice.store"
    assert imported_by(statement, root) & (HEAVY | LATER) == set()


def test_the_engine_has_its_queue_before_it_imports_its_database(root: Path) -> None:
    """RabbitMQ answers while Python imports."""
    imported = imported_by("import functions.engine.main", root)
    assert "pika" in imported
    assert {"pymongo", "functions.engine.engine"} & imported == set()


def test_a_task_of_kind_message_needs_neither_the_model_nor_its_parser(root: Path) -> None:
    statement = "from functions.engine.kinds import find_handler; find_handler('message')"
    assert imported_by(statement, root) & HEAVY == set()


def test_pydantic_does_not_look_for_plugins(root: Path) -> None:
    """It would read the metadata of everything that is installed."""
    program = "import pydantic.plugin._loader as loader, sluice.settings; print(list(loader.get_plugins()))"
    found = "import importlib.metadata; importlib.metadata.distributions = lambda: print('looked') or [];" + program
    run = subprocess.run([sys.executable, "-c", found], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_the_child_process_of_an_isolated_task_starts_as_light(root: Path) -> None:
    assert imported_by("import functions.engine.isolation", root) & HEAVY == set()
