"""One publisher, as a program, so that its interpreter is its own: `python -m bench.publishers NAME THREADS SECONDS`.

Each thread sends 400-byte messages to TASK_QUEUE at RABBITMQ_URL, one after the other, for that long, and the program
prints what it found as JSON. With `--until-refused` it sends from one thread until the queue refuses, and says whether
it got to know of that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable

import pika

from bench.confirms import ATTEMPTS
from bench.figures import CPU_OF, percentile
from bench.lab import thread_seconds

#: Bytes of a message's body, and of the text in it for those who wrap it.
BODY_BYTES, TEXT_BYTES = 400, 300

#: The name of the threads that send.
CALLER = "caller"

#: Sends one message, and returns when its publisher says that it is sent.
Send = Callable[[], object]


def sluice() -> Send:
    """One broker for all threads, as in a function."""
    import bench.threads  # noqa: F401 - it acts by its import
    from sluice.broker import Message, Topology
    from sluice.rabbit import RabbitTaskBroker

    broker = RabbitTaskBroker(os.environ["RABBITMQ_URL"], Topology(os.environ["TASK_QUEUE"]))
    queue, body = broker.topology.tasks, b"x" * BODY_BYTES
    return lambda: broker.send(Message(uuid.uuid4().hex, body), queue).result(30)


def celery() -> Send:
    """`.delay`; CONFIRM says whether with publisher confirms."""
    from bench.peers.celery_app import no_op

    text = "x" * TEXT_BYTES
    return lambda: no_op.delay(text)


def dramatiq() -> Send:
    """`send`, with CONFIRM=1."""
    from bench.peers.dramatiq_app import marked

    text = "x" * TEXT_BYTES
    return lambda: marked.send(uuid.uuid4().hex, 0.0, text)


def connection_per_message() -> Send:
    def send() -> None:
        connection, publish = _channel()
        publish()
        connection.close()

    return send


def connection_per_thread() -> Send:
    mine = threading.local()

    def send() -> None:
        if not hasattr(mine, "publish"):
            _, mine.publish = _channel()
        mine.publish()

    return send


def _channel() -> tuple[pika.BlockingConnection, Send]:
    """pika as its examples have it: declare, confirm, publish."""
    queue = os.environ["TASK_QUEUE"]
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.confirm_delivery()
    body, properties = b"x" * BODY_BYTES, pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    return connection, lambda: channel.basic_publish("", queue, body, properties, mandatory=True)


PUBLISHERS = {made.__name__: made for made in (sluice, celery, dramatiq, connection_per_message, connection_per_thread)}


def measure(send: Send, threads: int, seconds: float) -> dict[str, float]:
    """Messages and latencies of that many threads. Raises what a send raises."""
    send()  # declares the queue: many who declare a new quorum queue at once get to it before it can take anything
    barrier = threading.Barrier(threads + 1)
    latencies: list[list[float]] = [[] for _ in range(threads)]
    faults: list[BaseException] = []
    ending = 0.0

    def work(mine: list[float]) -> None:
        try:
            send()  # makes the thread's connection
            barrier.wait()
            barrier.wait()
            while (started := time.perf_counter()) < ending:
                send()
                mine.append(time.perf_counter() - started)
        except BaseException as error:
            faults.append(error)
            barrier.abort()

    workers = [threading.Thread(target=work, args=(mine,), name=CALLER, daemon=True) for mine in latencies]
    for worker in workers:
        worker.start()
    try:
        barrier.wait(60)
        before, cpu, started = thread_seconds(os.getpid()), time.process_time(), time.perf_counter()
        ending = started + seconds
        barrier.wait(60)
        for worker in workers:
            worker.join()
        taken, cpu = time.perf_counter() - started, time.process_time() - cpu
    except threading.BrokenBarrierError:
        raise faults[0] if faults else TimeoutError("a thread did not begin") from None
    if faults:
        raise faults[0]
    found = [latency for mine in latencies for latency in mine]
    # The calling threads have ended: theirs is what nobody else has spent.
    after = thread_seconds(os.getpid())
    others = {name: after[name] - spent for name, spent in before.items() if name in after and name != CALLER}
    return {
        "/s": len(found) / taken,
        "p50": percentile(found, 0.5) * 1000,
        "p99": percentile(found, 0.99) * 1000,
        "cpu": cpu / len(found) * 1e6,
        "messages": len(found) + threads + 1,
        **{f"{CPU_OF}{name}": spent / len(found) * 1e6 for name, spent in others.items()},
        f"{CPU_OF}the calling threads": (cpu - sum(others.values())) / len(found) * 1e6,
    }


def until_refused(send: Send) -> dict[str, float]:
    """Whether it was told of a refusal, and how many messages later."""
    for count in range(ATTEMPTS):
        try:
            send()
        except Exception as error:
            print(f"refused after {count}: {type(error).__name__}", file=sys.stderr)
            return {"refused": 1, "messages": count}
    return {"refused": 0, "messages": ATTEMPTS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.publishers", description=__doc__)
    parser.add_argument("name", choices=PUBLISHERS)
    parser.add_argument("threads", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--until-refused", action="store_true")
    given = parser.parse_args()
    send = PUBLISHERS[given.name]()
    found = until_refused(send) if given.until_refused else measure(send, given.threads, given.seconds)
    json.dump(found, sys.stdout)
    sys.stdout.flush()
    time.sleep(0.2 if os.environ["CONFIRM"] == "0" else 0)  # an end at once could take back what is on its way
    os._exit(0)  # a publisher's goodbye is not measured


if __name__ == "__main__":
    main()
