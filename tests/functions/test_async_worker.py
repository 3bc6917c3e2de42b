"""The limits of the server in production, asked over real connections; with shorter times than in production."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from sluice import async_worker
from sluice.async_worker import MAX_HEAD_BYTES, BoundedProtocol
from sluice.http import MAX_BODY_BYTES, MAX_DISCARDED_BYTES
from tests.functions.conftest import FUNCTIONS, Sluice
from tests.servers import ports
from tests.servers.process import ServerProcess
from tests.waiting import eventually

#: Seconds: what a caller is given in these tests, and what nothing takes on any machine.
SHORT, LONG = 0.3, 20.0

#: More than the buffers of a connection hold, at both ends.
BIG = b"x" * 16_000_000

HEAD = b"HTTP/1.1 %d "


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers `/slow` after a while, `/big` at length, and reads what it is sent."""
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * SHORT)
    body = BIG if scope["path"] == "/big" else b"ok"
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served(application: Any) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    port = ports.free_port()
    options: dict[str, Any] = {**async_worker.AsyncWorker.CONFIG_KWARGS, "loop": "asyncio", "timeout_notify": LONG}
    options |= {"host": "127.0.0.1", "port": port, "timeout_keep_alive": SHORT, "log_level": "error"}
    config = uvicorn.Config(application, **options)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server, port
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, LONG)


Test = Callable[[uvicorn.Server, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READ_SECONDS", "HEAD_SECONDS", "WRITE_SECONDS"):
        monkeypatch.setattr(async_worker, name, SHORT)


def connected(test: Test, application: Any = app) -> None:
    async def run() -> None:
        async with served(application) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await asyncio.wait_for(test(server, reader, writer), LONG)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    asyncio.run(run())


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHo",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ],
    ids=["nothing", "a line break", "a request", "a request and a line break", "half a head", "half a body"],
)
def test_a_caller_that_says_no_more_is_not_waited_for(sent: bytes) -> None:
    async def test(_server: uvicorn.Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        answer = await reader.read()  # ends when the server hangs up
        assert answer.startswith(HEAD % 200) == sent.startswith(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    connected(test)


def test_a_head_that_comes_in_drops_has_an_end_too() -> None:
    async def test(_server: uvicorn.Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        with suppress(OSError):
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), SHORT / 10)

    connected(test)


@pytest.mark.parametrize(
    "sent",
    [b"what?\r\n\r\n", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n"],
    ids=["no HTTP", "a URL that is not encoded", "no method"],
)
def test_what_is_no_request_is_told_so_as_every_error_is(sent: bytes) -> None:
    async def test(_server: uvicorn.Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(HEAD % 400)
        assert b"Content-Type: application/problem+json" in head
        assert b"X-Request-Id: " in head
        assert json.loads(body)["status"] == 400

    connected(test)


def test_a_head_without_end_is_refused() -> None:
    async def test(_server: uvicorn.Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        with suppress(OSError):
            for _ in range(64):
                writer.write(b"x" * (MAX_HEAD_BYTES // 8))
                await writer.drain()
                await asyncio.sleep(0)
            assert (await reader.read()).startswith(HEAD % 400)

    connected(test)


def test_half_of_the_next_request_does_not_spoil_the_answer_to_this_one() -> None:
    async def test(_server: uvicorn.Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
        assert (await reader.read()).startswith(HEAD % 200)

    connected(test)


def test_an_answer_that_nobody_reads_is_not_kept_for_ever() -> None:
    async def test(server: uvicorn.Server, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(SHORT / 3)
        while server.server_state.connections:
            await asyncio.sleep(0.01)

    connected(test)


def test_a_body_that_is_refused_is_not_read_for_ever(sluice: Sluice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sender is told so, once enough of it was thrown away, and then cut off, though it never pauses."""
    monkeypatch.setattr(async_worker, "READ_SECONDS", LONG)

    async def test(_server: uvicorn.Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /tasks/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 1000000000000\r\n\r\n")
        writer.write(b"x" * (MAX_BODY_BYTES + MAX_DISCARDED_BYTES + 1))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(HEAD % 413)
        with suppress(OSError):
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1000), SHORT / 10)
        assert b"\r\nconnection: close\r\n" in head

    connected(test, async_worker.create_app("add_task", str(FUNCTIONS / "add_task" / "main.py")))


def test_a_worker_whose_master_was_killed_ends(tmp_path: Path, root: Path, free_port: int) -> None:
    """With its own signs of life in shorter intervals than in production."""
    served = root / "functions" / "gunicorn.conf.py"
    hasty = tmp_path / "gunicorn.conf.py"
    hasty.write_text(
        "from sluice.async_worker import AsyncWorker\n"
        f"AsyncWorker.CONFIG_KWARGS['timeout_notify'] = {SHORT}\n"
        f"exec(open({str(served)!r}).read())\n"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(root),
        "TMPDIR": str(tmp_path),
        "FUNCTION_SOURCE": str(FUNCTIONS / "get_tasks" / "main.py"),
        "FUNCTION_TARGET": "get_tasks",
        "MONGODB_URI": "mongodb://127.0.0.1:1",
        "HOST": "127.0.0.1",
        "PORT": str(free_port),
        "WORKERS": "1",
    }
    command = [Path(sys.executable).parent / "gunicorn", "-c", hasty, "functions_framework.aio:app"]

    def is_served() -> bool:
        with suppress(httpx2.HTTPError):
            return httpx2.get(f"http://127.0.0.1:{free_port}/healthz").status_code == 200
        return False

    with ServerProcess("get_tasks", command, tmp_path, environment, is_served) as master:
        os.kill(master.pid, signal.SIGKILL)
        eventually(lambda: not is_served(), LONG, "the worker is gone")


def test_the_protocol_is_the_one_that_is_served_with() -> None:
    assert async_worker.AsyncWorker.CONFIG_KWARGS["http"] is BoundedProtocol


def test_a_worker_that_has_loaded_its_function_leaves_it_out_of_every_collection_of_garbage(root: Path) -> None:
    program = """
import gc, runpy

settings = runpy.run_path("functions/gunicorn.conf.py")
assert gc.get_freeze_count() == 0
settings["post_worker_init"](None)
assert gc.get_freeze_count() > 10_000
settings["on_exit"](None)  # the folder of its metrics
"""
    environment = {
        "FUNCTION_SOURCE": "functions/get_tasks/main.py",
        "FUNCTION_TARGET": "get_tasks",
        "MONGODB_URI": "mongodb://127.0.0.1:1",
    }
    subprocess.run([sys.executable, "-c", program], cwd=root, env=environment, check=True, timeout=60)
