"""GET /tasks/get: a user's tasks, one task, the kinds of task that there are, and the document of all calls."""

from __future__ import annotations

import functions_framework
from flask import Request, Response

from sluice import service
from sluice.http import Endpoint, answer, conditional, single_values
from sluice.kinds import kinds
from sluice.requests import read_list_query
from sluice.services import Services


def list_tasks(request: Request, services: Services) -> Response:
    query = read_list_query(single_values(request.args))
    return conditional(request, answer(service.list_tasks(services.store, query)))


def get_task(request: Request, services: Services, task_id: str) -> Response:
    return conditional(request, answer(service.get_task(services.store, task_id)))


def list_kinds(request: Request, _services: Services) -> Response:
    return conditional(request, answer({"kinds": [kind.schema() for kind in kinds().values()]}))


def show_document(request: Request, _services: Services) -> Response:
    from sluice import openapi

    return conditional(request, answer(openapi.document()))


endpoint = Endpoint(
    "get_tasks",
    {
        "GET /tasks/get": list_tasks,
        "GET /tasks/get/kinds": list_kinds,
        "GET /tasks/get/openapi.json": show_document,
        "GET /tasks/get/<task_id>": get_task,
    },
)


@functions_framework.http
def get_tasks(request: Request) -> Response:
    return endpoint(request)
