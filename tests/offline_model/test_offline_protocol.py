"""The protocol, as OpenAI's own package and bare sockets see it."""

import asyncio
import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from offline_model import OfflineModel

ASK = [
    {"role": "system", "content": "You write code."},
    {"role": "user", "content": "Language: python\n\nadd 3 numbers"},
]
BODY = {"model": "any", "messages": ASK}


def call(model: OfflineModel, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict]:
    """Status and JSON of one request; `path` is below the server's root."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    url = model.base_url.removesuffix("/v1") + path
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_whole_answer_reads_as_openais(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-x", messages=ASK)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert abs(answer.created - time.time()) < 60
    assert answer.model == "offline-model"
    (choice,) = answer.choices
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert choice.message.refusal is None
    assert "```python\n" in choice.message.content
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id.startswith("req_")


def test_a_streamed_answer_is_the_whole_one_in_small_pieces(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="m", messages=ASK).choices[0].message.content
    with client.chat.completions.create(model="m", messages=ASK, stream=True) as stream:
        chunks = list(stream)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {"offline-model"}
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == whole
    assert len(pieces) > 10
    assert max(map(len, pieces)) < 80
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_last_when_it_is_asked_for(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    with client.chat.completions.create(model="m", messages=ASK, stream=True, stream_options=options) as stream:
        *others, last = stream
    assert last.choices == []
    assert last.usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in others)


def test_the_async_client_gets_both_kinds(model: OfflineModel) -> None:
    async def both() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=model.base_url, api_key="none", max_retries=0) as client:
            whole = await client.chat.completions.create(model="m", messages=ASK)
            text = ""
            async with await client.chat.completions.create(model="m", messages=ASK, stream=True) as stream:
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
            return whole.choices[0].message.content, text

    whole, streamed = asyncio.run(both())
    assert whole == streamed
    assert model.closed_early() == 0


def test_the_bytes_of_a_stream_are_server_sent_events(model: OfflineModel) -> None:
    request = urllib.request.Request(f"{model.base_url}/chat/completions", json.dumps(BODY | {"stream": True}).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        events = response.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: "))["choices"] for event in events[:-2])


def test_a_stream_takes_the_time_it_is_told(model: OfflineModel, client: openai.OpenAI) -> None:
    model.script([{"seconds": 2}])
    start = time.monotonic()
    with client.chat.completions.create(model="m", messages=ASK, stream=True) as stream:
        times = [time.monotonic() - start for _ in stream]
    assert times[0] < 1.5
    assert 1.9 < times[-1] < 5
    assert len({round(moment, 2) for moment in times}) > 5


def test_content_may_come_in_parts(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "add three"}, {"type": "text", "text": "numbers"}]
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content.startswith("Sum up three numbers")


def test_one_connection_serves_many_requests(model: OfflineModel) -> None:
    host = model.base_url.removeprefix("http://").removesuffix("/v1")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.connect()
    first = connection.sock
    for stream in (False, True, False, True):
        connection.request("POST", "/v1/chat/completions", json.dumps(BODY | {"stream": stream}))
        assert connection.getresponse().read()
        assert connection.sock is first
    connection.close()


def test_an_http_1_0_client_gets_a_stream_without_chunks(model: OfflineModel) -> None:
    host, port = model.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps(BODY | {"stream": True}).encode()
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        received = b"".join(iter(lambda: plain.recv(65536), b""))
    head, _, events = received.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert events.startswith(b"data: {")
    assert events.endswith(b"data: [DONE]\n\n")


def test_models_and_health_are_served(model: OfflineModel, client: openai.OpenAI) -> None:
    assert [entry.id for entry in client.models.list()] == ["offline-model"]
    assert call(model, "GET", "/healthz") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b'{"model"', None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b"9" * 10_000, None),
        ([], None),
        ({"messages": ASK}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": "hello"}, "messages"),
        ({"model": "m", "messages": ["hello"]}, "messages[0]"),
        ({"model": "m", "messages": [{"content": "hello"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        (BODY | {"stream": "yes"}, "stream"),
        (BODY | {"stream_options": {"include_usage": True}}, "stream_options"),
        (BODY | {"stream": True, "stream_options": 1}, "stream_options"),
    ],
)
def test_a_bad_request_is_refused_in_openais_shape(model: OfflineModel, body: object, param: str | None) -> None:
    status, answer = call(model, "POST", "/v1/chat/completions", body)
    assert status == 400
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param


def test_a_body_over_a_mebibyte_is_too_large(model: OfflineModel, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x" * 3_000_000}])
    assert refused.value.status_code == 413
    assert client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x" * 1_000_000}])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v1/completions", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/healthz", 405),
        ("PATCH", "/calls", 405),
        ("PROPFIND", "/calls", 501),
    ],
)
def test_what_is_not_served_is_said_in_openais_shape(model: OfflineModel, method: str, path: str, status: int) -> None:
    code, answer = call(model, method, path)
    assert code == status
    assert answer["error"]["message"]


@pytest.mark.parametrize("head", ["Content-Length: x", "Content-Length: -1", "Transfer-Encoding: chunked"])
def test_a_length_that_makes_no_sense_is_refused(model: OfflineModel, head: str) -> None:
    host, port = model.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        received = b"".join(iter(lambda: plain.recv(65536), b""))
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 411 "))
    assert b'{"error": {' in received


def test_calls_are_counted_by_their_id(model: OfflineModel, client: openai.OpenAI) -> None:
    for request_id in ("a", "a", "b", None):
        headers = {} if request_id is None else {"X-Client-Request-Id": request_id}
        client.chat.completions.create(model="m", messages=ASK, extra_headers=headers)
    expected = {"a": 2, "b": 1, "": 1}
    assert model.calls() == expected
    assert call(model, "GET", "/calls") == (200, {"calls": expected, "open": 0, "closed_early": 0})
    assert call(model, "DELETE", "/script") == (200, {"rules": 0})
    assert model.calls() == {}


def test_two_hundred_calls_at_once_are_all_answered(model: OfflineModel) -> None:
    model.script([{"seconds": 0.5}])
    body = json.dumps(BODY | {"stream": True}).encode()
    start = time.monotonic()

    def one(number: int) -> bytes:
        headers = {"X-Client-Request-Id": f"task-{number}"}
        request = urllib.request.Request(f"{model.base_url}/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read()

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(one, range(200)))
    assert all(answer.endswith(b"data: [DONE]\n\n") for answer in answers)
    assert model.calls() == {f"task-{number}": 1 for number in range(200)}
    assert (model.open_calls(), model.closed_early()) == (0, 0)
    # One after the other they would take 100 s.
    assert time.monotonic() - start < 20


def test_a_model_that_is_not_scriptable_hides_its_script() -> None:
    with OfflineModel(seconds_per_answer=0) as model:
        for method, path in (("PUT", "/script"), ("DELETE", "/script"), ("GET", "/calls")):
            assert call(model, method, path, [] if method == "PUT" else None)[0] == 404


def test_a_model_starts_at_once_and_leaves_nothing_behind() -> None:
    before = threading.active_count()
    model = OfflineModel(seconds_per_answer=0)
    start = time.monotonic()
    model.start()
    assert time.monotonic() - start < 0.1
    with pytest.raises(RuntimeError):
        model.start()
    assert call(model, "GET", "/healthz")[0] == 200
    model.stop()
    model.stop()
    assert threading.active_count() <= before
    with pytest.raises(RuntimeError):
        _ = model.base_url


def test_a_model_comes_back_on_the_same_port() -> None:
    model = OfflineModel(seconds_per_answer=0)
    with model:
        url = model.base_url
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/models", timeout=5)
    with model:
        assert model.base_url == url
        assert call(model, "GET", "/v1/models")[0] == 200
