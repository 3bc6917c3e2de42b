"""A function as Flask serves it: in `make run`, under `functions-framework`, and in any WSGI server."""

from __future__ import annotations

import io
from http import HTTPStatus

import flask
from werkzeug.exceptions import ClientDisconnected, HTTPException, MethodNotAllowed, NotFound
from werkzeug.wsgi import get_input_stream

from sluice import waiting
from sluice.errors import InvalidRequest
from sluice.http import NOT_THIS_METHOD, NOTHING_HERE, Answer, Body, Call, Endpoint, problem


def respond(endpoint: Endpoint, request: flask.Request) -> flask.Response:
    """Answer a call of a function."""
    return _response(waiting.run(endpoint.respond(_call(request))))


def answer_refusals(endpoint: Endpoint) -> None:
    """Some calls the framework refuses by itself (of `/robots.txt`, or of a path with a line break): have the app that
    is being made leave the answer to the function."""
    if flask.has_app_context():
        flask.current_app.register_error_handler(HTTPException, lambda _error: respond(endpoint, flask.request))


def problem_of(error: HTTPException) -> flask.Response:
    """An error of werkzeug, in words that don't depend on its version."""
    status = HTTPStatus(error.code or 500)
    details = {NotFound: NOTHING_HERE, MethodNotAllowed: NOT_THIS_METHOD}
    answer = problem(status, details.get(type(error), status.description or status.phrase))
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        answer.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return _response(answer)


def _call(request: flask.Request) -> Call:
    body, fault = _read(request)
    request.stream = io.BytesIO()  # nobody must read it again: the framework does, after each answer
    headers = {name.lower(): value for name, value in request.headers.items()}
    query = request.query_string.decode(errors="replace")
    return Call(request.method, request.path, query, headers, body, fault)


def _read(request: flask.Request) -> tuple[bytes, InvalidRequest | None]:
    body = Body()
    try:
        stream = get_input_stream(request.environ)
        while (piece := stream.read(65536)) and body.add(piece):
            pass
    except (ClientDisconnected, OSError):
        return Body.broken_off()
    return body.whole()


def _response(answer: Answer) -> flask.Response:
    response = flask.Response(answer.body, answer.status, answer.headers)
    response.autocorrect_location_header = False
    if answer.status == HTTPStatus.NOT_MODIFIED:
        del response.headers["Content-Type"]
    return response
