"""POST /tasks/cancel/<id>: cancel a task that is not finished."""

from __future__ import annotations

import functions_framework
from flask import Request, Response

from sluice import async_door, flask_door, service
from sluice.http import Answer, Call, Endpoint, answer
from sluice.services import Services


def post(_call: Call, services: Services, task_id: str) -> Answer:
    return answer(service.cancel_task(services.store, task_id))


endpoint = Endpoint("cancel_task", {"POST /tasks/cancel/<task_id>": post})
flask_door.answer_refusals(endpoint)


@functions_framework.http
def cancel_task(request: Request) -> Response:
    """The function, as Flask serves it."""
    return flask_door.respond(endpoint, request)


async def cancel_task_async(request: object) -> object:
    """The function, as the framework's async mode serves it."""
    return await async_door.respond(endpoint, request)
