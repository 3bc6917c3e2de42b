"""FastAPI in front of Celery, the usual gateway: a plain `def`, because `.delay` blocks (FastAPI then runs it in its
threadpool: https://fastapi.tiangolo.com/async/).

`uvicorn --workers 2 bench.peers.fastapi_celery:app`. With MONGODB_URI it keeps the task in a collection before it sends
it, as a service does that people can ask about their task.
"""

import os
import uuid
from datetime import UTC, datetime

from fastapi import FastAPI
from pydantic import BaseModel
from pymongo import MongoClient

from bench.peers.celery_app import code

app = FastAPI()
tasks = MongoClient(os.environ["MONGODB_URI"])["peer"]["tasks"] if "MONGODB_URI" in os.environ else None


class Task(BaseModel):
    user_id: str
    objective: str
    language: str


@app.post("/tasks/add", status_code=202)
def add(task: Task) -> dict[str, str]:
    task_id = str(uuid.uuid4())
    if tasks is not None:
        tasks.insert_one({"_id": task_id, "status": "pending", "created_at": datetime.now(UTC), **task.model_dump()})
    # What `.delay` does, with an id that the collection knows already.
    code.apply_async((task.user_id, task.objective, task.language), task_id=task_id)
    return {"id": task_id}


@app.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}
