"""Flask with a connection to RabbitMQ for each request, what tutorials do: declare, confirm, publish, close.

`gunicorn -w 2 -k gthread --threads 8 bench.peers.flask_pika:app`. With MONGODB_URI it keeps the task in a collection.
"""

import json
import os
import uuid
from datetime import UTC, datetime

import pika
from flask import Flask, request
from pymongo import MongoClient

app = Flask(__name__)
QUEUE = os.environ["TASK_QUEUE"]
PARAMETERS = pika.URLParameters(os.environ["RABBITMQ_URL"])
tasks = MongoClient(os.environ["MONGODB_URI"])["peer"]["tasks"] if "MONGODB_URI" in os.environ else None


@app.post("/tasks/add")
def add() -> tuple[dict[str, str], int]:
    task = request.get_json()
    task_id = str(uuid.uuid4())
    if tasks is not None:
        tasks.insert_one({"_id": task_id, "status": "pending", "created_at": datetime.now(UTC), **task})
    connection = pika.BlockingConnection(PARAMETERS)
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    channel.confirm_delivery()
    channel.basic_publish(
        "",
        QUEUE,
        json.dumps({"id": task_id, **task}),
        pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent, message_id=task_id),
        mandatory=True,
    )
    connection.close()
    return {"id": task_id}, 202


@app.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}
