"""What callers may ask for: new tasks and lists, with every bad field named at once."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.errors import FieldError, InvalidRequest, TooLarge
from sluice.requests import (
    DEFAULT_PAGE,
    MAX_PAGE,
    decode_cursor,
    encode_cursor,
    read_list_query,
    read_new_task,
)
from sluice.store import Cursor

GOOD: dict[str, Any] = {"user_id": "ada", "objective": "Add."}


def refusals(read: Callable[[dict[str, Any]], object], given_fields: dict[str, Any]) -> list[FieldError]:
    with pytest.raises(InvalidRequest) as caught:
        read(given_fields)
    assert caught.value.errors
    return caught.value.errors


def bad_fields(read: Callable[[dict[str, Any]], object], given_fields: dict[str, Any]) -> list[str]:
    return sorted({error.field for error in refusals(read, given_fields)})


# --- a new task ------------------------------------------------------------------------------------------------------


def test_a_task_is_of_the_default_kind_if_nothing_else_is_said() -> None:
    new = read_new_task(GOOD)
    assert (new.user_id, new.kind.name, new.inputs) == ("ada", "code", {"objective": "Add.", "language": "python"})


def test_a_task_can_be_of_another_kind() -> None:
    new = read_new_task({"user_id": "ada", "kind": "message", "text": "Hello."})
    assert (new.kind.name, new.inputs) == ("message", {"text": "Hello."})


def test_the_given_fields_are_left_as_they_were() -> None:
    fields = dict(GOOD)
    read_new_task(fields)
    assert fields == GOOD


def test_an_empty_request_names_everything_that_is_missing() -> None:
    assert bad_fields(read_new_task, {}) == ["objective", "user_id"]


def test_the_user_and_the_inputs_of_the_kind_are_named_together() -> None:
    fields = {"user_id": "a\x00", "objective": "", "language": ["python"], "colour": "red"}
    assert bad_fields(read_new_task, fields) == ["colour", "language", "objective", "user_id"]


def test_the_user_and_an_unknown_kind_are_named_together() -> None:
    assert bad_fields(read_new_task, {"user_id": 7, "kind": "poem", "text": "x"}) == ["kind", "user_id"]


@pytest.mark.parametrize("user_id", [None, "", " ", 7, True, [], {}, ["ada"], "a\x00b", "a\nb", "x" * 129, "\ud800"])
def test_a_bad_user_is_named(user_id: object) -> None:
    assert bad_fields(read_new_task, GOOD | {"user_id": user_id}) == ["user_id"]


def test_a_user_has_at_most_128_characters_and_no_blanks_around() -> None:
    assert read_new_task(GOOD | {"user_id": "x" * 128}).user_id == "x" * 128
    assert read_new_task(GOOD | {"user_id": " ada "}).user_id == "ada"


@pytest.mark.parametrize("kind", ["poem", "", "Code", "code ", None, 7, True, [], {}, ["code"], {"code": 1}, "\ud800"])
def test_what_is_no_kind_is_refused_with_the_kinds_that_there_are(kind: object) -> None:
    [error] = refusals(read_new_task, GOOD | {"kind": kind})
    assert error.field == "kind"
    assert "code" in error.message
    assert "message" in error.message


@pytest.mark.parametrize("field", ["_id", "status", "created_at", "deadline", "attempts", "code", "lease_until"])
def test_what_is_not_the_callers_to_say_is_refused(field: str) -> None:
    assert bad_fields(read_new_task, GOOD | {field: "mine"}) == [field]


def test_a_task_with_too_much_text_is_too_large() -> None:
    with pytest.raises(TooLarge):
        read_new_task(GOOD | {"objective": "é" * 40_000})


# --- a list ----------------------------------------------------------------------------------------------------------


def test_a_list_is_of_one_users_tasks_and_of_the_first_page() -> None:
    query = read_list_query({"user_id": "ada"})
    assert (query.user_id, query.kind, query.status, query.limit, query.after, query.view) == (
        "ada",
        None,
        None,
        DEFAULT_PAGE,
        None,
        "full",
    )


def test_a_list_can_be_of_a_kind_a_status_and_a_length() -> None:
    query = read_list_query({"user_id": "ada", "kind": "code", "status": "failed", "limit": "7"})
    assert (query.kind, query.status, query.limit) == ("code", "failed", 7)


@pytest.mark.parametrize("limit", [1, MAX_PAGE])
def test_the_smallest_and_the_longest_page_can_be_had(limit: int) -> None:
    assert read_list_query({"user_id": "ada", "limit": str(limit)}).limit == limit


@pytest.mark.parametrize(
    "limit", ["0", "-1", "201", "9999", "9" * 30, "9" * 5000, "abc", "", " ", "1.5", "1e2", "NaN", "inf", "0x10", "٣٠٠"]
)
def test_an_absurd_limit_is_refused_by_name(limit: str) -> None:
    assert bad_fields(read_list_query, {"user_id": "ada", "limit": limit}) == ["limit"]


def test_a_list_needs_a_user() -> None:
    assert bad_fields(read_list_query, {}) == ["user_id"]


def test_every_bad_parameter_is_named_at_once() -> None:
    parameters = {"user_id": "", "kind": "poem", "status": "asleep", "limit": "x", "cursor": "!", "page": "2"}
    assert bad_fields(read_list_query, parameters) == ["cursor", "kind", "limit", "page", "status", "user_id"]


def test_an_unknown_kind_and_a_broken_cursor_are_named_together() -> None:
    assert bad_fields(read_list_query, {"user_id": "ada", "kind": "poem", "cursor": "x"}) == ["cursor", "kind"]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("kind", "poem"),
        ("kind", ""),
        ("kind", " code"),
        ("status", "done"),
        ("status", ""),
        ("view", "short"),
        ("view", ""),
        ("cursor", ""),
        ("cursor", "!"),
    ],
)
def test_a_bad_parameter_is_named(parameter: str, value: str) -> None:
    assert bad_fields(read_list_query, {"user_id": "ada", parameter: value}) == [parameter]


# --- cursors ---------------------------------------------------------------------------------------------------------

MOMENTS = st.datetimes(timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)


@given(moment=MOMENTS, task_id=st.text("0123456789abcdef", min_size=32, max_size=32))
@settings(deadline=None)
def test_a_cursor_survives_being_given_and_taken_back(moment: datetime, task_id: str) -> None:
    text = encode_cursor(Cursor(moment, task_id))
    assert decode_cursor(text) == Cursor(moment, task_id)
    assert text.replace("-", "").replace("_", "").isalnum(), "it must fit into a URL as it is"


def read_cursor(text: str) -> Cursor | list[str]:
    """The cursor, or the names of the fields that are refused."""
    try:
        return decode_cursor(text)
    except InvalidRequest as error:
        return [bad.field for bad in error.errors]


def check_cursor(text: str) -> None:
    found = read_cursor(text)
    assert found == ["cursor"] or (isinstance(found, Cursor) and decode_cursor(encode_cursor(found)) == found)


@given(text=st.text() | st.text(st.characters(categories=["Cs", "Ll"])) | st.text("abcdefABCDEF0123456789-_=+/"))
@settings(deadline=None, max_examples=300)
def test_an_arbitrary_text_is_a_cursor_or_refused_by_name(text: str) -> None:
    check_cursor(text)


@given(text=st.from_regex(r"-?\d{1,17}:[0-9a-f]{30,34}", fullmatch=True) | st.binary(max_size=60).map(repr))
@settings(deadline=None, max_examples=300)
def test_a_forged_cursor_is_a_cursor_or_refused_by_name(text: str) -> None:
    check_cursor(base64.urlsafe_b64encode(text.encode()).decode())


def test_a_cursor_beyond_the_end_of_time_is_refused() -> None:
    text = base64.urlsafe_b64encode(f"999999999999999:{'0' * 32}".encode()).decode()
    assert bad_fields(read_list_query, {"user_id": "ada", "cursor": text}) == ["cursor"]
