"""The task as a value: its times, ids, moves, and the two forms in which it leaves the process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.errors import NotATask
from sluice.task import (
    MAX_DEPTH,
    MOVES,
    PRIVATE_FIELDS,
    STATUSES,
    TERMINAL,
    TIME_FIELDS,
    Document,
    Status,
    Task,
    format_time,
    id_from_key,
    is_id,
    new_id,
    new_task,
    parse_time,
    statuses_before,
    utc_now,
)

NOON = datetime(2026, 7, 14, 12, 0, tzinfo=UTC)
TTL = timedelta(minutes=5)


def make_task(**changes: Any) -> Task:
    task = new_task(
        task_id="0123456789abcdef" * 2,
        user_id="ada",
        kind="code",
        inputs={"objective": "Add é and ü.", "language": "python"},
        outputs={"code": "", "model": None},
        now=NOON,
        ttl=TTL,
    )
    return task.replace(**changes)


def make_message(**changes: Any) -> bytes:
    return json.dumps({**make_task().to_json(), **changes}).encode()


# --- times -----------------------------------------------------------------------------------------------------------


def test_a_time_is_written_in_utc_with_milliseconds_and_a_z() -> None:
    assert format_time(datetime(2026, 7, 14, tzinfo=UTC)) == "2026-07-14T00:00:00.000Z"
    assert format_time(datetime(2026, 7, 14, 1, 2, 3, 456_789, tzinfo=UTC)) == "2026-07-14T01:02:03.456Z"


def test_a_time_of_another_zone_is_written_in_utc() -> None:
    assert format_time(datetime(2026, 7, 14, 2, 0, tzinfo=timezone(timedelta(hours=2)))) == "2026-07-14T00:00:00.000Z"


def test_now_has_a_zone_and_only_the_milliseconds_that_the_database_keeps() -> None:
    now = utc_now()
    assert now.tzinfo is UTC
    assert now.microsecond % 1000 == 0
    assert abs(datetime.now(UTC) - now) < timedelta(seconds=5)


@given(moment=st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.just(UTC)))  # noqa: DTZ001
@settings(deadline=None)
def test_every_time_survives_being_written_and_read(moment: datetime) -> None:
    cut = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert parse_time(format_time(moment)) == cut


@pytest.mark.parametrize("text", ["", "yesterday", "2026-07-14", "2026-07-14T00:00:00.000", "2026-13-01T00:00:00Z"])
def test_a_text_that_is_no_time_with_a_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - that it is a ValueError is the contract
        parse_time(text)


# --- ids -------------------------------------------------------------------------------------------------------------


def test_new_ids_are_ids_and_differ() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(is_id(text) for text in ids)


@pytest.mark.parametrize(
    "text",
    ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "0" * 32 + "\n", " " + "0" * 31, "../" + "0" * 29, "\u0660" * 32],
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert not is_id(text)


def test_the_same_user_and_key_always_give_the_same_id() -> None:
    assert id_from_key("ada", "first") == id_from_key("ada", "first")
    assert is_id(id_from_key("ada", "first"))


def test_another_key_or_another_user_gives_another_id() -> None:
    assert len({id_from_key("ada", "first"), id_from_key("ada", "second"), id_from_key("bob", "first")}) == 3


def test_user_and_key_do_not_run_into_each_other() -> None:
    assert id_from_key("ada", "bob") != id_from_key("adab", "ob")
    assert id_from_key("1", "1:1") != id_from_key("11", ":1")


@given(first=st.tuples(st.text(), st.text()), second=st.tuples(st.text(), st.text()))
@settings(deadline=None)
def test_two_pairs_of_user_and_key_share_an_id_only_if_they_are_equal(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    assert (id_from_key(*first) == id_from_key(*second)) == (first == second)


# --- moves -----------------------------------------------------------------------------------------------------------


def test_every_status_has_its_moves_and_they_lead_to_statuses() -> None:
    assert set(MOVES) == set(STATUSES) == {"pending", "running", "completed", "failed", "cancelled"}
    assert all(target in STATUSES for targets in MOVES.values() for target in targets)


def test_a_terminal_status_is_left_only_by_a_retry() -> None:
    assert {"completed", "failed", "cancelled"} == TERMINAL
    assert all(MOVES[status] == {"pending"} for status in TERMINAL)


@pytest.mark.parametrize(
    ("status", "before"),
    [
        ("pending", ["running"]),
        ("running", ["pending", "running"]),
        ("completed", ["running"]),
        ("failed", ["pending", "running"]),
        ("cancelled", ["pending", "running"]),
    ],
)
def test_what_may_come_before_a_status_is_never_terminal(status: Status, before: list[Status]) -> None:
    assert statuses_before(status) == before


# --- the document ----------------------------------------------------------------------------------------------------


def test_a_new_code_task_reads_like_the_schema() -> None:
    assert make_task().to_json() == {
        "_id": "0123456789abcdef" * 2,
        "user_id": "ada",
        "kind": "code",
        "objective": "Add é and ü.",
        "language": "python",
        "created_at": "2026-07-14T12:00:00.000Z",
        "queued_at": None,
        "started_at": None,
        "completed_at": None,
        "deadline": "2026-07-14T12:05:00.000Z",
        "retry_at": None,
        "status": "pending",
        "progress": 0,
        "steps": [],
        "attempts": 0,
        "error": None,
        "code": "",
        "model": None,
    }


def test_the_engines_bookkeeping_is_never_shown() -> None:
    task = make_task(engine="engine-1", token="t", lease_until=NOON, crashes=2, failures=3, swept_at=NOON)
    assert task.document.keys() >= PRIVATE_FIELDS
    assert PRIVATE_FIELDS.isdisjoint(task.to_json())
    assert PRIVATE_FIELDS.isdisjoint(json.loads(task.to_message()))


def test_a_changed_copy_leaves_the_task_as_it_was() -> None:
    task = make_task()
    assert task.replace(status="running").status == "running"
    assert task.status == "pending"


def test_a_task_knows_whether_it_is_finished() -> None:
    assert [status for status in STATUSES if make_task(status=status).is_terminal] == [
        "completed",
        "failed",
        "cancelled",
    ]


def test_a_task_is_leased_while_it_runs_and_its_lease_lasts() -> None:
    later = NOON + timedelta(seconds=1)
    assert make_task(status="running", lease_until=later).is_leased(NOON)
    assert not make_task(status="running", lease_until=NOON).is_leased(NOON)
    assert not make_task(status="running", lease_until=None).is_leased(NOON)
    assert not make_task(status="pending", lease_until=later).is_leased(NOON)


def test_a_task_without_counters_counts_from_zero() -> None:
    task = make_task()
    assert (task.attempts, task.crashes, task.failures) == (0, 0, 0)


def test_the_repr_shows_no_inputs() -> None:
    assert repr(make_task()) == f"<Task {'0123456789abcdef' * 2} code pending>"


# --- messages --------------------------------------------------------------------------------------------------------


def test_a_task_survives_being_sent_and_received() -> None:
    task = make_task(
        status="failed",
        queued_at=NOON,
        started_at=NOON + timedelta(milliseconds=1),
        completed_at=NOON + timedelta(seconds=2),
        retry_at=NOON,
        attempts=3,
        progress=40,
        steps=[{"name": "ask the model", "status": "done", "ms": 12, "message": None}],
        error={"code": "refused", "message": "The model won't."},
    )
    assert Task.from_message(task.to_message()).document == task.document


def test_a_message_is_utf_8_json() -> None:
    assert json.loads(make_task().to_message().decode("utf-8"))["objective"] == "Add é and ü."


def test_bookkeeping_in_a_message_is_not_believed() -> None:
    task = Task.from_message(make_message(engine="evil", lease_until="2099-01-01T00:00:00Z", crashes=9, failures=9))
    assert PRIVATE_FIELDS.isdisjoint(task.document)
    assert task.crashes == 0


def test_times_that_a_message_leaves_out_are_empty() -> None:
    document = make_task().to_json()
    for field in ("queued_at", "started_at", "completed_at", "retry_at"):
        del document[field]
    task = Task.from_message(json.dumps(document).encode())
    assert [task.document[field] for field in TIME_FIELDS] == [NOON, None, None, None, NOON + TTL, None]


@pytest.mark.parametrize("field", ["_id", "user_id", "kind", "status", "attempts", "steps", "created_at", "deadline"])
def test_a_message_without_a_needed_field_is_no_task(field: str) -> None:
    document = make_task().to_json()
    del document[field]
    with pytest.raises(NotATask, match=field):
        Task.from_message(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("_id", 7),
        ("_id", "nobody"),
        ("_id", None),
        ("user_id", ""),
        ("user_id", ["ada"]),
        ("kind", {}),
        ("kind", ""),
        ("status", "asleep"),
        ("status", ["pending"]),
        ("attempts", True),
        ("attempts", 1.5),
        ("attempts", "1"),
        ("steps", None),
        ("steps", {}),
        ("created_at", None),
        ("created_at", 0),
        ("deadline", "2026-07-14T12:00:00"),
        ("deadline", "soon"),
        ("deadline", "0001-01-01T00:00:00+23:59"),
        ("queued_at", []),
        ("retry_at", True),
    ],
)
def test_a_field_of_the_wrong_type_is_named(field: str, value: object) -> None:
    with pytest.raises(NotATask, match=field):
        Task.from_message(make_message(**{field: value}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"null",
        b"[]",
        b'"a task"',
        b"{",
        b"\xff\xfe\x00",
        b"\x80",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b'{"attempts":' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_json_object_is_no_task(body: bytes) -> None:
    with pytest.raises(NotATask):
        Task.from_message(body)


def read(body: bytes) -> Document | None:
    try:
        return Task.from_message(body).document
    except NotATask:
        return None


def test_lists_may_lie_in_each_other_to_a_bound() -> None:
    def nested(lists: int) -> bytes:
        return make_task(text=0).to_message().replace(b'"text":0', b'"text":' + lists * b"[" + b"0" + lists * b"]")

    assert Task.from_message(nested(MAX_DEPTH - 2)).document["text"] != 0  # the task itself and the number count too
    with pytest.raises(NotATask, match="too deeply nested"):
        Task.from_message(nested(MAX_DEPTH - 1))


@given(body=st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_arbitrary_bytes_are_no_task_and_nothing_worse(body: bytes) -> None:
    assert read(body) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(value=VALUES)
@settings(deadline=None, max_examples=200)
def test_arbitrary_json_is_no_task_and_nothing_worse(value: object) -> None:
    assert read(json.dumps(value).encode()) is None


TIMES = st.datetimes().map(lambda moment: moment.isoformat() + "+23:59") | st.datetimes().map(
    lambda moment: moment.isoformat() + "-23:59"
)


@given(changes=st.dictionaries(st.sampled_from(sorted(make_task().document)), VALUES | TIMES, min_size=1, max_size=4))
@settings(deadline=None, max_examples=500)
def test_a_task_with_arbitrary_fields_is_read_in_the_right_types_or_refused(changes: Document) -> None:
    document = read(make_message(**changes))
    if document is not None:
        task = Task(document)
        assert is_id(task.id)
        assert task.status in STATUSES
        assert all(document[field] is None or document[field].tzinfo is UTC for field in TIME_FIELDS)
        assert Task.from_message(task.to_message()).id == task.id
