"""The types of the model's package are there when somebody asks for them, and only then."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from functions.engine.lazy import import_lazily
from tests.waiting import eventually

LAZY_PACKAGES = "openai.types", "openai.types.responses"


def answer_of(program: str, root: Path) -> object:
    """What a fresh Python prints, as JSON."""
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_a_client_of_the_model_is_made_without_the_types_of_the_rest_of_the_api(root: Path) -> None:
    """As in engine and image: when this fails after an update of openai, see who asks for which name."""
    program = """
import json, sys
from functions.engine.model import Model
Model(api_key="none", base_url="http://127.0.0.1:1/v1", model="m", timeout=1)
print(json.dumps(sorted(sys.modules)))
"""
    imported = answer_of(program, root)
    assert isinstance(imported, list)
    assert "openai.types.chat.chat_completion_chunk" in imported
    assert {"openai.types.responses.response", "openai.types.batch"} & set(imported) == set()


def test_the_types_are_all_there_for_who_asks(root: Path) -> None:
    asked = f"""
import functions.engine.model, importlib, json
def names(package):
    package = importlib.import_module(package)
    package.Response if package.__name__.endswith("responses") else package.Batch
    return sorted(name for name in vars(package) if not name.startswith("__"))
print(json.dumps([names(package) for package in {LAZY_PACKAGES}]))
"""
    whole = asked.replace("functions.engine.model", "openai")
    assert answer_of(asked, root) == answer_of(whole, root)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package with two modules, one of which its `__init__` imports: its name."""
    name = f"lazy_{abs(hash(request.node.name))}"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("STARTED.set()\nGATE.wait(10)\nfrom .one import ONE\n")
    (tmp_path / name / "one.py").write_text("ONE = 1\n")
    (tmp_path / name / "two.py").write_text("TWO = 2\n")
    import_lazily(name)
    return name


def test_its_modules_come_one_by_one_and_its_names_all_at_once(package: str) -> None:
    there = __import__(package)
    there.GATE = there.STARTED = threading.Event()
    there.GATE.set()
    assert there.two.TWO == 2
    assert f"{package}.one" not in sys.modules
    assert not hasattr(there, "__wrapped__")
    assert f"{package}.one" not in sys.modules
    assert there.ONE == 1
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'THREE'"):
        _ = there.THREE


def test_two_threads_that_ask_at_the_same_time_both_get_their_answer(package: str) -> None:
    there = __import__(package)
    there.GATE, there.STARTED = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lambda: there.ONE)
        eventually(there.STARTED.is_set)
        second = threads.submit(lambda: there.ONE)
        assert not second.done()
        there.GATE.set()
        assert (first.result(10), second.result(10)) == (1, 1)


def test_a_package_that_could_not_be_imported_is_tried_again(package: str) -> None:
    there = __import__(package)
    with pytest.raises(NameError, match="STARTED"):
        _ = there.ONE
    there.GATE = there.STARTED = threading.Event()
    there.GATE.set()
    assert there.ONE == 1
