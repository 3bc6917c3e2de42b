"""POST /tasks/add: accept a task."""

from __future__ import annotations

from http import HTTPStatus

import functions_framework
from flask import Request, Response

from sluice import service
from sluice.http import Endpoint, answer, idempotency_key, message_headers, read_fields
from sluice.requests import read_new_task
from sluice.services import Services


def post(request: Request, services: Services) -> Response:
    new = read_new_task(read_fields(request))
    task = service.add_task(services, new, key=idempotency_key(request), headers=message_headers(request))
    return answer(task, HTTPStatus.ACCEPTED, location=f"/tasks/get/{task.id}")


endpoint = Endpoint("add_task", {"POST /tasks/add": post}, needs_queue=True)


@functions_framework.http
def add_task(request: Request) -> Response:
    return endpoint(request)
