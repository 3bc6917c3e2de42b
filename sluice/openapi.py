"""What callers may send and what they get, as an OpenAPI 3.1 document: `GET /tasks/get/openapi.json`.

The schemas are pydantic's: of the models that check requests, and, for answers, of models that are only here. The tests
hold the document against the functions: the same paths, and no answer that it does not foresee.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from sluice import __version__
from sluice.http import MAX_BODY_BYTES, MAX_ERRORS
from sluice.kinds import DEFAULT_KIND, MAX_INPUT_BYTES, MAX_LINE, Kind, kinds
from sluice.requests import ListQuery, OverviewQuery, Owned
from sluice.service import MAX_COUNT
from sluice.task import STATUSES, Document, Status

DESCRIPTION = f"""\
Post a task, a queue holds it, an engine does it; here is what can be asked of it.

Every error is a `Problem` (RFC 9457), also those that no operation lists: for a path that there is not, and for a fault
in the service. What is read with GET can be asked for with HEAD, too.

The texts of a task may hold {MAX_INPUT_BYTES // 1024} KiB together, in UTF-8, and a body {MAX_BODY_BYTES // 1024} KiB.
Halves of surrogate pairs (`"\\ud800"` in JSON) are no text."""

#: When a call is answered with an error.
PROBLEMS = {
    400: "Something can't be read or is not allowed; `errors` names every bad field.",
    404: "There is no task with this id.",
    405: "This path does not take this method.",
    409: "The task's status does not allow this.",
    413: "The body, or the text in it, is too large.",
    415: "The body is neither JSON nor a form.",
    422: "The Idempotency-Key was used before, with another body.",
    503: "A service that is needed is away. Try again.",
}

ID = "^[0-9a-f]{32}$"
COUNT: Document = {
    "type": "integer",
    "minimum": 0,
    "maximum": MAX_COUNT,
    "description": f"{MAX_COUNT} means so many, or more.",
}
Time = Annotated[datetime, Field(json_schema_extra={"pattern": r"^[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z$"})]


class Answer(BaseModel):
    """What a caller gets: these fields and no others."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class Step(Answer):
    """A milestone of an attempt."""

    name: str
    attempt: int = Field(ge=1)
    status: Literal["running", "completed", "failed"]
    started_at: Time
    ms: int | None = Field(ge=0, description="How long it took.")
    message: str | None = Field(description="Why it failed.")


class Failure(Answer):
    """Why a task failed, or why it is tried again."""

    code: str = Field(description="For programs.")
    message: str = Field(description="For people.")


class SummaryFields(Answer):
    """What a list shows of every task, beside its kind."""

    id: str = Field(alias="_id", pattern=ID)
    user_id: str = Field(description="Whose it is.")
    status: Status
    created_at: Time = Field(description="When it was accepted.")
    queued_at: Time | None = Field(description="When its message was sent; null while the queue is away.")
    started_at: Time | None = Field(description="When its latest attempt began.")
    completed_at: Time | None = Field(description="When it came to its end.")
    deadline: Time = Field(description="Until when it may be started, or started again.")
    retry_at: Time | None = Field(description="When it is tried again, while it pauses after a transient error.")
    progress: int = Field(ge=0, le=100)
    attempts: int = Field(ge=0, description="How often it was started.")
    error: Failure | None


class TaskFields(SummaryFields):
    """What every task has, beside its kind and that kind's inputs and outputs."""

    steps: list[Step]


class TaskSummary(SummaryFields):
    """A task without its steps, inputs and outputs."""

    kind: str
    title: str = Field(max_length=MAX_LINE, description="The first line of its first text; empty if it has none.")


class BadField(Answer):
    """One bad field of a request."""

    field: str
    message: str


class Problem(Answer):
    """What went wrong: RFC 9457."""

    type: Literal["about:blank"]
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    errors: list[BadField] = Field(default_factory=list, min_length=1, max_length=MAX_ERRORS)


class KindSchema(Answer):
    """A kind of task. Its inputs and outputs are JSON Schema."""

    kind: str
    title: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


class Generator(GenerateJsonSchema):
    """pydantic's, with no other titles than those that somebody wrote."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


@cache
def document() -> Document:
    """The document; made when it is first asked for."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "parameters": {name: {"name": name, **parameter} for name, parameter in PARAMETERS.items()},
            "headers": {name: {"required": True, "schema": schema} for name, schema in HEADERS.items()},
            "responses": {f"Problem{status}": _problem(status) for status in PROBLEMS},
        },
    }


# --- paths -----------------------------------------------------------------------------------------------------------


def _paths() -> Document:
    task, overview = _ref("schemas", "Task"), _ref("schemas", "Overview")
    page = {"anyOf": [_ref("schemas", "TaskPage"), _ref("schemas", "TaskSummaryPage")]}
    listed = _object(kinds={"type": "array", "items": _ref("schemas", "KindSchema")})
    openapi = {"type": "object", "required": ["openapi", "info", "paths"]}
    waiting = {"202": _json("The task, waiting to be done.", task, ["Location"], links=["getTask", "cancelTask"])}
    cancelled = {"200": _json("The task, cancelled.", task, links=["getTask", "retryTask"])}
    new = {"schema": _ref("schemas", "NewTask"), "examples": _examples()}
    body = {"required": True, "content": {"application/json": new, "application/x-www-form-urlencoded": new}}
    task_id, key, traceparent = _parameters("task_id", "Idempotency-Key", "traceparent")
    return {
        "/tasks/add": {
            "post": {
                **_call("addTask", "Add a task", [key, traceparent], waiting, [400, 413, 415, 422, 503]),
                "requestBody": body,
            }
        },
        "/tasks/get": {"get": _read("listTasks", "A user's tasks, newest first", _query(ListQuery), page, [400, 503])},
        "/tasks/get/overview": {
            "get": _read("getOverview", "How a user's tasks stand", _query(OverviewQuery), overview, [400, 503])
        },
        "/tasks/get/{task_id}": {"get": _read("getTask", "One task", [task_id], task, [404, 503])},
        "/tasks/get/kinds": {"get": _read("listKinds", "The kinds of task", [], listed)},
        "/tasks/get/openapi.json": {"get": _read("getDocument", "This document", [], openapi)},
        "/tasks/cancel/{task_id}": {
            "post": _call("cancelTask", "Cancel a task that is not finished", [task_id], cancelled, [404, 409, 503])
        },
        "/tasks/retry/{task_id}": {
            "post": _call("retryTask", "Start a finished task again", [task_id, traceparent], waiting, [404, 409, 503])
        },
    }


def _call(
    name: str, summary: str, parameters: list[Document], answers: Document, problems: Iterable[int] = ()
) -> Document:
    refused = {str(status): _ref("responses", f"Problem{status}") for status in sorted({*problems, 405})}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [*parameters, *_parameters("X-Request-Id")],
        "responses": answers | refused,
    }


def _read(
    name: str, summary: str, parameters: list[Document], schema: Document, problems: Iterable[int] = ()
) -> Document:
    """A call that only reads: it need not answer what the caller has already."""
    answers = {
        "200": _json("As it is now.", schema, ["ETag"]),
        "304": {"description": "The caller has it as it is now.", "headers": _header_refs("ETag")},
    }
    return _call(name, summary, [*parameters, *_parameters("If-None-Match")], answers, problems)


def _query(model: type[BaseModel]) -> list[Document]:
    """The fields of a query as parameters: what may be None there may be left out here."""
    schema = model.model_json_schema(schema_generator=Generator)
    found = []
    for name, field in schema["properties"].items():
        given, *_null = field.get("anyOf", [field])
        found.append({"name": name, "in": "query", "required": name in schema["required"], "schema": given})
    return found


def _json(description: str, schema: Document, headers: Iterable[str] = (), links: Iterable[str] = ()) -> Document:
    """An answer. `links` names what can be done next with the task in it."""
    following = {name: {"operationId": name, "parameters": {"task_id": "$response.body#/_id"}} for name in links}
    return {
        "description": description,
        "headers": _header_refs(*headers),
        "content": {"application/json": {"schema": schema}},
        **({"links": following} if following else {}),
    }


def _problem(status: int) -> Document:
    headers = {405: ["Allow"], 503: ["Retry-After"]}.get(status, [])
    return {
        "description": PROBLEMS[status],
        "headers": _header_refs(*headers),
        "content": {"application/problem+json": {"schema": _ref("schemas", "Problem")}},
    }


# --- parameters and headers ------------------------------------------------------------------------------------------

PARAMETERS: dict[str, Document] = {
    "task_id": {"in": "path", "required": True, "schema": {"type": "string", "pattern": ID}},
    "Idempotency-Key": {
        "in": "header",
        "description": "Makes the call safe to repeat. 1 to 255 printable ASCII characters, in quotes or without.",
        "schema": {
            "type": "string",
            "pattern": r'^("[ -~]{1,255}"|[!#-~]([ -~]{0,253}[!-~])?|"([ -~]{0,253}[!#-~])?)$',
            "examples": ["order-66"],
        },
    },
    "If-None-Match": {
        "in": "header",
        "description": "The ETag of what the caller has.",
        "schema": {"type": "string"},
    },
    "X-Request-Id": {
        "in": "header",
        "description": "Comes back in the answer and stands in the logs, if it has 1 to 128 visible ASCII characters.",
        "schema": {"type": "string"},
    },
    "traceparent": {
        "in": "header",
        "description": "Travels with the task's message, if it is one (W3C Trace Context).",
        "schema": {"type": "string"},
    },
}

HEADERS: dict[str, Document] = {
    "X-Request-Id": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    "ETag": {"type": "string", "pattern": '^"[0-9a-f]+"$'},
    "Location": {"type": "string", "pattern": "^/tasks/get/[0-9a-f]{32}$"},
    "Allow": {"type": "string", "pattern": "^[A-Z]+(, [A-Z]+)*$"},
    "Retry-After": {"type": "integer", "minimum": 1},
}


def _parameters(*names: str) -> list[Document]:
    return [_ref("parameters", name) for name in names]


def _header_refs(*names: str) -> Document:
    return {name: _ref("headers", name) for name in ("X-Request-Id", *names)}


# --- schemas ---------------------------------------------------------------------------------------------------------


def _schemas() -> Document:
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "validation"), (KindSchema, "validation")]
    models += [(TaskSummary, "serialization")]
    for kind in kinds().values():
        models += [(_new_task(kind), "validation"), (_task(kind), "serialization")]
    _, generated = models_json_schema(models, ref_template="#/components/schemas/{model}", schema_generator=Generator)
    tasks = {kind.name: _ref("schemas", _task(kind).__name__) for kind in kinds().values()}
    return {
        "NewTask": {"oneOf": [_ref("schemas", _new_task(kind).__name__) for kind in kinds().values()]},
        "Task": {
            "oneOf": [*tasks.values()],
            "discriminator": {"propertyName": "kind", "mapping": {name: ref["$ref"] for name, ref in tasks.items()}},
        },
        "TaskPage": _page("Task"),
        "TaskSummaryPage": _page("TaskSummary"),
        "Overview": _object(
            tasks=_object(**dict.fromkeys(STATUSES, COUNT)),
            engines={"type": "integer", "minimum": 0, "description": "How many are at work now, for whomever."},
            stand_ins={
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Services that are not the real ones, and what is there instead.",
            },
        ),
        **generated["$defs"],
    }


def _page(name: str) -> Document:
    return _object(
        tasks={"type": "array", "items": _ref("schemas", name)},
        next={"type": ["string", "null"], "description": "The `cursor` of the next page."},
    )


@cache
def _new_task(kind: Kind) -> type[BaseModel]:
    """What is asked for with a new task of a kind. The default kind need not be named."""
    default = DEFAULT_KIND if kind.name == DEFAULT_KIND else ...
    named: Any = Field(default, json_schema_extra={"const": kind.name})
    return _model(f"New{_task(kind).__name__}", (Owned, kind.inputs), named)


@cache
def _task(kind: Kind) -> type[BaseModel]:
    """A task of a kind as it is answered."""
    name = f"{kind.name.title().replace('_', '')}Task"
    named: Any = Field(json_schema_extra={"const": kind.name})
    return _model(name, (kind.outputs, kind.inputs, TaskFields), named)


def _model(name: str, bases: tuple[type[BaseModel], ...], kind: Any) -> type[BaseModel]:
    """Without the examples that inputs have as a whole: they are none of what has more fields."""
    return create_model(name, __base__=bases, __cls_kwargs__={"json_schema_extra": None}, kind=(str, kind))


def _examples() -> Document:
    """A task of each kind, of the examples that its inputs have."""
    return {
        kind.name: {
            "value": {"user_id": "ada", "kind": kind.name}
            | {name: field.examples[0] for name, field in kind.inputs.model_fields.items() if field.examples}
        }
        for kind in kinds().values()
    }


def _object(**properties: Document) -> Document:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _ref(section: str, name: str) -> Document:
    return {"$ref": f"#/components/{section}/{name}"}
