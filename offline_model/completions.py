"""Answers one call to /v1/chat/completions: the right words at the right pace, or the fault that was asked for."""

import time
from dataclasses import dataclass, replace
from typing import Literal

from offline_model.chat import DONE, PIECES, Request, Shapes, error_body, event, pieces
from offline_model.script import QUICK, Rule
from offline_model.wire import Wire
from offline_model.writer import write

#: Shortest time between two writes of a stream, in seconds: pieces that fall due closer together travel together.
TICK_SECONDS = 0.01

#: Pieces that a quick stream aims at.
PIECES_AT_LEAST = 16

#: What OpenAI says for a status: (type, code, message).
STATUS_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request was not understood."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Not allowed here."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", None, "The engine is currently overloaded."),
}

REFUSAL = "I'm sorry, but I can't help with that."

PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><h1>Sign in to continue</h1></body></html>\n"

GARBAGE = b'{"choi'


@dataclass(frozen=True)
class Reply:
    """What will be said, and how it ends."""

    text: str
    finish_reason: str = "stop"
    refusal: bool = False
    ending: Literal["done", "hang", "cut"] = "done"


def complete(wire: Wire, request: Request, rule: Rule | None, seconds_per_answer: float) -> None:
    """Answer `request` on `wire` as `rule` says. Raises `ClientLeft` or `ServerStopped`."""
    fault = rule.fault if rule else None
    seconds = 0.0 if fault in QUICK else seconds_per_answer
    if rule and rule.seconds is not None:
        seconds = rule.seconds
    if fault == "hang":
        wire.wait(None)
    elif rule and fault in QUICK:
        wire.wait(seconds)
        _send_broken(wire, Shapes(request), rule)
    elif request.stream:
        _stream(wire, Shapes(request), _reply(request, rule), seconds)
    else:
        wire.wait(seconds)
        _send(wire, Shapes(request), _reply(request, rule))


def _reply(request: Request, rule: Rule | None) -> Reply:
    text = rule.answer if rule and rule.answer is not None else None
    fault = rule.fault if rule else None
    if fault == "refuse":
        return Reply(REFUSAL if text is None else text, refusal=True)
    if fault == "empty":
        return Reply("")
    whole = Reply(write(request.messages) if text is None else text)
    half = replace(whole, text=_half(whole.text))
    match fault:
        case "length" | "content_filter":
            return replace(half, finish_reason=fault)
        case "hang_midway":
            return replace(half, ending="hang")
        case "cut_off":
            return replace(half, ending="cut")
    return whole


def _half(text: str) -> str:
    parts = pieces(text)
    return "".join(parts[: -(-len(parts) // 2)])


def _stream(wire: Wire, shapes: Shapes, reply: Reply, seconds: float) -> None:
    field = "refusal" if reply.refusal else "content"
    # What is over in no time comes in fewer pieces: no one could see them, and every client has to read them.
    about = min(PIECES, max(PIECES_AT_LEAST, int(seconds / TICK_SECONDS)))
    events = [event(shapes.chunk({field: piece})) for piece in pieces(reply.text, about)]
    wire.wait(0)
    wire.open_stream(event(shapes.chunk({"role": "assistant", "content": None if reply.refusal else ""})))
    start = time.monotonic()
    sent = 0
    while sent < len(events):
        gap = seconds / len(events)
        passed = time.monotonic() - start
        due = len(events) if passed >= seconds else int(passed / gap) + 1
        wire.wait(0)
        wire.send_events(b"".join(events[sent:due]))
        sent = max(sent, due)
        if sent < len(events):
            wire.wait(max(start + sent * gap - time.monotonic(), TICK_SECONDS))
    wire.wait(max(start + seconds - time.monotonic(), 0))
    if _broke_off(wire, reply):
        return
    last = event(shapes.chunk({}, reply.finish_reason))
    if shapes.request.include_usage:
        last += event(shapes.usage_chunk(reply.text))
    wire.close_stream(last + DONE)


def _send(wire: Wire, shapes: Shapes, reply: Reply) -> None:
    value = shapes.completion(reply.text, reply.finish_reason, reply.refusal)
    if reply.ending == "done":
        wire.send_json(200, value)
        return
    wire.send_half(200, "application/json", event(value))
    _broke_off(wire, reply)


def _broke_off(wire: Wire, reply: Reply) -> bool:
    if reply.ending == "hang":
        wire.wait(None)
    if reply.ending == "cut":
        wire.keep_alive = False
    return reply.ending != "done"


def _send_broken(wire: Wire, shapes: Shapes, rule: Rule) -> None:
    stream = shapes.request.stream
    match rule.fault:
        case "status":
            kind, code, message = STATUS_ERRORS.get(rule.status, ("server_error", None, "The server had an error."))
            if rule.code is not None:
                # As OpenAI does for insufficient_quota: where the code is special, the type repeats it.
                kind = code = rule.code
            body = error_body(rule.message or message, rule.type or kind, code)
            headers = {} if rule.retry_after is None else {"Retry-After": f"{rule.retry_after:g}"}
            wire.send_json(rule.status, body, headers)
        case "html":
            wire.send(200, "text/html; charset=utf-8", PAGE)
        case "garbage" if stream:
            wire.open_stream(b"data: %b\n\n" % GARBAGE)
            wire.close_stream(b"")
        case "garbage":
            wire.send(200, "application/json", GARBAGE)
        case "no_choices" if stream:
            wire.open_stream(event(shapes.no_choices()))
            wire.close_stream(DONE)
        case _:
            wire.send_json(200, shapes.no_choices())
