"""The least that an engine of these packages can be: pika and pymongo, ten threads, and around each handler a claim and
a result in the database, then the acknowledgement.

It has no checks, no retries, no leases, no time limits, no health and no metrics, and it loses what meets a fault. What
it takes, everybody takes: it is measured to know what is left to gain. `python -m bench.peers.bare` does Sluice's
tasks. Reads RABBITMQ_URL, TASK_QUEUE, MONGODB_URI, MONGODB_DATABASE, HANDLER_SECONDS.
"""

import json
import os
import threading
from functools import partial
from queue import SimpleQueue
from typing import Any

import pika
import pymongo
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from bench.marks import mark

QUEUE, SECONDS, AT_ONCE = os.environ["TASK_QUEUE"], float(os.environ["HANDLER_SECONDS"]), 10

client = pymongo.MongoClient[dict[str, Any]](os.environ["MONGODB_URI"])
tasks = client[os.environ["MONGODB_DATABASE"]]["tasks"]
deliveries = SimpleQueue[tuple[int, bytes]]()


def work(connection: pika.SelectConnection, channel: Channel) -> None:
    while True:
        tag, body = deliveries.get()
        task_id = json.loads(body)["_id"]
        claim = {"$set": {"status": "running"}, "$inc": {"attempts": 1}}
        if tasks.update_one({"_id": task_id, "status": "pending"}, claim).matched_count:
            mark(task_id, SECONDS)
            result = {"$set": {"status": "completed", "message": "Hello"}}
            tasks.update_one({"_id": task_id, "status": "running"}, result)
        connection.ioloop.add_callback_threadsafe(partial(channel.basic_ack, tag))


def consume(connection: pika.SelectConnection, channel: Channel) -> None:
    def on_message(_channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
        deliveries.put((method.delivery_tag, body))

    for _ in range(AT_ONCE):
        threading.Thread(target=work, args=(connection, channel), daemon=True).start()
    channel.basic_qos(prefetch_count=AT_ONCE, callback=lambda _ok: channel.basic_consume(QUEUE, on_message))


def main() -> None:
    connection = pika.SelectConnection(
        pika.URLParameters(os.environ["RABBITMQ_URL"]),
        on_open_callback=lambda opened: opened.channel(on_open_callback=partial(consume, opened)),
    )
    connection.ioloop.start()


if __name__ == "__main__":
    main()
