"""The least that an engine of these packages can be: pika and pymongo, ten threads, and around each handler a claim and
a result in the database, then the acknowledgement. It connects while it imports.

It has no checks, no retries, no leases, no time limits, no health and no metrics, and it loses what meets a fault: what
Sluice's engine takes beyond it is the price of those. `python -m bench.peers.bare` does Sluice's tasks. Reads
RABBITMQ_URL, TASK_QUEUE, MONGODB_URI, MONGODB_DATABASE, HANDLER_SECONDS.
"""

import gc

if __name__ == "__main__":
    gc.disable()

import json
import os
import threading
from functools import partial
from queue import SimpleQueue
from typing import Any

import pika
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from bench.marks import mark

QUEUE, SECONDS, AT_ONCE = os.environ["TASK_QUEUE"], float(os.environ["HANDLER_SECONDS"]), 10

deliveries = SimpleQueue[tuple[Channel, int, bytes]]()


def on_message(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    deliveries.put((channel, method.delivery_tag, body))


def consume(channel: Channel) -> None:
    channel.basic_qos(prefetch_count=AT_ONCE, callback=lambda _ok: channel.basic_consume(QUEUE, on_message))


def work(tasks: Any) -> None:
    while True:
        channel, tag, body = deliveries.get()
        task_id = json.loads(body)["_id"]
        claim = {"$set": {"status": "running"}, "$inc": {"attempts": 1}}
        if tasks.update_one({"_id": task_id, "status": "pending"}, claim).matched_count:
            mark(task_id, SECONDS)
            result = {"$set": {"status": "completed", "message": "Hello"}}
            tasks.update_one({"_id": task_id, "status": "running"}, result)
        channel.connection.ioloop.add_callback_threadsafe(partial(channel.basic_ack, tag))


def main() -> None:
    connection = pika.SelectConnection(
        pika.URLParameters(os.environ["RABBITMQ_URL"]),
        on_open_callback=lambda opened: opened.channel(on_open_callback=consume),
    )
    serving = threading.Thread(target=connection.ioloop.start)
    serving.start()
    import pymongo

    client = pymongo.MongoClient[Any](os.environ["MONGODB_URI"])
    gc.freeze()
    gc.enable()
    tasks = client[os.environ["MONGODB_DATABASE"]]["tasks"]
    for _ in range(AT_ONCE):
        threading.Thread(target=work, args=(tasks,), daemon=True).start()
    serving.join()


if __name__ == "__main__":
    main()
