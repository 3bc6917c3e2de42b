"""pika's own example of a worker: a blocking connection, a prefetch, an acknowledgement after the work.

https://www.rabbitmq.com/tutorials/tutorial-two-python · `python -m bench.peers.pika_worker` does `flask_pika`'s tasks.
"""

import json
import os

import pika

from bench.marks import mark

QUEUE = os.environ["TASK_QUEUE"]


def main() -> None:
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])).channel()
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_qos(prefetch_count=10)

    def on_message(_channel: object, method: pika.spec.Basic.Deliver, _properties: object, body: bytes) -> None:
        mark(json.loads(body)["id"].replace("-", ""))
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(QUEUE, on_message)
    channel.start_consuming()


if __name__ == "__main__":
    main()
