"""Adds at a steady rate, whatever the answers do, and when each of them was sent and answered.

`python -m bench.paced URL --rate 200 --seconds 4 --answers FILE` writes a line for each accepted task: its id, and the
moments at which it was sent and at which its answer had arrived (CLOCK_MONOTONIC, as the workers' marks). It is a
process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from bench import load
from bench.figures import Wrong
from bench.lab import ROOT


class NotingClient(load.Client):
    """Knows when each task was sent, and when its answer came."""

    moments: list[tuple[float, float, bytes]]

    def answered(self, since: float, status: bytes, body: bytes) -> None:
        now = time.perf_counter()  # on Linux the same clock as time.monotonic()
        super().answered(since, status, body)
        if status == b"202":
            self.moments.append((since, now, body))


def paced(url: str, rate: float, seconds: float, answers: Path) -> dict[str, tuple[float, float]]:
    """When each task was sent and when it was answered, by its id in 32 hexadecimal digits. Raises Wrong unless all
    were accepted."""
    given = ["--rate", str(rate), "--seconds", str(seconds), "--answers", str(answers)]
    command = [sys.executable, "-m", "bench.paced", url, *given]
    subprocess.run(command, cwd=ROOT, check=True, timeout=seconds + load.PATIENCE_SECONDS + 30)
    found = {}
    for line in answers.read_text().splitlines():
        task_id, sent, answered = line.split()
        found[task_id] = float(sent), float(answered)
    if len(found) != int(rate * seconds):
        raise Wrong(f"{len(found)} of {int(rate * seconds)} adds were accepted")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.paced", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--answers", type=Path, required=True)
    given = parser.parse_args()
    gc.disable()  # a collection here would count as the server's slowness
    NotingClient.moments = []
    load.Client = NotingClient  # type: ignore[misc]
    body = load.body_of(None)
    client, _ = uvloop.run(load.run(given.url, body, load.STEADY_CONNECTIONS, given.seconds, None, given.rate))
    if errors := {reason: count for reason, count in client.errors.items() if count}:
        print(f"bench.paced: {json.dumps(errors)}", file=sys.stderr)
    with given.answers.open("w") as answers:
        for sent, answered, body in NotingClient.moments:
            for task_id in load.ids_in([body]):
                answers.write(f"{task_id.replace('-', '')} {sent!r} {answered!r}\n")


if __name__ == "__main__":
    main()
