"""How long an engine takes from its start until it consumes, and what it weighs then: `python -m bench.engine_start`.

Starts a private RabbitMQ and the wire database, then an engine a few times over. Prints medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pika

from tests.e2e.stack import Stack
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo

ROUNDS = 7


class NoModel:
    base_url = "http://127.0.0.1:9/v1"


def main() -> None:
    seconds, resident = [], []
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "rabbit").mkdir()
        (directory / "mongo").mkdir()
        with RabbitNode(directory / "rabbit") as rabbit, WireMongo(directory / "mongo") as mongo:
            stack = Stack(directory, rabbit, mongo, NoModel())  # type: ignore[arg-type]
            stack.start_engine()  # declares the queues, and warms the bytecode
            stack.close()
            connection = pika.BlockingConnection(pika.URLParameters(rabbit.url))
            channel = connection.channel()
            for _ in range(ROUNDS):
                started = time.monotonic()
                engine = subprocess.Popen(
                    [sys.executable, "-m", "functions.engine.main"],
                    env=stack.environment(PORT="0"),
                    cwd=stack.tree,
                    stderr=subprocess.DEVNULL,
                )
                while channel.queue_declare(stack.queue, passive=True).method.consumer_count == 0:
                    time.sleep(0.002)
                seconds.append(time.monotonic() - started)
                time.sleep(2)  # at rest: the sweep has had its first round
                status = Path(f"/proc/{engine.pid}/status").read_text()
                resident.append(int(next(line for line in status.splitlines() if "VmRSS" in line).split()[1]) / 1024)
                engine.terminate()
                engine.wait()
            connection.close()
    print(f"start to consuming: median {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s of {ROUNDS}")
    print(f"resident at rest:   median {statistics.median(resident):.0f} MB, worst {max(resident):.0f} MB")


if __name__ == "__main__":
    main()
