"""The HTTP load: posts one JSON body again and again, and believes no answer before it has looked at it.

`python -m bench.load URL --connections 32 --seconds 4` prints what it found as JSON; `load()` runs that as a process of
its own, so that client and server never share an interpreter. Three ways: for some seconds, or so many requests (each
connection sends the next one when it has the answer), or at a steady rate, whatever the answers do.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.figures import Wrong, percentile

#: Seconds after the last request was sent until those without an answer are given up.
PATIENCE_SECONDS = 10.0

#: Seconds that a given number of requests may take in all.
BURST_SECONDS = 60.0

#: What a connection waits before it tries again to reach a server that refuses it.
RECONNECT_SECONDS = 0.05

#: Connections that a steady load opens at most.
STEADY_CONNECTIONS = 64


@dataclass(frozen=True)
class Load:
    """What a load has found. Latencies are those of the accepted requests, in milliseconds."""

    #: Seconds from the first request to the last answer.
    seconds: float
    #: Requests that were answered 202.
    accepted: int
    #: Different ids in these answers; a server that is right gives each its own.
    unique: int
    #: What else happened, and how often: "500", "cut off", "no answer", …
    errors: dict[str, int]
    p50: float
    p99: float
    worst: float
    #: Of this client, for all requests.
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Accepted requests per second."""
        return self.accepted / self.seconds

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    def check(self) -> None:
        """Raises Wrong unless something was accepted and every accepted request has an id of its own."""
        if not self.accepted:
            raise Wrong(f"nothing was accepted: {self.errors}")
        if self.unique != self.accepted:
            raise Wrong(f"{self.accepted:,} requests were accepted, with {self.unique:,} different ids")


def load(
    url: str,
    *,
    connections: int = 1,
    seconds: float | None = None,
    requests: int | None = None,
    rate: float | None = None,
    size: int | None = None,
    ids: Path | None = None,
) -> Load:
    """Run the load as a process of its own and return what it found.

    `rate` (per second) goes with `seconds`; else give `seconds` or `requests`. `size` is the bytes of a task's text;
    `ids` names a file for the accepted ids, one a line. Raises Wrong, see `Load.check`.
    """
    given = {"connections": connections, "seconds": seconds, "requests": requests, "rate": rate, "size": size}
    command = [sys.executable, "-m", "bench.load", url, *(() if ids is None else ("--ids", str(ids)))]
    for name, value in given.items():
        command += [] if value is None else [f"--{name}", str(value)]
    patience = PATIENCE_SECONDS + BURST_SECONDS + 10 + (seconds or 0)
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True, timeout=patience
    )
    found = Load(**json.loads(done.stdout))
    found.check()
    return found


def body_of(size: int | None) -> bytes:
    """A task as people write it; with `size`, its text is that many bytes long."""
    text = "Create a function that sums up three numbers."
    if size is not None:
        text = (text + " ") * (size // len(text) + 1)
        text = text[:size]
    return json.dumps({"user_id": "ada", "objective": text, "language": "python"}).encode()


class Client:
    """One load while it runs: what is to be sent, and what has come back."""

    def __init__(
        self, url: str, body: bytes, ending: float | None, requests: int | None, steady: bool, deadline: float
    ) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.request = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.ending = ending
        self.left = requests
        self.steady = steady
        #: When nothing is waited for any more.
        self.deadline = deadline
        self.latencies: list[float] = []
        self.bodies: list[bytes] = []
        self.errors: Counter[str] = Counter()
        self.last_answer = 0.0
        self.in_flight = 0
        self.connections: set[Connection] = set()
        self.idle: list[Connection] = []
        self.late: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self) -> float | None:
        """The moment from which the next request counts, or None when there is none (yet)."""
        now = time.perf_counter()
        if self.steady:
            return self.late.popleft() if self.late else None
        if self.ending is not None and now >= self.ending:
            return None
        if self.left is not None:
            if self.left == 0:
                return None
            self.left -= 1
        return now

    def answered(self, since: float, status: bytes, body: bytes) -> None:
        now = self.last_answer = time.perf_counter()
        self.in_flight -= 1
        if status == b"202":
            self.latencies.append(now - since)
            self.bodies.append(body)
        else:
            self.errors[status.decode("latin-1")] += 1

    def failed(self, reason: str) -> None:
        self.in_flight -= 1
        self.errors[reason] += 1

    def reconnect(self) -> None:
        task = asyncio.get_running_loop().create_task(self.connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def connect(self) -> None:
        """A connection more, as soon as the server takes it; none when there is nothing left to send."""
        loop = asyncio.get_running_loop()
        while self.has_more() and time.perf_counter() < self.deadline:
            try:
                await loop.create_connection(lambda: Connection(self), self.host, self.port)
            except OSError:
                self.errors["refused"] += 1
                await asyncio.sleep(RECONNECT_SECONDS)
            else:
                return

    def has_more(self) -> bool:
        if self.left is not None:
            return self.left > 0
        return self.ending is None or time.perf_counter() < self.ending or bool(self.late)


class Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request on it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.since: float | None = None
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.client.connections.add(self)
        self.go()

    def go(self) -> None:
        """Send the next request, or rest."""
        since = self.client.take()
        if since is not None:
            self.send(since)
        elif self.client.steady:
            self.client.idle.append(self)
        else:
            self.transport.close()

    def send(self, since: float) -> None:
        self.since = since
        self.client.in_flight += 1
        self.transport.write(self.client.request)

    def data_received(self, data: bytes) -> None:
        if self.since is None:
            self.client.errors["answer to nothing"] += 1
            self.transport.abort()
            return
        self.buffer = self.buffer + data if self.buffer else data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        length = lower.find(b"\r\ncontent-length:")
        if not lower.startswith(b"http/1.1 ") or length < 0:
            self.fail("not HTTP with a length")
            return
        expected = int(lower[length + 17 :].split(b"\r\n", 1)[0])
        if len(body) < expected:
            return
        if len(body) > expected:
            self.fail("longer than it says")
            return
        since, self.since, self.buffer = self.since, None, b""
        self.client.answered(since, head[9:12], body)
        if b"\r\nconnection: close" in lower:
            self.transport.close()
        else:
            self.go()

    def fail(self, reason: str) -> None:
        self.since = None
        self.client.failed(reason)
        self.transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self.client.connections.discard(self)
        if self in self.client.idle:
            self.client.idle.remove(self)
        if self.since is not None:
            self.fail("cut off")
        if self.client.has_more():
            self.client.reconnect()


async def run(
    url: str, body: bytes, connections: int, seconds: float | None, requests: int | None, rate: float | None
) -> tuple[Client, float]:
    """The client after its load, and when it began."""
    started = time.perf_counter()
    deadline = started + PATIENCE_SECONDS + (BURST_SECONDS if seconds is None else seconds)
    ending = None if seconds is None else started + seconds
    client = Client(url, body, ending, requests, rate is not None, deadline)
    await asyncio.gather(*(client.connect() for _ in range(STEADY_CONNECTIONS if rate else connections)))
    if rate is not None and seconds is not None:
        started = time.perf_counter()
        client.ending = started + seconds
        deadline = client.deadline = client.ending + PATIENCE_SECONDS
        await pace(client, started, rate, int(seconds * rate))
    while (client.in_flight or client.late or (client.has_more() and not rate)) and time.perf_counter() < deadline:
        await asyncio.sleep(0.002)
    for connection in list(client.connections):
        if connection.since is not None:
            connection.fail("no answer")
        connection.transport.abort()
    client.errors["never sent"] += len(client.late) + (client.left or 0)
    return client, started


async def pace(client: Client, started: float, rate: float, count: int) -> None:
    """Hand out requests at the steady rate. Each counts from when it was due, however late the client is."""
    for index in range(count):
        pause = started + index / rate - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        due = max(started + index / rate, started)
        if client.idle:
            client.idle.pop().send(due)
        else:
            client.late.append(due)


def ids_in(bodies: Iterable[bytes]) -> list[str]:
    """The ids that the answers name, as `_id` or as `id`; an answer without one names none."""
    found = []
    for body in bodies:
        try:
            answer = json.loads(body)
            found.append(str(answer.get("_id") or answer["id"]))
        except (ValueError, KeyError, AttributeError):
            continue
    return found


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--rate", type=float, help="requests per second, with --seconds")
    parser.add_argument("--size", type=int, help="bytes of the task's text")
    parser.add_argument("--ids", type=Path, help="a file for the accepted ids")
    given = parser.parse_args()
    if given.seconds is None and given.requests is None:
        parser.error("--seconds or --requests is needed")

    gc.disable()  # a collection in the client would count as the server's slowness
    cpu = time.process_time()
    client, started = uvloop.run(
        run(given.url, body_of(given.size), given.connections, given.seconds, given.requests, given.rate)
    )
    cpu = time.process_time() - cpu
    ids = ids_in(client.bodies)
    if given.ids is not None:
        given.ids.write_text("".join(f"{each}\n" for each in ids))
    latencies = client.latencies or [0.0]
    found = Load(
        seconds=max(client.last_answer - started, 1e-9),
        accepted=len(client.latencies),
        unique=len(set(ids)),
        errors={reason: count for reason, count in client.errors.items() if count},
        p50=percentile(latencies, 0.5) * 1000,
        p99=percentile(latencies, 0.99) * 1000,
        worst=max(latencies) * 1000,
        cpu_seconds=cpu,
    )
    json.dump(asdict(found), sys.stdout)


if __name__ == "__main__":
    main()
