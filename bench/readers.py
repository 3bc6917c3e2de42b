"""The HTTP load of readers: GETs again and again, each answer held against the one that is right.

`load()` runs it as a process of its own, as bench/load.py does for posts; `python -m bench.readers` reads from stdin
what to do.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import itertools
import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.figures import Wrong, percentile

#: Seconds after the last request was sent until those without an answer are given up.
PATIENCE_SECONDS = 10.0

#: One answer in so many is compared with the right one byte by byte; all are compared by their length.
COMPARED = 20


@dataclass(frozen=True)
class Reads:
    """What a load has found. Latencies in milliseconds."""

    count: int
    #: From the first request to the last answer.
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds


def load(urls: Sequence[str], *, connections: int, seconds: float, known: bool = False) -> Reads:
    """Read these URLs of one server in turn. With `known` the client says that it has the answer, and wants a 304.
    Raises Wrong when an answer is not the one that is right."""
    right = []
    for url in urls:
        with urllib.request.urlopen(url, timeout=30) as answer:
            right.append((answer.headers["ETag"], answer.read().decode()))
    order = {"urls": list(urls), "right": right, "connections": connections, "seconds": seconds, "known": known}
    done = subprocess.run(
        [sys.executable, "-m", "bench.readers"],
        input=json.dumps(order),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        timeout=seconds + PATIENCE_SECONDS + 60,
    )
    found = json.loads(done.stdout)
    if found["errors"] or not found["reads"]["count"]:
        raise Wrong(f"answers that are not right: {found['errors'] or 'none at all'}")
    return Reads(**found["reads"])


def take_turns(urls: Mapping[str, Sequence[str]], seconds: float) -> dict[str, float]:
    """Read from several servers in turn, one request at each, so that the machine's noise meets all of them alike.
    Returns the p50 of each, in milliseconds. Raises Wrong when an answer is not the one that was given at first."""
    servers = {}
    for name, own in urls.items():
        right = []
        for url in own:
            with urllib.request.urlopen(url, timeout=30) as answer:
                right.append((urlsplit(url), answer.read()))
        first = right[0][0]
        servers[name] = (
            http.client.HTTPConnection(first.hostname or "", first.port, timeout=30),
            itertools.cycle(right),
        )
    found: dict[str, list[float]] = {name: [] for name in urls}
    ending = time.perf_counter() + seconds
    order = list(servers)
    while time.perf_counter() < ending:
        order.reverse()  # nobody always comes after the same other one
        for name in order:
            connection, turn = servers[name]
            parts, body = next(turn)
            started = time.perf_counter()
            connection.request("GET", parts._replace(scheme="", netloc="").geturl())
            got = connection.getresponse().read()
            found[name].append((time.perf_counter() - started) * 1000)
            if got != body:
                raise Wrong(f"an answer of {name} is not the right one: {got[:200]!r}")
    for connection, _ in servers.values():
        connection.close()
    return {name: percentile(values, 0.5) for name, values in found.items()}


class Reading:
    """One load while it runs: what is to be read, and what has come back."""

    def __init__(self, urls: Sequence[str], right: Sequence[tuple[str, str]], seconds: float, *, known: bool) -> None:
        self.ending = time.perf_counter() + seconds
        self.last_answer = 0.0
        self.latencies: list[float] = []
        self.errors: Counter[str] = Counter()
        self._status = b"304" if known else b"200"
        self._right = {b"" if known else body.encode() for _, body in right}
        self._lengths = {len(body) for body in self._right}
        requests = []
        for url, (etag, _) in zip(urls, right, strict=True):
            parts = urlsplit(url)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            header = f"If-None-Match: {etag}\r\n" if known else ""
            requests.append(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{header}\r\n".encode())
        self.requests = itertools.cycle(requests)

    def answered(self, since: float, status: bytes, body: bytes) -> None:
        self.last_answer = time.perf_counter()
        if status != self._status:
            self.errors[status.decode("latin-1")] += 1
        elif len(body) not in self._lengths or (len(self.latencies) % COMPARED == 0 and body not in self._right):
            self.errors["another body"] += 1
        else:
            self.latencies.append(self.last_answer - since)


class Reader(asyncio.Protocol):
    """One kept-alive connection with one request on it at a time. `done` is set when it is over."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._buffer = b""
        self._since = 0.0
        self._is_waiting = False
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._go()

    def _go(self) -> None:
        now = time.perf_counter()
        if now >= self._reading.ending:
            self._transport.close()
            return
        self._since, self._is_waiting = now, True
        self._transport.write(next(self._reading.requests))

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        status = head[9:12]
        length = 0
        if status != b"304":  # which has no body, whatever length it names
            length = int(head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._buffer, self._is_waiting = b"", False
        self._reading.answered(self._since, status, body)
        self._go()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._is_waiting:
            self._reading.errors["cut off"] += 1
        self.done.set_result(None)


async def run(order: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    reading = Reading(order["urls"], order["right"], order["seconds"], known=order["known"])
    loop = asyncio.get_running_loop()
    first = urlsplit(order["urls"][0])
    made = [
        await loop.create_connection(lambda: Reader(reading), first.hostname, first.port)
        for _ in range(order["connections"])
    ]
    ends = [reader.done for _, reader in made]
    _, pending = await asyncio.wait(ends, timeout=order["seconds"] + PATIENCE_SECONDS)
    if pending:
        reading.errors["no answer"] += len(pending)
    milliseconds = [latency * 1000 for latency in reading.latencies] or [0.0]
    return {
        "errors": dict(reading.errors),
        "reads": {
            "count": len(reading.latencies),
            "seconds": reading.last_answer - started,
            "p50": percentile(milliseconds, 0.5),
            "p99": percentile(milliseconds, 0.99),
        },
    }


def main() -> None:
    import uvloop

    order = json.load(sys.stdin)
    gc.disable()
    json.dump(uvloop.run(run(order)), sys.stdout)


if __name__ == "__main__":
    main()
