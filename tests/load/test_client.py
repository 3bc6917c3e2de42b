"""Whether the client is the bottleneck: the verdict, and an experiment with a server that is faster than it, and one
that is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.load.__main__ import main
from tests.load.client import BUSY_SHARE, ClientLoad, judge
from tests.servers.ports import accepts_connections, free_port
from tests.servers.process import ServerProcess

#: Posts that were sent at once and answered in 10 ms, and in 500 ms.
PROMPT, SLOW = [0.01] * 100, [0.5] * 100


@pytest.mark.parametrize(
    ("load", "is_bottleneck", "words"),
    [
        (ClientLoad(wall=10, cpu=3, holds=PROMPT), False, "it used 30% of a core"),
        (ClientLoad(wall=10, cpu=9, holds=PROMPT), True, "it used 90% of a core while posting"),
        (ClientLoad(wall=10, cpu=3, starved=6, holds=PROMPT), True, "waited for a free one 60% of the time"),
        (ClientLoad(wall=10, cpu=3, lags=[0.001] * 90 + [0.08] * 10), True, "event loop was 80 ms late (p95)"),
        (ClientLoad(wall=10, cpu=1, waits=[2.0] * 100, holds=PROMPT), True, "give it more --connections"),
        (ClientLoad(wall=10, cpu=1, waits=[2.0] * 100, holds=SLOW), False, "because answers were slow"),
        # The server stood still for five seconds: 32 posts of 600 were slow, and all others waited behind them.
        (ClientLoad(wall=60, cpu=1, waits=[2.0] * 600, holds=[0.01] * 568 + [5.0] * 32), False, "answers were slow"),
        (ClientLoad(), False, "it used 0% of a core"),
    ],
)
def test_the_verdict_names_the_figure_that_it_follows_from(load: ClientLoad, is_bottleneck: bool, words: str) -> None:
    verdict = judge(load)
    assert verdict.is_bottleneck is is_bottleneck
    assert words in verdict.reason


@contextmanager
def a_server(directory: Path, seconds_per_answer: float) -> Iterator[str]:
    port = free_port()
    with ServerProcess(
        "prompt-server",
        [sys.executable, Path(__file__).with_name("prompt_server.py"), str(port), str(seconds_per_answer)],
        directory,
        ready=lambda: accepts_connections(port),
    ):
        yield f"http://127.0.0.1:{port}"


def verdict_on(url: str, out: Path, *arguments: str) -> dict[str, Any]:
    assert main(["--url", url, "--out", str(out), "--quiet", *arguments]) == 0
    client: dict[str, Any] = json.loads((out / "summary.json").read_text())["client"]
    return client


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="this system does not say who waits")
def test_a_server_that_is_faster_than_the_client_shows_the_client_as_the_bottleneck(tmp_path: Path) -> None:
    with a_server(tmp_path, 0) as url:
        client = verdict_on(url, tmp_path, "--tasks", "3000", "--rate", "0")
    assert client["is_bottleneck"], client
    assert "of a core" in client["reason"]


def test_a_server_that_is_slower_than_the_client_does_not(tmp_path: Path) -> None:
    with a_server(tmp_path, 0.2) as url:
        client = verdict_on(url, tmp_path, "--tasks", "300", "--rate", "0")
    assert not client["is_bottleneck"] or "this machine is busy" in client["reason"], client
    assert client["cpu_share"] < BUSY_SHARE / 2


def test_too_few_connections_are_the_clients_fault(tmp_path: Path) -> None:
    with a_server(tmp_path, 0.05) as url:
        client = verdict_on(url, tmp_path, "--tasks", "60", "--rate", "200", "--connections", "2")
    assert client["is_bottleneck"], client
    assert "--connections" in client["reason"] or "this machine is busy" in client["reason"]
