"""What can go wrong with a model, asked for by name, as OpenAI's package meets it."""

import asyncio
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable

import openai
import pytest

from offline_model import BadRule, OfflineModel

ASK = [{"role": "user", "content": "Language: python\n\nadd 3 numbers"}]
Eventually = Callable[[Callable[[], bool]], None]


def whole(client: openai.OpenAI, **more: object) -> tuple[str | None, str]:
    """Text and finish_reason of an answer that is not streamed."""
    choice = client.chat.completions.create(model="m", messages=ASK, **more).choices[0]
    return choice.message.content, choice.finish_reason


def streamed(client: openai.OpenAI, **more: object) -> tuple[str, str | None]:
    """Text and last finish_reason of a streamed answer."""
    text, reason = "", None
    with client.chat.completions.create(model="m", messages=ASK, stream=True, **more) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
    return text, reason


BOTH = pytest.mark.parametrize("ask", [whole, streamed])


@BOTH
def test_an_answer_can_be_put_in_its_mouth(model: OfflineModel, client: openai.OpenAI, ask) -> None:
    text = "exactly this:\n\n```python\n  ü = '😀'\n```\n  \t\n"
    model.script([{"answer": text}])
    assert ask(client) == (text, "stop")
    model.script([{"answer": ""}])
    assert ask(client) == ("", "stop")


@BOTH
@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, openai.BadRequestError, None),
        (401, openai.AuthenticationError, "invalid_api_key"),
        (404, openai.NotFoundError, "model_not_found"),
        (429, openai.RateLimitError, "rate_limit_exceeded"),
        (500, openai.InternalServerError, None),
        (503, openai.InternalServerError, None),
        (599, openai.InternalServerError, None),
    ],
)
def test_a_status_is_openais_error(model: OfflineModel, client: openai.OpenAI, ask, status, error, code) -> None:
    model.script([{"fault": "status", "status": status}])
    with pytest.raises(error) as raised:
        ask(client)
    assert raised.value.status_code == status
    assert raised.value.code == code
    assert "retry-after" not in raised.value.response.headers


def test_a_status_can_be_told_all_it_says(model: OfflineModel, client: openai.OpenAI) -> None:
    rule = {"fault": "status", "status": 429, "retry_after": 1.5, "code": "insufficient_quota", "message": "no money"}
    model.script([rule])
    with pytest.raises(openai.RateLimitError) as raised:
        whole(client)
    assert raised.value.response.headers["retry-after"] == "1.5"
    assert (raised.value.code, raised.value.type) == ("insufficient_quota", "insufficient_quota")
    assert raised.value.body["message"] == "no money"


def test_openais_own_retries_are_counted(model: OfflineModel) -> None:
    model.script([{"fault": "status", "status": 429, "retry_after": 0.01, "times": 1}])
    with openai.OpenAI(base_url=model.base_url, api_key="none", max_retries=2) as client:
        assert whole(client, extra_headers={"X-Client-Request-Id": "t"})[1] == "stop"
    assert model.calls() == {"t": 2}


@BOTH
@pytest.mark.parametrize("fault", ["length", "content_filter"])
def test_an_answer_can_stop_halfway(model: OfflineModel, client: openai.OpenAI, ask, fault: str) -> None:
    full = ask(client)[0]
    model.script([{"fault": fault}])
    text, reason = ask(client)
    assert reason == fault
    assert 0 < len(text) < len(full)
    assert full.startswith(text)


@BOTH
def test_an_answer_can_be_empty(model: OfflineModel, client: openai.OpenAI, ask) -> None:
    model.script([{"fault": "empty"}])
    assert ask(client) == ("", "stop")


def test_an_answer_can_be_a_refusal(model: OfflineModel, client: openai.OpenAI) -> None:
    model.script([{"fault": "refuse", "times": 2}, {"fault": "refuse", "answer": "Never."}])
    choice = client.chat.completions.create(model="m", messages=ASK).choices[0]
    assert (choice.message.content, choice.finish_reason) == (None, "stop")
    with client.chat.completions.create(model="m", messages=ASK, stream=True) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream]
    assert "".join(delta.refusal or "" for delta in deltas) == choice.message.refusal
    assert not any(delta.content for delta in deltas)
    assert client.chat.completions.create(model="m", messages=ASK).choices[0].message.refusal == "Never."


@BOTH
def test_garbage_cannot_be_read(model: OfflineModel, client: openai.OpenAI, ask) -> None:
    model.script([{"fault": "garbage"}])
    with pytest.raises(json.JSONDecodeError):
        ask(client)


def test_a_page_comes_instead_of_an_answer(model: OfflineModel) -> None:
    model.script([{"fault": "html"}])
    for stream in (True, False):
        body = json.dumps({"model": "m", "messages": ASK, "stream": stream}).encode()
        with urllib.request.urlopen(f"{model.base_url}/chat/completions", body, timeout=10) as response:
            assert response.headers.get_content_type() == "text/html"
            assert b"<html>" in response.read()


def test_there_can_be_no_choices(model: OfflineModel, client: openai.OpenAI) -> None:
    model.script([{"fault": "no_choices"}])
    assert client.chat.completions.create(model="m", messages=ASK).choices == []
    with client.chat.completions.create(model="m", messages=ASK, stream=True) as stream:
        assert [chunk.choices for chunk in stream] == [[]]


@BOTH
def test_a_connection_can_be_cut_off(model: OfflineModel, client: openai.OpenAI, ask, eventually: Eventually) -> None:
    model.script([{"fault": "cut_off"}])
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    eventually(lambda: model.open_calls() == 0)
    # It was the server who left.
    assert model.closed_early() == 0


def test_a_stream_that_is_cut_off_had_half_of_the_answer(model: OfflineModel, client: openai.OpenAI) -> None:
    full, _ = streamed(client)
    model.script([{"fault": "cut_off"}])
    text, reasons = "", []
    stream = client.chat.completions.create(model="m", messages=ASK, stream=True)
    with pytest.raises(openai.APIConnectionError):  # noqa: PT012
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            reasons.append(chunk.choices[0].finish_reason)
    assert 0 < len(text) < len(full)
    assert not any(reasons)


@BOTH
@pytest.mark.parametrize("fault", ["hang", "hang_midway"])
def test_a_hanging_call_ends_when_its_client_gives_up(
    model: OfflineModel, client: openai.OpenAI, ask, fault: str, eventually: Eventually
) -> None:
    model.script([{"fault": fault}])
    with pytest.raises(openai.APITimeoutError):
        ask(client, timeout=0.2)
    eventually(lambda: model.open_calls() == 0)
    assert model.closed_early() == 1


def test_half_of_the_answer_comes_before_it_hangs(
    model: OfflineModel, client: openai.OpenAI, eventually: Eventually
) -> None:
    model.script([{"fault": "hang_midway", "answer": "one two three four"}])
    text = ""
    with client.chat.completions.create(model="m", messages=ASK, stream=True) as stream:
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if text == "one two":
                break
        assert model.open_calls() == 1
        assert model.closed_early() == 0
    eventually(lambda: model.closed_early() == 1)
    assert model.open_calls() == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_is_noticed_at_once(model: OfflineModel, stream: bool, eventually: Eventually) -> None:
    # 600 s for an answer of one piece: nothing is written that could fail.
    model.script([{"seconds": 600, "answer": "x"}])
    host, port = model.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps({"model": "m", "messages": ASK, "stream": stream}).encode()
    plain = socket.create_connection((host, int(port)), timeout=10)
    # More bytes than the request has: a peer is not gone because it has something to say.
    plain.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%bGET /" % (len(body), body))
    eventually(lambda: model.open_calls() == 1)
    assert model.closed_early() == 0
    plain.close()
    start = time.monotonic()
    eventually(lambda: model.closed_early() == 1)
    assert time.monotonic() - start < 1


def test_a_cancelled_async_call_is_noticed(model: OfflineModel, eventually: Eventually) -> None:
    model.script([{"seconds": 600}])

    async def give_up() -> None:
        async with openai.AsyncOpenAI(base_url=model.base_url, api_key="none", max_retries=0) as client:
            task = asyncio.create_task(client.chat.completions.create(model="m", messages=ASK))
            while not model.open_calls():
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(give_up())
    eventually(lambda: model.closed_early() == 1)


def test_a_stopping_server_ends_hanging_calls_and_counts_none(eventually: Eventually) -> None:
    model = OfflineModel(seconds_per_answer=0).start()
    model.script([{"fault": "hang"}])
    errors: list[Exception] = []

    def call() -> None:
        with openai.OpenAI(base_url=model.base_url, api_key="none", max_retries=0, timeout=20) as client:
            try:
                whole(client)
            except openai.OpenAIError as error:
                errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    eventually(lambda: model.open_calls() == 1)
    start = time.monotonic()
    model.stop()
    caller.join(10)
    assert time.monotonic() - start < 1.5
    assert isinstance(errors[0], openai.APIConnectionError)


def test_what_was_left_of_one_test_does_not_spoil_the_next(
    model: OfflineModel, client: openai.OpenAI, eventually: Eventually
) -> None:
    model.script([{"fault": "hang_midway"}])
    stream = client.chat.completions.create(model="m", messages=ASK, stream=True)
    model.clear()
    assert model.open_calls() == 1
    stream.close()
    eventually(lambda: model.open_calls() == 0)
    assert model.closed_early() == 0
    assert streamed(client)[1] == "stop"


def test_rules_apply_in_order_until_they_are_spent(model: OfflineModel, client: openai.OpenAI) -> None:
    model.script(
        [
            {"match": "subtract", "answer": "not this"},
            {"match": r"(?i)ADD \d", "times": 2, "answer": "first"},
            {"times": 0, "answer": "never"},
            {"match": "add", "times": 1, "answer": "second"},
        ]
    )
    said = [whole(client)[0] for _ in range(4)]
    assert said[:3] == ["first", "first", "second"]
    assert said[3].startswith("Sum up three numbers")


def test_chance_is_repeatable_with_a_seed(model: OfflineModel, client: openai.OpenAI) -> None:
    def draw() -> list[str]:
        model.script([{"probability": 0.4, "seed": 7, "seconds": 0, "answer": "a"}, {"seconds": 0, "answer": "b"}])
        return [whole(client)[0] for _ in range(30)]

    first = draw()
    assert first == draw()
    assert 3 < Counter(first)["a"] < 25
    model.script([{"probability": 0, "answer": "a"}, {"probability": 1, "answer": "b"}])
    assert whole(client)[0] == "b"


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ({}, "list"),
        ("x", "list"),
        ([{}, 7], "rule 1"),
        ([{"fautl": "hang"}], "fautl"),
        ([{"fault": "hangs"}], "hangs"),
        ([{"fault": 3}], "fault"),
        ([{"match": "("}], "match"),
        ([{"match": 3}], "match"),
        ([{"times": -1}], "times"),
        ([{"times": 1.5}], "times"),
        ([{"times": True}], "times"),
        ([{"seconds": -1}], "seconds"),
        ([{"seconds": "1"}], "seconds"),
        ([{"seconds": float("nan")}], "seconds"),
        ([{"seconds": float("inf")}], "seconds"),
        ([{"probability": 1.1}], "probability"),
        ([{"seed": "x"}], "seed"),
        ([{"answer": 3}], "answer"),
        ([{"answer": "x", "fault": "hang"}], "answer"),
        ([{"fault": "status"}], "status"),
        ([{"fault": "status", "status": 200}], "status"),
        ([{"fault": "status", "status": "429"}], "status"),
        ([{"status": 429}], "status"),
        ([{"fault": "hang", "retry_after": 1}], "retry_after"),
        ([{"fault": "status", "status": 429, "retry_after": -1}], "retry_after"),
        ([{"fault": "status", "status": 429, "code": 7}], "code"),
    ],
)
def test_a_bad_rule_is_named_and_the_old_script_stays(
    model: OfflineModel, client: openai.OpenAI, rules: object, names: str
) -> None:
    model.script([{"answer": "old"}])
    with pytest.raises(BadRule, match=names):
        model.script(rules)
    url = model.base_url.removesuffix("/v1")
    request = urllib.request.Request(f"{url}/script", json.dumps(rules).encode(), method="PUT")
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=10)
    with raised.value as error:
        assert error.code == 400
        assert names in json.load(error)["error"]["message"]
    assert whole(client)[0] == "old"


def test_a_script_can_be_put_over_http(model: OfflineModel, client: openai.OpenAI) -> None:
    url = model.base_url.removesuffix("/v1")
    request = urllib.request.Request(f"{url}/script", b'[{"answer": "put"}]', method="PUT")
    with urllib.request.urlopen(request, timeout=10) as response:
        assert json.load(response) == {"rules": 1}
    assert whole(client)[0] == "put"
