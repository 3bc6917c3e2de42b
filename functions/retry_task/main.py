"""POST /tasks/retry/<id>: start a finished task again."""

from __future__ import annotations

from http import HTTPStatus

import functions_framework
from flask import Request, Response

from sluice import service
from sluice.http import Endpoint, answer, message_headers
from sluice.services import Services


def post(request: Request, services: Services, task_id: str) -> Response:
    task = service.retry_task(services, task_id, message_headers(request))
    return answer(task, HTTPStatus.ACCEPTED, location=f"/tasks/get/{task.id}")


endpoint = Endpoint("retry_task", {"POST /tasks/retry/<task_id>": post}, needs_queue=True)


@functions_framework.http
def retry_task(request: Request) -> Response:
    return endpoint(request)
