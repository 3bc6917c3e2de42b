"""POST /tasks/retry/<id>: start a finished task again."""

from __future__ import annotations

from http import HTTPStatus

import functions_framework
from flask import Request, Response

from sluice import async_door, flask_door, service
from sluice.http import Answer, Call, Endpoint, answer, message_headers
from sluice.services import Services


def post(call: Call, services: Services, task_id: str) -> Answer:
    task = service.retry_task(services, task_id, message_headers(call))
    return answer(task, HTTPStatus.ACCEPTED, location=f"/tasks/get/{task.id}")


endpoint = Endpoint("retry_task", {"POST /tasks/retry/<task_id>": post}, needs_queue=True)
flask_door.answer_refusals(endpoint)


@functions_framework.http
def retry_task(request: Request) -> Response:
    """The function, as Flask serves it."""
    return flask_door.respond(endpoint, request)


async def retry_task_async(request: object) -> object:
    """The function, as the framework's async mode serves it."""
    return await async_door.respond(endpoint, request)
