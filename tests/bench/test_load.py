"""The load client against a server that tells the truth, and against servers that don't."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bench import load
from bench.figures import Wrong
from tests.servers.ports import LOOPBACK, free_port

#: Gets the number of the request, and writes an answer to it. False: hang up.
Behaviour = Callable[[int, asyncio.StreamWriter], Awaitable[bool]]

BODY = load.body_of(None)


def answer(number: int | str, status: int = 202, *, length: int | None = None, more: str = "") -> bytes:
    body = json.dumps({"_id": f"task-{number}"}).encode()
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status} X\r\nContent-Length: {size}\r\n{more}\r\n".encode() + body


@asynccontextmanager
async def _serving(behave: Behaviour) -> AsyncIterator[str]:
    numbers = itertools.count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                assert f"Content-Length: {len(BODY)}".encode() in head
                assert await reader.readexactly(len(BODY)) == BODY
                if not await behave(next(numbers), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/tasks/add"
    finally:
        server.close()


def posted(
    behave: Behaviour,
    *,
    connections: int = 3,
    requests: int | None = 12,
    seconds: float | None = None,
    rate: float | None = None,
) -> load.Client:
    async def run() -> load.Client:
        async with _serving(behave) as url:
            client, _ = await load.run(url, BODY, connections, seconds, requests, rate)
            await asyncio.sleep(0)  # the connections say goodbye
        return client

    return asyncio.run(run())


def says(each: Callable[[int], bytes]) -> Behaviour:
    async def behave(number: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(each(number))
        return True

    return behave


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(load, "BURST_SECONDS", 0.3)


def outcome(client: load.Client) -> tuple[int, dict[str, int]]:
    return len(client.latencies), {reason: count for reason, count in client.errors.items() if count}


def test_so_many_requests_are_sent_and_each_answer_counts_once() -> None:
    client = posted(says(answer))
    assert outcome(client) == (12, {})
    assert sorted(load.ids_in(client.bodies)) == sorted(f"task-{number}" for number in range(12))


def test_an_answer_in_pieces_is_one_answer() -> None:
    async def drip(number: int, writer: asyncio.StreamWriter) -> bool:
        for byte in answer(number):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        return True

    assert outcome(posted(drip, requests=3)) == (3, {})


def test_other_answers_are_errors_by_their_status() -> None:
    client = posted(says(lambda number: answer(number, 500 if number % 3 == 0 else 202)))
    assert outcome(client) == (8, {"500": 4})


def test_a_server_that_closes_each_connection_is_connected_again() -> None:
    async def closing(number: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(number, more="Connection: close\r\n"))
        return False

    assert outcome(posted(closing)) == (12, {})


@pytest.mark.parametrize(
    ("lie", "named"),
    [
        (answer("x", length=3), "longer than it says"),
        (answer("x") + answer("y"), "longer than it says"),
        (b"HTTP/1.1 202 X\r\n\r\nhello", "not HTTP with a length"),
        (b"Content-Length: 2\r\n\r\nhi", "not HTTP with a length"),
    ],
)
def test_a_lie_is_an_error_and_no_answer(lie: bytes, named: str) -> None:
    client = posted(says(lambda number: lie if number == 5 else answer(number)))
    assert outcome(client) == (11, {named: 1})


def test_an_answer_that_breaks_off_is_an_error() -> None:
    async def cutting(number: int, writer: asyncio.StreamWriter) -> bool:
        whole = answer(number)
        writer.write(whole[:-4] if number == 2 else whole)
        return number != 2

    assert outcome(posted(cutting)) == (11, {"cut off": 1})


def test_a_server_that_falls_silent_is_given_up() -> None:
    async def silent(number: int, writer: asyncio.StreamWriter) -> bool:
        if number != 4:
            writer.write(answer(number))
        return True

    assert outcome(posted(silent)) == (11, {"no answer": 1})


def test_a_server_that_is_not_there_is_given_up() -> None:
    async def run() -> load.Client:
        client, _ = await load.run(f"http://{LOOPBACK}:{free_port()}/", BODY, 2, None, 5, None)
        return client

    started = time.monotonic()
    accepted, errors = outcome(asyncio.run(run()))
    assert accepted == 0
    assert errors.pop("refused") > 0
    assert errors == {"never sent": 5}
    assert time.monotonic() - started < 20


def test_a_load_of_some_seconds_ends() -> None:
    client = posted(says(answer), requests=None, seconds=0.2)
    accepted, errors = outcome(client)
    assert accepted > 3
    assert errors == {}


def test_a_steady_load_sends_its_number_whatever_the_answers_do() -> None:
    async def slow(number: int, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.1)
        writer.write(answer(number))
        return True

    client = posted(slow, requests=None, seconds=0.3, rate=100)
    assert outcome(client) == (30, {})
    assert min(client.latencies) >= 0.09


def test_of_a_steady_load_a_request_that_waits_for_a_connection_counts_from_when_it_was_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "STEADY_CONNECTIONS", 1)

    async def slow(number: int, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.05)
        writer.write(answer(number))
        return True

    client = posted(slow, requests=None, seconds=0.1, rate=50)
    assert outcome(client) == (5, {})
    assert max(client.latencies) >= 0.1, "the last one was due at 80 ms and could be sent at 200 ms"


def _found(accepted: int, unique: int) -> load.Load:
    return load.Load(1.0, accepted, unique, {"500": 2}, 1.0, 1.0, 1.0, 1.0)


def test_the_same_id_for_two_tasks_is_wrong_and_so_is_no_task_at_all() -> None:
    client = posted(says(lambda number: answer(number // 2)))
    ids = load.ids_in(client.bodies)
    assert (len(ids), len(set(ids))) == (12, 6)
    with pytest.raises(Wrong, match="12 requests were accepted, with 6 different ids"):
        _found(12, 6).check()
    with pytest.raises(Wrong, match="nothing was accepted"):
        _found(0, 0).check()
    _found(12, 12).check()


def test_answers_without_an_id_have_none() -> None:
    assert load.ids_in([b'{"id": "a"}', b'{"_id": "b"}', b"{}", b"[]", b"no JSON"]) == ["a", "b"]


def test_a_body_has_the_size_that_was_asked_for() -> None:
    assert len(json.loads(load.body_of(1024))["objective"]) == 1024
    assert json.loads(load.body_of(None))["language"] == "python"
