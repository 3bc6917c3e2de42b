"""dramatiq as its documentation recommends: one broker, an actor, the default middleware; its queue is a quorum queue.

https://dramatiq.io/guide.html · `dramatiq bench.peers.dramatiq_app` does the tasks, `python -m bench.peers.dramatiq_app
COUNT SECONDS BYTES` sends them. Reads RABBITMQ_URL, TASK_QUEUE, CONFIRM (1 for publisher confirms, which are off unless
one asks for them).
"""

import os
import sys
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench.marks import mark

QUEUE = os.environ["TASK_QUEUE"]


class QuorumBroker(RabbitmqBroker):
    """The broker has no setting for the type of its queues."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


broker = QuorumBroker(url=os.environ["RABBITMQ_URL"], confirm_delivery=os.environ.get("CONFIRM", "0") == "1")
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE)
def marked(task_id: str, seconds: float, text: str) -> None:  # noqa: ARG001 - the text is what makes a message large
    mark(task_id, seconds)


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        marked.send(f"{number:032x}", float(sys.argv[2]), "x" * int(sys.argv[3]))
    broker.close()
