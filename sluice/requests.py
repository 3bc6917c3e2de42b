"""What callers may ask for, checked: a new task, and a list of tasks. Raises InvalidRequest naming every bad field."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sluice.errors import FieldError, InvalidRequest
from sluice.kinds import DEFAULT_KIND, Kind, Line, field_errors, kinds
from sluice.store import Cursor
from sluice.task import Document, Status

DEFAULT_PAGE, MAX_PAGE = 50, 200

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = re.compile(r"(-?\d{1,15}):([0-9a-f]{32})")


class Owned(BaseModel):
    """Whose it is."""

    user_id: Line = Field(max_length=128, examples=["ada"])


@dataclass(frozen=True)
class NewTask:
    """A task that somebody wants: who, which kind, and its inputs, checked and complete."""

    user_id: str
    kind: Kind
    inputs: Document


def read_new_task(fields: Mapping[str, Any]) -> NewTask:
    """Read the fields of `POST /tasks/add`: `user_id`, `kind` (or the default one), and the kind's inputs."""
    problems: list[FieldError] = []
    rest = dict(fields)
    user_id = _read_user_id({name: rest.pop(name) for name in Owned.model_fields if name in rest}, problems)
    name = rest.pop("kind", DEFAULT_KIND)
    kind = kinds().get(name) if isinstance(name, str) else None
    inputs: Document = {}
    if kind is None:
        problems.append(FieldError("kind", f"must be one of: {', '.join(kinds())}"))
    else:
        try:
            inputs = kind.parse(rest).model_dump(mode="json")
        except InvalidRequest as error:
            if not error.errors:
                raise
            problems += error.errors
    if problems or kind is None:
        raise InvalidRequest("The task's fields are not valid.", problems)
    return NewTask(user_id, kind, inputs)


def _read_user_id(given: Document, problems: list[FieldError]) -> str:
    try:
        return Owned.model_validate(given).user_id
    except ValidationError as error:
        problems += field_errors(error)
        return ""


def _check_kind(name: str) -> str:
    if name not in kinds():
        raise ValueError(f"must be one of: {', '.join(kinds())}")
    return name


def _describe_kind(schema: dict[str, Any]) -> None:
    schema["enum"] = list(kinds())


def _check_cursor(text: str) -> str:
    try:
        decode_cursor(text)
    except InvalidRequest as error:
        raise ValueError(error.errors[0].message) from None
    return text


class OverviewQuery(Owned):
    """The query of `GET /tasks/get/overview`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ListQuery(OverviewQuery):
    """The query of `GET /tasks/get`."""

    kind: Annotated[str, AfterValidator(_check_kind), Field(json_schema_extra=_describe_kind)] | None = None
    status: Status | None = None
    limit: int = Field(DEFAULT_PAGE, ge=1, le=MAX_PAGE)
    cursor: Annotated[str, AfterValidator(_check_cursor), Field(json_schema_extra={"format": "cursor"})] | None = None
    view: Literal["full", "summary"] = Field("full", description="Whole tasks, or only what a list shows of them.")

    @property
    def after(self) -> Cursor | None:
        return None if self.cursor is None else decode_cursor(self.cursor)


def read_list_query(arguments: Mapping[str, str]) -> ListQuery:
    """Read the parameters of `GET /tasks/get`."""
    return _read_query(ListQuery, arguments)


def read_overview_query(arguments: Mapping[str, str]) -> OverviewQuery:
    """Read the parameters of `GET /tasks/get/overview`."""
    return _read_query(OverviewQuery, arguments)


Query = TypeVar("Query", bound=BaseModel)


def _read_query(model: type[Query], arguments: Mapping[str, str]) -> Query:
    try:
        return model.model_validate(dict(arguments))
    except ValidationError as error:
        raise InvalidRequest("The query is not valid.", field_errors(error)) from None


def encode_cursor(cursor: Cursor) -> str:
    milliseconds = (cursor.created_at - _EPOCH) // timedelta(milliseconds=1)
    return base64.urlsafe_b64encode(f"{milliseconds}:{cursor.task_id}".encode()).decode().rstrip("=")


def decode_cursor(text: str) -> Cursor:
    """The reverse of `encode_cursor`. Raises InvalidRequest for any other text."""
    try:
        found = _CURSOR.fullmatch(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
        if found is None:
            raise ValueError("no cursor")
        return Cursor(_EPOCH + timedelta(milliseconds=int(found[1])), found[2])
    except (ValueError, binascii.Error, OverflowError):
        raise InvalidRequest(
            "The query is not valid.", [FieldError("cursor", "is not a cursor that a page of tasks has given")]
        ) from None
