"""Celery as its documentation recommends for a quorum queue: durable, persistent, and confirmed if CONFIRM is not 0.

https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html#using-quorum-queues
Reads RABBITMQ_URL and TASK_QUEUE. `celery -A bench.peers.celery_app worker` does the tasks.
"""

import os
import time

from celery import Celery
from kombu import Queue

QUEUE = os.environ["TASK_QUEUE"]

app = Celery("peer", broker=os.environ["RABBITMQ_URL"])
app.conf.update(
    task_default_queue=QUEUE,
    task_default_queue_type="quorum",
    task_queues=[Queue(QUEUE, durable=True, queue_arguments={"x-queue-type": "quorum"})],
    # Publisher confirms are off unless one asks for them.
    broker_transport_options={"confirm_publish": os.environ.get("CONFIRM", "1") != "0"},
    task_ignore_result=True,
    task_acks_late=True,
    worker_detect_quorum_queues=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="code")
def code(user_id: str, objective: str, language: str) -> None:
    """A task like Sluice's, that does nothing."""


@app.task(name="no-op")
def no_op(*_: object) -> None:
    """Nothing."""


@app.task(name="sleep")
def sleep(seconds: float) -> None:
    time.sleep(seconds)
