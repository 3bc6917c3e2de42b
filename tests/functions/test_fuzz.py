"""Schemathesis: thousands of calls, good and bad ones, made of the OpenAPI document. No fault and no answer that the
document does not foresee; nothing refused that it allows, nothing accepted that it forbids.

The calls are the same each time. `make fuzz` makes other ones, and more.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.engine import Status, events, from_schema
from schemathesis.generation.meta import TestPhase
from werkzeug.test import Client

from embedded.app import make_app
from functions.engine.engine import Engine
from sluice.openapi import document
from sluice.requests import encode_cursor
from sluice.store import Cursor
from sluice.task import STATUSES
from tests.functions.conftest import Sluice

#: Calls of each mode that a run makes at least, so that it can't shrink unseen.
LEAST_CALLS = 1_000

#: For how many minutes other calls of each mode are made, for `make fuzz`; 0: the same calls as ever, once.
MINUTES = int(os.environ.get("FUZZ_MINUTES", "0"))

CONFIG = """
{run}
continue-on-failure = true
cache.enabled = false
output.sanitization.enabled = false

[generation]
mode = "{mode}"
deterministic = {deterministic}
max-examples = 50

[phases.coverage]
generate-duplicate-query-parameters = true

[checks]
positive_data_acceptance.expected-statuses = ["200", "202", "304"]
negative_data_rejection.expected-statuses = ["400", "404", "405", "413", "415"]

[[operations]]
include-operation-id = "listTasks"
generation.max-examples = 300

# No schema counts the bytes of all texts together (413), or knows what a key was used for (422).
[[operations]]
include-operation-id = "addTask"
generation.max-examples = 300
checks.positive_data_acceptance.expected-statuses = ["202", "413", "422"]

# An id of the right form need not be a task's, and a task not in the right status.
[[operations]]
include-operation-id = ["getTask", "cancelTask", "retryTask"]
checks.positive_data_acceptance.expected-statuses = ["200", "202", "304", "404", "409"]
"""


def config(mode: str) -> schemathesis.Config:
    run = f"max-time = {MINUTES * 60}" if MINUTES else "seed = 1"
    return schemathesis.Config.from_str(CONFIG.format(run=run, deterministic=str(not MINUTES).lower(), mode=mode))


@schemathesis.serializer("application/x-www-form-urlencoded")
def write_form(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    """A form as it goes over the wire. Schemathesis itself loses what is nested, when it calls an application."""
    return (urlencode(value, doseq=True) if isinstance(value, Mapping) else json.dumps(value)).encode()


IDS = st.text("0123456789abcdef", min_size=32, max_size=32)
TIMES_OF_TASKS = st.integers(0, 10**10).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))

schemathesis.openapi.format("cursor", st.builds(Cursor, TIMES_OF_TASKS, IDS).map(encode_cursor))


@schemathesis.hook("before_call")
def drop_keys(_context: schemathesis.HookContext, case: schemathesis.Case, _options: Any) -> None:
    """An Idempotency-Key stands for one body: calls that try another field, with all else the same, must do without."""
    phase = case.meta.phase if case.meta else None
    if phase and phase.name in {TestPhase.EXAMPLES, TestPhase.COVERAGE} and phase.data.parameter != "Idempotency-Key":
        case.headers.pop("Idempotency-Key", None)


def calls(sluice: Sluice, mode: str) -> Iterator[events.EngineEvent]:
    app = make_app(Engine(sluice.services), sluice.services)
    schema = schemathesis.openapi.from_dict(Client(app).get("/tasks/get/openapi.json").get_json(), config=config(mode))
    schema.app = app
    yield from from_schema(schema).execute()


@pytest.mark.timeout(0 if MINUTES else 300)  # half a minute of a processor
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_is_one_that_the_document_foresees(sluice: Sluice, mode: str) -> None:
    for status in STATUSES:
        sluice.given(status=status)
    called: Counter[str] = Counter()
    views: set[str] = set()
    passed: set[str] = set()
    found: list[str] = []
    for event in calls(sluice, mode):
        if isinstance(event, events.ScenarioFinished):
            cases = [node.value for node in event.recorder.cases.values()]
            called.update(case.operation.label for case in cases)
            views.update(str(case.query.get("view")) for case in cases if case.query)
            found += failures(event)
        elif isinstance(event, events.PhaseFinished) and event.status == Status.SUCCESS:
            passed.add(event.phase.name.value)
        elif isinstance(event, events.NonFatalError):
            found.append(str(event.info))
    assert not found, "\n\n".join(found)
    assert passed >= {"examples", "coverage", "fuzzing", "stateful"}
    assert len(called) == len(document()["paths"]), "each has one operation"
    assert called.total() >= LEAST_CALLS, called
    assert views >= {"full", "summary"}


def failures(event: events.ScenarioFinished) -> Iterator[str]:
    for checks in event.recorder.checks.values():
        for check in checks:
            if check.failure_info:
                yield f"{check.name}: {check.failure_info.failure.message}\n{check.failure_info.code_sample}"
