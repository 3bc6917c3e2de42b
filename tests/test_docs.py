"""What the documents say is held against what the code does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sluice import metrics
from sluice.settings import Settings
from sluice.task import PUBLIC_FIELDS, STATUSES, Task
from tests.e2e.embedded import ROOT, Embedded
from tests.waiting import eventually

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def _written(default: object) -> str:
    """A setting as one writes it in the environment."""
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$", (ROOT / "README.md").read_text(), re.M)
    expected = [
        (name.upper(), "" if field.default is None else f"`{_written(field.default)}`", field.description)
        for name, field in Settings.model_fields.items()
    ]
    assert rows == expected


def test_the_metrics_page_lists_every_metric_with_its_labels() -> None:
    rows = dict(re.findall(r"^\| `(sluice_\w+)` \|(.*?)\|", (ROOT / "docs/metrics.md").read_text(), re.M))
    expected = {family.name: ", ".join(f"`{label}`" for label in family.label_names) for family in metrics.FAMILIES}
    assert {name: labels.strip() for name, labels in rows.items()} == expected


def test_the_tasks_page_lists_every_field_every_status_and_every_error_code() -> None:
    page = (ROOT / "docs/tasks.md").read_text()
    named = set(re.findall(r"`(\w+)`", page))
    assert named >= PUBLIC_FIELDS
    assert named >= set(STATUSES)
    sources = "".join(path.read_text() for folder in ("sluice", "functions") for path in (ROOT / folder).rglob("*.py"))
    codes = set(re.findall(r"""(?:Failed|Retry)\(\s*"(\w+)"|"code": "(\w+)\"""", sources))
    codes = {code for pair in codes for code in pair if code} - {"completed"}
    assert len(codes) > 15
    assert named >= codes


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (document.parent / target).exists(), target
    for path in re.findall(r"`((?:functions|sluice|tests|docs|embedded|web|k8s|keda)/[\w./-]+)`", text):
        if "wordcount" not in path:
            assert (ROOT / path).exists(), path


@pytest.mark.timeout(240)
def test_the_readmes_commands_do_what_it_says(tmp_path: Path) -> None:
    """`make run`, as it is typed, then every curl of the README in a shell."""
    readme = (ROOT / "README.md").read_text()
    commands = [block for block in fences(readme, "sh") if "curl" in block]
    assert len(commands) == 3
    with Embedded(tmp_path, command=["make", "run"]) as sluice:
        posted = sluice.shell(commands[0])
        (shown,) = fences(readme, "json")
        assert list(posted) == list(json.loads(shown)), "the answer has the fields that the README shows"
        task = eventually(lambda: _completed(sluice.shell(commands[1])), 5)
        namespace: dict[str, object] = {}
        exec(task["code"], namespace)
        (add,) = [value for name, value in namespace.items() if name.startswith("sum")]
        assert add(1, 2, 3) == 6  # type: ignore[operator]
        first, second = (sluice.shell(line) for line in commands[2].strip().splitlines())
        assert first["_id"] == second["_id"]
        assert Task(first).kind == "message"


def _completed(listed: dict[str, list[dict[str, str]]]) -> dict[str, str] | None:
    return listed["tasks"][0] if listed["tasks"][0]["status"] == "completed" else None


@pytest.mark.timeout(120)
def test_the_example_of_a_new_kind_works_as_it_stands(tmp_path: Path) -> None:
    text = (ROOT / "docs/adding-a-kind.md").read_text()
    tree = tmp_path / "tree"
    for folder in ("sluice", "functions", "embedded", "offline_model", "web"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    files = re.findall(r"^`((?:sluice|functions)/\S+)`\n\n```python\n(.*?)^```", text, re.M | re.S)
    assert len(files) == 2, "a kind costs two files"
    for path, content in files:
        assert not (tree / path).exists()
        (tree / path).write_text(content)
    _, post, read = fences(text, "sh")[0].strip().splitlines()
    with Embedded(tmp_path, tree=tree) as sluice:
        sluice.shell(post)
        task = eventually(lambda: _completed(sluice.shell(read)), 10)
        (shown,) = fences(text, "json")
        assert {"counts": task["counts"]} == json.loads(shown)
        refused = sluice.client.post("/tasks/add", data={"user_id": "ada", "kind": "wordcount", "least": "0"})
        assert {error["field"] for error in refused.json()["errors"]} == {"text", "least"}
        kinds = sluice.client.get("/tasks/get/kinds").json()["kinds"]
        assert [kind["kind"] for kind in kinds] == ["code", "message", "wordcount"]
