"""The Celery app with tasks that leave a mark: `celery -A bench.peers.celery_marks worker` does the tasks, `python -m
bench.peers.celery_marks COUNT SECONDS BYTES` sends them."""

import sys
from typing import Any

from bench.marks import mark
from bench.peers.celery_app import app

app.finalize()
app.tasks.unregister("code")  # what `fastapi_celery` sends: here it leaves a mark


@app.task(name="code", bind=True)
def code(self: Any, user_id: str, objective: str, language: str) -> None:  # noqa: ARG001 - a task like Sluice's
    mark(self.request.id.replace("-", ""))


@app.task(name="marked")
def marked(task_id: str, seconds: float, text: str) -> None:  # noqa: ARG001 - the text is what makes a message large
    mark(task_id, seconds)


if __name__ == "__main__":
    with app.producer_or_acquire() as producer:
        for number in range(int(sys.argv[1])):
            marked.apply_async((f"{number:032x}", float(sys.argv[2]), "x" * int(sys.argv[3])), producer=producer)
