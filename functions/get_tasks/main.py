"""GET /tasks/get: a user's tasks, how they stand, one task, the kinds of task, and the document of all calls."""

from __future__ import annotations

import functions_framework
from flask import Request, Response

from sluice import service
from sluice.http import Endpoint, conditional, single_values
from sluice.requests import read_list_query, read_overview_query
from sluice.services import Services


def list_tasks(request: Request, services: Services) -> Response:
    return conditional(request, service.list_tasks(services.store, read_list_query(single_values(request.args))))


def show_overview(request: Request, services: Services) -> Response:
    return conditional(request, service.overview(services, read_overview_query(single_values(request.args))))


def get_task(request: Request, services: Services, task_id: str) -> Response:
    return conditional(request, service.get_task(services.store, task_id))


def list_kinds(request: Request, _services: Services) -> Response:
    return conditional(request, service.list_kinds())


def show_document(request: Request, _services: Services) -> Response:
    from sluice import openapi

    return conditional(request, openapi.document())


endpoint = Endpoint(
    "get_tasks",
    {
        "GET /tasks/get": list_tasks,
        "GET /tasks/get/overview": show_overview,
        "GET /tasks/get/kinds": list_kinds,
        "GET /tasks/get/openapi.json": show_document,
        "GET /tasks/get/<task_id>": get_task,
    },
)


@functions_framework.http
def get_tasks(request: Request) -> Response:
    return endpoint(request)
