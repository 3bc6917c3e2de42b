"""The OpenAPI document: it is one, it names the calls that there are, and what it allows is allowed."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from sluice.errors import InvalidRequest
from sluice.http import idempotency_key
from sluice.kinds import kinds
from sluice.openapi import document
from sluice.requests import read_new_task
from sluice.task import Document
from tests.examples import examples
from tests.functions.conftest import FUNCTIONS, Sluice
from tests.functions.test_every_function import NAMES

#: Any text: of blanks and control characters often, of lengths around the limits often.
ODD = st.sampled_from(' \t\n\r\x0b\x0c\x1c\x1f\x00\x08\x7f\x85\x9f\xa0\ufeff\u2003\u2028\u200b\u3000a"é🦦')
TEXTS = st.one_of(
    st.text(),
    st.text(ODD, max_size=6),
    st.tuples(st.text(ODD, max_size=2), st.integers(120, 210), st.text(ODD, max_size=2)).map(
        lambda parts: parts[0] + "x" * parts[1] + parts[2]
    ),
)


@cache
def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}
    )


def nodes(value: Any) -> Iterator[Document]:
    """All objects in a document."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from nodes(item)


# --- the document ----------------------------------------------------------------------------------------------------


def test_it_is_openapi_3_1() -> None:
    assert document()["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document()).validate()
    with pytest.raises(jsonschema_rs.ValidationError):
        schemathesis.openapi.from_dict({**document(), "paths": {"/": {"get": {"responses": []}}}}).validate()


def test_everything_that_it_refers_to_is_there_and_everything_there_is_referred_to() -> None:
    components = document()["components"]
    there = {f"#/components/{section}/{name}" for section, items in components.items() for name in items}
    assert {node["$ref"] for node in nodes(document()) if "$ref" in node} == there
    calls = {node["operationId"] for node in document()["paths"].values() for node in node.values()}
    assert {node["operationId"] for node in nodes(document()) if "operationId" in node} == calls


def test_its_paths_are_the_routes_of_the_functions(sluice: Sluice) -> None:
    routes = [
        re.sub(r"<(\w+)>", r"{\1}", route)
        for name in NAMES
        for route in importlib.import_module(f"functions.{name}.main").endpoint.routes
    ]
    paths = document()["paths"]
    assert sorted(routes) == sorted(f"{method.upper()} {path}" for path in paths for method in paths[path])


def test_it_is_not_made_before_somebody_asks_for_it(sluice: Sluice) -> None:
    started = "import sys, functions.get_tasks.main; print('sluice.openapi' in sys.modules)"
    environment = {"MONGODB_URI": "mongodb://localhost", "PYTHONPATH": str(FUNCTIONS.parent)}
    output = subprocess.run(
        [sys.executable, "-c", started], env=environment, capture_output=True, text=True, check=True
    )
    assert output.stdout == "False\n"


# --- what it says is so ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize("kind", kinds())
def test_its_examples_are_accepted(sluice: Sluice, kind: str, form: bool) -> None:
    content = document()["paths"]["/tasks/add"]["post"]["requestBody"]["content"]
    body = content["application/x-www-form-urlencoded" if form else "application/json"]["examples"][kind]["value"]
    response = sluice.adding.post("/tasks/add", **{"data" if form else "json": body})
    assert response.status_code == HTTPStatus.ACCEPTED
    assert body.items() <= response.get_json().items()


def test_each_view_of_a_list_is_a_page_of_its_own_sort(sluice: Sluice) -> None:
    for kind in kinds():
        sluice.given(kind=kind, objective="Add.", text="Hello.")
    full, summary = (sluice.list(view=view, kind="code").get_json() for view in ("full", "summary"))
    del full["tasks"][0]["text"]
    assert [validator(name).is_valid(full) for name in ("TaskPage", "TaskSummaryPage")] == [True, False]
    assert [validator(name).is_valid(summary) for name in ("TaskPage", "TaskSummaryPage")] == [False, True]


@given(text=TEXTS, user_id=TEXTS, language=TEXTS)
@examples(300)
def test_it_allows_the_texts_that_are_accepted_and_no_others(text: str, user_id: str, language: str) -> None:
    for fields in (
        {"user_id": user_id, "kind": "message", "text": "x"},
        {"user_id": "ada", "kind": "message", "text": text},
        {"user_id": "ada", "objective": text},
        {"user_id": "ada", "objective": "x", "language": language},
    ):
        assert is_accepted(fields) == validator("NewTask").is_valid(fields), fields


def is_accepted(fields: Document) -> bool:
    try:
        read_new_task(fields)
    except InvalidRequest:
        return False
    return True


@given(
    key=st.text(st.characters(max_codepoint=255))
    | st.text('" a', max_size=4)
    | st.text("x", min_size=253, max_size=259)
)
@example(key=f'"{"x" * 255}"')
@example(key=f'"{"x" * 256}"')
@examples(100)
def test_it_allows_the_idempotency_keys_that_are_accepted_and_no_others(key: str) -> None:
    schema = document()["components"]["parameters"]["Idempotency-Key"]["schema"]
    assert is_key(key) == jsonschema_rs.is_valid(schema, key.strip()), key


def is_key(text: str) -> bool:
    request = EnvironBuilder().get_request()
    request.environ["HTTP_IDEMPOTENCY_KEY"] = text
    try:
        return idempotency_key(request) is not None  # type: ignore[arg-type]
    except InvalidRequest:
        return False
