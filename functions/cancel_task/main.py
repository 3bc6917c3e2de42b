"""POST /tasks/cancel/<id>: cancel a task that is not finished."""

from __future__ import annotations

import functions_framework
from flask import Request, Response

from sluice import service
from sluice.http import Endpoint, answer
from sluice.services import Services


def post(_request: Request, services: Services, task_id: str) -> Response:
    return answer(service.cancel_task(services.store, task_id))


endpoint = Endpoint("cancel_task", {"POST /tasks/cancel/<task_id>": post})


@functions_framework.http
def cancel_task(request: Request) -> Response:
    return endpoint(request)
