"""POST /tasks/add: accept a task."""

from __future__ import annotations

from http import HTTPStatus

import functions_framework
from flask import Request, Response

from sluice import async_door, flask_door, service
from sluice.http import Answer, Call, Endpoint, answer, idempotency_key, message_headers, read_fields
from sluice.requests import read_new_task
from sluice.services import Services


async def post(call: Call, services: Services) -> Answer:
    new = read_new_task(read_fields(call))
    task = await service.add_task(services, new, key=idempotency_key(call), headers=message_headers(call))
    return answer(task, HTTPStatus.ACCEPTED, location=f"/tasks/get/{task.id}")


endpoint = Endpoint("add_task", {"POST /tasks/add": post}, needs_queue=True)
flask_door.answer_refusals(endpoint)


@functions_framework.http
def add_task(request: Request) -> Response:
    """The function, as Flask serves it."""
    return flask_door.respond(endpoint, request)


async def add_task_async(request: object) -> object:
    """The function, as the framework's async mode serves it."""
    return await async_door.respond(endpoint, request)
