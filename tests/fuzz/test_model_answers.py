"""Whatever a model's server sends, byte for byte: code that can be stored, or a documented reason why there is none."""

from __future__ import annotations

import json
import math
import re
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from functions.engine.handler import Failed, Retry, Step
from functions.engine.kinds.code import run
from functions.engine.worker import Settled
from sluice.kinds.code import Inputs, Outputs, Usage
from sluice.task import Document, new_id
from tests.engine.doubles import Bench, message_of, without_model
from tests.examples import examples

#: Codes that docs/tasks.md lists.
DOCUMENTED = set(
    re.findall(r"`([a-z_]+)`", (Path(__file__).parents[2] / "docs/tasks.md").read_text().partition("## Error codes")[2])
)

TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([1e308, -1, 2**63, 10**100]) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
#: Pieces of Markdown, of which fences of every sort are made.
PIECES = st.lists(
    st.sampled_from(
        ["```", "````", "~~~", "```python", "``` python \n", "\n", "  ", "> ", "- ", "x = 1\n", "\\", "`", "\t"]
    )
    | TEXT,
    max_size=12,
).map("".join)


def chunk(**more: Any) -> Document:
    """A good piece of a stream, with something else in the place of its fields."""
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], **more}


def event_of(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode()


ERRORS = st.dictionaries(st.just("error"), VALUES | st.dictionaries(st.sampled_from(["code", "type"]), VALUES)).map(
    lambda error: json.dumps(error).encode()
)
ODD_HEADERS = {
    "Retry-After": (
        "1",
        "-1",
        "soon",
        "nan",
        "inf",
        "1e400",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "1 Jan 99999999999 00:00 GMT",
    ),
    "Content-Encoding": ("gzip", "deflate", "br", "nonsense"),
    "Location": ("", "/", "http://[", "file:///etc/passwd"),
}
TYPES = st.sampled_from(["text/event-stream", "text/event-stream; charset=utf-16", "application/json", "text/html", ""])

CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.just(0) | VALUES,
        "delta": st.fixed_dictionaries({}, optional={"content": PIECES | VALUES, "refusal": st.none() | VALUES})
        | VALUES,
        "finish_reason": st.sampled_from([None, "stop", "length", "content_filter", "tool_calls", "nonsense"]) | VALUES,
    },
)
TOKENS = st.sampled_from([0, 7, -1, 2**31, 2**63, 10**30, 1.5, "7", None])
USAGES = st.none() | VALUES | st.fixed_dictionaries(dict.fromkeys(Usage.model_fields, TOKENS), optional={"x": VALUES})
MODELS = st.just("m") | TEXT | VALUES | st.just("m" * 2_000_000)
CHUNKS = st.builds(chunk, choices=st.lists(CHOICES, max_size=2) | VALUES, usage=USAGES, model=MODELS)
#: What makes an answer good, in the middle of whatever else comes.
TEXTS = PIECES.map(lambda text: chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}]))
ENDS = st.builds(
    chunk, choices=st.just([{"index": 0, "delta": {}, "finish_reason": "stop"}]), usage=USAGES, model=MODELS
)
LINES = CHUNKS.map(event_of) | st.sampled_from(
    [b"data: [DONE]", b"data: null", b": comment", b"event: error", b"data:", b"data: {", b"id: 1", b"", b"\xff\xfe"]
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A stream of events: a good one, what is between the events of a good one, or no stream at all."""
    good = [event_of(draw(TEXTS)), event_of(draw(ENDS)), b"data: [DONE]"]
    match draw(st.sampled_from(["good", "good", "disturbed", "disturbed", "none"])):
        case "disturbed":
            place = draw(st.integers(0, len(good)))
            good[place:place] = draw(st.lists(LINES | st.binary(max_size=20), min_size=1, max_size=4))
        case "none":
            return draw(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()) | ERRORS)
    return draw(st.sampled_from([b"\n\n", b"\n\n", b"\r\n\r\n", b"\n"])).join([*good, b""])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """All that the server sends: head and body, whole or cut at any byte."""
    body = draw(bodies())
    status = draw(st.sampled_from([*[200] * 9, 204, 301, 400, 401, 404, 408, 418, 429, 500, 503, 599]))
    head = f"HTTP/1.1 {status} Some\r\nConnection: close\r\nContent-Type: {draw(TYPES)}\r\n"
    match draw(st.sampled_from([*["right"] * 6, "long", "short", "chunked", "none"])):
        case "right":
            head += f"Content-Length: {len(body)}\r\n"
        case "long":
            head += f"Content-Length: {len(body) + 10}\r\n"
        case "short":
            head += f"Content-Length: {len(body) // 2}\r\n"
        case "chunked":
            head += "Transfer-Encoding: chunked\r\n"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    for name, values in ODD_HEADERS.items():
        if draw(st.integers(0, 9)) == 0 or (name == "Retry-After" and status == 429):
            head += f"{name}: {draw(st.sampled_from(values))}\r\n"
    sent = head.encode() + b"\r\n" + body
    return sent[: len(sent) - draw(st.integers(0, len(sent)))] if draw(st.integers(0, 7)) == 0 else sent


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    answer = b""
    hangs_up = True


class Answering(socketserver.StreamRequestHandler):
    server: Server

    """Reads one request, sends exactly the bytes it is told, and hangs up, or not."""

    def handle(self) -> None:
        with suppress(OSError):
            length = 0
            while (line := self.rfile.readline()).strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.rfile.read(length)
            self.request.sendall(self.server.answer)
            if not self.server.hangs_up:
                self.request.recv(1)  # until the client has had enough


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def outcome(server: Server, seconds: float) -> Outputs | Failed | Retry:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    configured = without_model(openai_base_url=url, openai_api_key="sk-fuzz", openai_timeout_seconds=seconds)
    try:
        return run(Inputs(objective="Anything.", language="python"), Step(new_id(), configured))
    except (Failed, Retry) as error:
        return error


def assert_explains(error: Failed | Retry) -> None:
    event(error.code)
    assert error.code in DOCUMENTED
    assert error.message.encode()
    assert math.isfinite(getattr(error, "after", None) or 0)


def assert_can_be_stored(outputs: Outputs) -> None:
    event("code")
    assert outputs.code.strip()
    bench = Bench()
    task = bench.stored("code")
    assert bench.worker(lambda _inputs, _step: outputs).work(message_of(task)) == Settled()
    done = bench.now(task).document
    assert done["error"] is None
    assert Outputs.model_validate({name: done[name] for name in Outputs.model_fields}) == outputs


@given(answer=answers())
@examples(1_000)
def test_any_answer_gives_code_that_can_be_stored_or_a_documented_reason(server: Server, answer: bytes) -> None:
    server.answer, server.hangs_up = answer, True
    found = outcome(server, seconds=5)
    if isinstance(found, Outputs):
        assert_can_be_stored(found)
    else:
        assert_explains(found)
        assert found.code != "model_timeout", "it has hung up, and the client waits"


@given(answer=answers())
@settings(max_examples=20)
def test_a_server_that_does_not_hang_up_is_not_waited_for(server: Server, answer: bytes) -> None:
    server.answer, server.hangs_up = answer, False
    started = time.monotonic()
    found = outcome(server, seconds=0.3)
    assert time.monotonic() - started < 10
    if not isinstance(found, Outputs):
        assert_explains(found)
