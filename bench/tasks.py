"""The tasks that wait before something is measured: numbered ones, sent the way each contender sends them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta

import pymongo

from sluice.broker import Message, Topology
from sluice.kinds import kinds
from sluice.rabbit import RabbitTaskBroker
from sluice.task import Document, Task, new_task, utc_now

#: Longer than any measurement: nothing expires meanwhile.
TTL_SECONDS = 3600

#: When all of them were added: a task is the same wherever it is put.
BEGUN = utc_now()

#: Bytes that are on their way at once; the publisher takes 32 MiB.
IN_FLIGHT_BYTES = 8 * 1024 * 1024


def task_id(number: int) -> str:
    return f"{number:032x}"


def sluice_task(number: int, text_bytes: int = 0) -> Task:
    """A task as `add` makes it; its text has so many bytes, but at least a few."""
    return _task(number, "message", {"text": "Hello, Sluice.".ljust(text_bytes, ".")})


def sluice_code_task(number: int) -> Task:
    """A task for the model."""
    inputs = {"objective": "Create a function that sums up three numbers.", "language": "python"}
    return _task(number, "code", inputs)


def _task(number: int, kind: str, inputs: Document) -> Task:
    task = new_task(
        task_id=task_id(number),
        user_id="ada",
        kind=kind,
        inputs=inputs,
        outputs=kinds()[kind].blank_outputs(),
        now=BEGUN,
        ttl=timedelta(days=1),
    )
    return task.replace(queued_at=BEGUN)


def send(rabbitmq_url: str, queue: str, tasks: Iterator[Task]) -> None:
    """Send them through Sluice's own publisher, confirmed, and pipelined."""
    broker = RabbitTaskBroker(rabbitmq_url, Topology(queue, TTL_SECONDS), name="bench", timeout=60)
    try:
        while True:
            futures, size = [], 0
            for task in itertools.islice(tasks, 2_000):
                message = Message(task.id, task.to_message())
                futures.append(broker.send(message, broker.topology.tasks))
                size += len(message.body)
                if size > IN_FLIGHT_BYTES:
                    break
            if not futures:
                return
            for future in futures:
                future.result(60)
    finally:
        broker.close()


def store(mongodb_uri: str, database: str, tasks: Iterator[Task]) -> None:
    """Put them into the database, in large portions."""
    with pymongo.MongoClient(mongodb_uri) as client:
        while portion := [task.document for task in itertools.islice(tasks, 500)]:
            client[database]["tasks"].insert_many(portion)
