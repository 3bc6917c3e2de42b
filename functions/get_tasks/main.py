"""GET /tasks/get: a user's tasks, how they stand, one task, the kinds of task, and the document of all calls."""

from __future__ import annotations

import functions_framework
from flask import Request, Response

from sluice import async_door, flask_door, service
from sluice.http import Answer, Call, Endpoint, conditional
from sluice.requests import read_list_query, read_overview_query
from sluice.services import Services


def list_tasks(call: Call, services: Services) -> Answer:
    return conditional(call, service.list_tasks(services.store, read_list_query(call.arguments)))


def show_overview(call: Call, services: Services) -> Answer:
    return conditional(call, service.overview(services, read_overview_query(call.arguments)))


def get_task(call: Call, services: Services, task_id: str) -> Answer:
    return conditional(call, service.get_task(services.store, task_id))


def list_kinds(call: Call, _services: Services) -> Answer:
    return conditional(call, service.list_kinds())


def show_document(call: Call, _services: Services) -> Answer:
    from sluice import openapi

    return conditional(call, openapi.document())


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
flask_door.answer_refusals(endpoint)


@functions_framework.http
def get_tasks(request: Request) -> Response:
    """The function, as Flask serves it."""
    return flask_door.respond(endpoint, request)


async def get_tasks_async(request: object) -> object:
    """The function, as the framework's async mode serves it."""
    return await async_door.respond(endpoint, request)
