"""Whatever a model's server sends, byte for byte: code that can be stored, or a documented reason why there is none."""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from functions.engine.handler import Failed, Retry, Step
from functions.engine.kinds.code import run
from sluice.kinds.code import Inputs, Outputs
from sluice.task import Document, new_id
from tests.engine.doubles import Bench, without_model
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


CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.just(0) | VALUES,
        "delta": st.fixed_dictionaries({}, optional={"content": PIECES | VALUES, "refusal": st.none() | VALUES})
        | VALUES,
        "finish_reason": st.sampled_from([None, "stop", "length", "content_filter", "tool_calls", "nonsense"]) | VALUES,
    },
)
CHUNKS = st.builds(
    chunk,
    choices=st.lists(CHOICES, max_size=2) | VALUES,
    usage=st.none()
    | st.dictionaries(st.sampled_from(["prompt_tokens", "total_tokens", "x"]), VALUES, max_size=3)
    | VALUES,
    model=st.just("m") | VALUES,
)
#: A stream that has everything: the rest is what comes between.
TEXTS = PIECES.map(lambda text: chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}]))
ENDS = st.just(chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
LINES = (
    (CHUNKS | TEXTS | ENDS | VALUES).map(lambda data: b"data: " + json.dumps(data).encode("utf-8", "surrogatepass"))
    | st.sampled_from(
        [b"data: [DONE]", b": comment", b"event: error", b"data:", b"data: {", b"id: 1", b"", b"\xff\xfe"]
    )
    | st.binary(max_size=20)
)
STREAMS = st.lists(LINES, max_size=6).map(lambda lines: b"".join(line + b"\n\n" for line in lines))
WHOLE = st.tuples(TEXTS, ENDS).map(
    lambda parts: b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts) + b"data: [DONE]\n\n"
)
PAUSES = ("1", "-1", "soon", "nan", "1e400", "Fri, 31 Dec 9999 23:59:59 GMT")
TYPES = st.sampled_from(["text/event-stream", "text/event-stream; charset=utf-8", "application/json", "text/html", ""])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """All that the server sends: head and body, whole or cut at any byte."""
    body = draw(WHOLE | STREAMS | STREAMS | st.binary(max_size=60))
    status = draw(st.sampled_from([200, 200, 200, 200, 200, 204, 301, 400, 401, 404, 408, 418, 429, 500, 503, 599]))
    head = f"HTTP/1.1 {status} Some\r\nConnection: close\r\nContent-Type: {draw(TYPES)}\r\n"
    length = draw(st.sampled_from([len(body), len(body), len(body) + 10, max(0, len(body) - 1), None]))
    if length is not None:
        head += f"Content-Length: {length}\r\n"
    if draw(st.booleans()):
        head += f"Retry-After: {draw(st.sampled_from(PAUSES))}\r\n"
    sent = head.encode() + b"\r\n" + body
    return sent[: draw(st.integers(0, len(sent)))] if draw(st.integers(0, 4)) == 0 else sent


class Answering(socketserver.BaseRequestHandler):
    """Reads one request, sends exactly the bytes it is told, and hangs up."""

    def handle(self) -> None:
        with suppress(OSError), self.request.makefile("rb") as request:
            length = 0
            while (line := request.readline()).strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            request.read(length)
            self.request.sendall(self.server.answer)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def server() -> Iterator[socketserver.ThreadingTCPServer]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def outcome(step: Step) -> Outputs | Failed | Retry:
    try:
        return run(Inputs(objective="Anything.", language="python"), step)
    except (Failed, Retry) as error:
        return error


@given(answer=answers())
@examples(1_000)
def test_any_answer_gives_code_or_a_documented_reason(server: socketserver.ThreadingTCPServer, answer: bytes) -> None:
    server.answer = answer  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    settings = without_model(openai_base_url=url, openai_api_key="sk-fuzz", openai_timeout_seconds=5)
    outputs = outcome(Step(new_id(), settings))
    if isinstance(outputs, Failed | Retry):
        event(outputs.code)
        assert outputs.code in DOCUMENTED
        assert outputs.code != "model_timeout", "it has hung up, and the client waits"
        assert outputs.message.encode()
        return
    event("code")
    assert outputs.code.strip()
    bench = Bench()
    task = bench.stored("code", **outputs.model_dump(mode="json"))
    assert Outputs.model_validate({name: bench.now(task).document[name] for name in Outputs.model_fields}) == outputs
