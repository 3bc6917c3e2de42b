"""Kind `code` against a model that has a bad day, in every way that a model can have one."""

from __future__ import annotations

import gc
import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import AsyncGeneratorType
from typing import Any

import pytest

from functions.engine.fences import code_in
from functions.engine.handler import Failed, Retry, Step, Stopped
from functions.engine.kinds.code import run
from functions.engine.model import Model
from functions.engine.model import model as client_of
from offline_model import OfflineModel
from sluice.kinds.code import Inputs, Outputs
from sluice.settings import Settings
from sluice.task import Document, new_id
from tests.control_plane.certificates import Authority
from tests.engine.doubles import without_model
from tests.servers import require
from tests.waiting import eventually

KEY = "sk-secret-of-the-tests"
SUM = Inputs(objective="Create a function that sums up three numbers.", language="python")


@pytest.fixture(scope="module")
def server() -> Iterator[OfflineModel]:
    with OfflineModel(scriptable=True, seconds_per_answer=0.05) as running:
        yield running


@pytest.fixture
def offline(server: OfflineModel) -> OfflineModel:
    """The model, with no script and nothing counted."""
    eventually(lambda: server.open_calls() == 0)
    server.clear()
    return server


def settings_for(base_url: str, **changes: Any) -> Settings:
    return without_model(
        **{"openai_base_url": base_url, "openai_api_key": KEY, "openai_timeout_seconds": 30, **changes}
    )


@pytest.fixture
def step(offline: OfflineModel) -> Step:
    return Step(new_id(), settings_for(offline.base_url))


@pytest.fixture
def hurried(offline: OfflineModel) -> Step:
    """A step whose model has half a second for an answer."""
    return Step(new_id(), settings_for(offline.base_url, openai_timeout_seconds=0.5))


def outcome(step: Step, inputs: Inputs = SUM) -> Outputs | Failed | Retry:
    try:
        return run(inputs, step)
    except (Failed, Retry) as error:
        return error


def code_of(step: Step) -> str:
    error = outcome(step)
    assert isinstance(error, Failed | Retry)
    return error.code


# --- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_becomes_code_with_its_model_and_its_usage(step: Step, offline: OfflineModel) -> None:
    outputs = run(SUM, step)
    scope: dict[str, Any] = {}
    exec(compile(outputs.code, "answer", "exec"), scope)
    assert any(callable(value) and _adds_three(value) for value in scope.values())
    assert "```" not in outputs.code
    assert outputs.model == "offline-model"
    assert outputs.usage is not None
    assert outputs.usage.completion_tokens > 0
    assert outputs.usage.total_tokens == outputs.usage.prompt_tokens + outputs.usage.completion_tokens
    assert [(entry["name"], entry["status"]) for entry in step.steps] == [
        ("ask the model", "completed"),
        ("take out the code", "completed"),
    ]


def _adds_three(function: Any) -> bool:
    try:
        return bool(function(1, 2, 3) == 6)
    except TypeError:
        return False


def test_a_call_names_its_task_and_is_made_once(step: Step, offline: OfflineModel) -> None:
    run(SUM, step)
    assert offline.calls() == {step.task_id: 1}


@pytest.mark.parametrize("language", ["python", "javascript", "go", "rust", "c", "bash"])
def test_the_code_is_in_the_language_that_was_asked_for(step: Step, language: str) -> None:
    other = run(Inputs(objective=SUM.objective, language=language), step)
    assert other.code
    assert (other.code == run(SUM, step).code) == (language == "python")


def test_an_answer_without_a_fence_is_the_code(step: Step, offline: OfflineModel) -> None:
    offline.script([{"answer": "print(1)"}])
    assert run(SUM, step).code == "print(1)\n"


@pytest.mark.parametrize("answer", ["```python\n```", "```python", "   \n\n "])
def test_an_answer_without_code_is_an_error_with_a_name(step: Step, offline: OfflineModel, answer: str) -> None:
    offline.script([{"answer": answer}])
    assert code_of(step) == "empty_answer"


def test_an_answer_without_end_is_broken_off(answered: Answered) -> None:
    error = answered(200, EVENTS, stream(*[{"content": "x" * 100_000}] * 6))
    assert isinstance(error, Failed)
    assert error.code == "answer_too_long"


def test_a_long_answer_does_not_keep_the_thread_busy_that_hears_all_answers(
    step: Step, offline: OfflineModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[float] = []

    def timed(*arguments: Any, **options: Any) -> str:
        started = time.thread_time()
        try:
            return code_in(*arguments, **options)
        finally:
            if threading.current_thread().name == "model":
                spent.append(time.thread_time() - started)

    monkeypatch.setattr("functions.engine.kinds.code.code_in", timed)
    answer = "aaaaaaaa\n" * 20_000
    offline.script([{"answer": answer, "seconds": 1}])
    assert run(SUM, step).code == answer
    assert sum(spent) < 1


def test_the_code_is_seen_while_it_grows(step: Step, offline: OfflineModel, beside: ThreadPoolExecutor) -> None:
    lines = [f"line_{number} = {number}" for number in range(60)]
    whole = "\n".join(lines) + "\n"
    offline.script([{"answer": f"Here:\n\n```python\n{whole}```\n", "seconds": 1.8}])
    shown = _shown_while(step, beside.submit(run, SUM, step))
    assert len(shown) >= 2
    assert all(whole.startswith(code.rstrip("`").rstrip("\n")) for code in shown)
    assert [len(code) for code in shown] == sorted(len(code) for code in shown)
    assert 0 < len(shown[0]) < len(whole)


def test_the_sentence_before_the_code_is_not_shown_as_code(
    step: Step, offline: OfflineModel, beside: ThreadPoolExecutor
) -> None:
    sentence = "This sentence is long, and it is written before any of the code is. " * 20
    offline.script([{"answer": f"{sentence}\n\n```python\nprint(1)\n```\n", "seconds": 1.2}])
    running = beside.submit(run, SUM, step)
    shown = _shown_while(step, running)
    assert [code for code in shown if "sentence" in code] == []
    assert running.result().code == "print(1)\n"


def _shown_while(step: Step, running: Future[Outputs]) -> list[str]:
    """Everything that the handler shows as code until it ends."""
    shown: list[str] = []

    def look() -> bool:
        changes = step.take_changes()
        if "code" in changes:
            shown.append(changes["code"])
        return running.done()

    eventually(look, 20)
    running.result()
    return shown


# --- faults ----------------------------------------------------------------------------------------------------------

TRANSIENT: dict[str, tuple[Document, str]] = {
    "429": ({"fault": "status", "status": 429}, "rate_limited"),
    "408": ({"fault": "status", "status": 408}, "model_error"),
    "409": ({"fault": "status", "status": 409}, "model_error"),
    "500": ({"fault": "status", "status": 500}, "model_error"),
    "502": ({"fault": "status", "status": 502}, "model_error"),
    "503": ({"fault": "status", "status": 503}, "model_error"),
    "529": ({"fault": "status", "status": 529}, "model_error"),
    "hang": ({"fault": "hang"}, "model_timeout"),
    "hang_midway": ({"fault": "hang_midway", "seconds": 0.1}, "model_timeout"),
    "slow": ({"seconds": 30}, "model_timeout"),
    "cut_off": ({"fault": "cut_off"}, "cut_off"),
    "garbage": ({"fault": "garbage"}, "invalid_answer"),
    "html": ({"fault": "html"}, ""),
    "no_choices": ({"fault": "no_choices"}, ""),
}

PERMANENT: dict[str, tuple[Document, str]] = {
    "429 insufficient_quota": (
        {"fault": "status", "status": 429, "code": "insufficient_quota", "retry_after": 1},
        "quota_exhausted",
    ),
    "400": ({"fault": "status", "status": 400}, "invalid_request"),
    "400 context_length_exceeded": ({"fault": "status", "status": 400, "code": "context_length_exceeded"}, "too_long"),
    "400 content_filter": ({"fault": "status", "status": 400, "code": "content_filter"}, "refused"),
    "401": ({"fault": "status", "status": 401}, "model_access"),
    "403": ({"fault": "status", "status": 403}, "model_access"),
    "404": ({"fault": "status", "status": 404}, "model_not_found"),
    "422": ({"fault": "status", "status": 422}, "invalid_request"),
    "length": ({"fault": "length"}, "cut_off"),
    "refuse": ({"fault": "refuse"}, "refused"),
    "content_filter": ({"fault": "content_filter"}, "refused"),
    "empty": ({"fault": "empty"}, "empty_answer"),
}

#: What the server would tell, if it were asked to tell on us.
LEAK = f"Incorrect API key provided: {KEY}. See http://127.0.0.1/v1/secret"


def fault(rule: Document) -> Document:
    return {**rule, "message": LEAK} if rule.get("fault") == "status" else rule


def assert_tells_no_secret(error: Failed | Retry, step: Step) -> None:
    for text in (error.message, str(error), json.dumps(step.steps)):
        assert KEY not in text
        assert "http" not in text
        assert "127.0.0.1" not in text


@pytest.mark.parametrize(("rule", "code"), TRANSIENT.values(), ids=TRANSIENT.keys())
def test_what_may_work_later_is_tried_again(
    step: Step, hurried: Step, offline: OfflineModel, rule: Document, code: str
) -> None:
    offline.script([fault(rule)])
    if code == "model_timeout":
        step = hurried
    started = time.monotonic()
    error = outcome(step)
    assert time.monotonic() - started < 10
    assert isinstance(error, Retry)
    assert error.code == (code or error.code)
    assert error.message
    assert_tells_no_secret(error, step)
    assert offline.calls() == {step.task_id: 1}


@pytest.mark.parametrize(("rule", "code"), PERMANENT.values(), ids=PERMANENT.keys())
def test_what_will_never_work_is_told_at_once(step: Step, offline: OfflineModel, rule: Document, code: str) -> None:
    offline.script([fault(rule)])
    error = outcome(step)
    assert isinstance(error, Failed)
    assert error.code == code
    assert error.message
    assert_tells_no_secret(error, step)
    assert offline.calls() == {step.task_id: 1}


def test_every_fault_of_the_offline_model_is_tried() -> None:
    from offline_model.script import FAULTS

    rules = [rule for rule, _ in [*TRANSIENT.values(), *PERMANENT.values()]]
    assert {rule.get("fault") for rule in rules} - {None} == set(FAULTS)


def test_the_key_is_not_logged(step: Step, offline: OfflineModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        for rule, _ in PERMANENT.values():
            offline.script([fault(rule)])
            outcome(step)
    assert KEY not in caplog.text


def test_a_refusal_is_told_in_the_models_words(step: Step, offline: OfflineModel) -> None:
    offline.script([{"fault": "refuse", "answer": "I don't write that."}])
    error = outcome(step)
    assert isinstance(error, Failed)
    assert "I don't write that." in error.message


@pytest.mark.parametrize("seconds", [0, 0.5, 17])
def test_the_pause_that_the_model_asks_for_is_passed_on(step: Step, offline: OfflineModel, seconds: float) -> None:
    offline.script([{"fault": "status", "status": 429, "retry_after": seconds}])
    error = outcome(step)
    assert isinstance(error, Retry)
    assert error.after == seconds


def test_a_server_that_does_not_listen_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    step = Step(new_id(), settings_for(f"http://127.0.0.1:{port}/v1"))
    error = outcome(step)
    assert isinstance(error, Retry)
    assert error.code == "model_unreachable"
    assert_tells_no_secret(error, step)
    assert str(port) not in error.message


def test_a_model_that_comes_back_answers_again(step: Step, offline: OfflineModel) -> None:
    offline.script([{"fault": "cut_off", "times": 1}, {"fault": "status", "status": 500, "times": 1}])
    assert [isinstance(outcome(step), Retry) for _ in range(2)] == [True, True]
    assert isinstance(outcome(step), Outputs)


# --- servers that are stranger than the offline model ----------------------------------------------------------------


def counted(tokens: Any) -> Document:
    return {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": 1}


Answered = Callable[..., Outputs | Failed | Retry]


class StrangeServer(ThreadingHTTPServer):
    """A server with one answer to everything."""

    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")


class StrangeHandler(BaseHTTPRequestHandler):
    server: StrangeServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # who has heard enough may go
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def strange_server() -> Iterator[StrangeServer]:
    with StrangeServer(("127.0.0.1", 0), StrangeHandler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def answered(strange_server: StrangeServer) -> Answered:
    """What the handler makes of an answer: its status, headers and body."""

    def answered(status: int, headers: dict[str, str], body: bytes = b"{}") -> Outputs | Failed | Retry:
        strange_server.answer = (status, headers, body)
        return outcome(Step(new_id(), settings_for(f"http://127.0.0.1:{strange_server.server_address[1]}/v1")))

    return answered


def stream(*deltas: Document, usage: Any = None, finish_reason: str | None = "stop") -> bytes:
    """A streamed answer in these pieces."""
    shape = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "strange"}
    chunks = [{**shape, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**shape, "choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}], "usage": usage})
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


EVENTS = {"Content-Type": "text/event-stream"}


@pytest.mark.parametrize("is_known", [True, False], ids=["a known authority", "an unknown one"])
def test_a_model_behind_tls_is_asked_only_when_its_certificate_is_of_a_known_authority(
    is_known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(None if shutil.which("openssl") else "there is no openssl here: apt-get install openssl")
    authority = Authority(tmp_path / "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("model", "/CN=model"))
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with StrangeServer(("127.0.0.1", 0), StrangeHandler) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        running.answer = (200, EVENTS, stream({"content": "```python\nprint(1)\n```"}))
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            found = outcome(Step(new_id(), settings_for(f"https://127.0.0.1:{running.server_address[1]}/v1")))
        finally:
            running.shutdown()
            thread.join()
    if is_known:
        assert isinstance(found, Outputs)
    else:
        assert isinstance(found, Retry)
        assert found.code == "model_unreachable"


def test_a_pause_given_as_a_date_is_read_too(answered: Answered) -> None:
    until = datetime.now(UTC) + timedelta(seconds=40)
    error = answered(429, {"Retry-After": format_datetime(until, usegmt=True)})
    assert isinstance(error, Retry)
    assert error.after is not None
    assert 30 <= error.after <= 40


@pytest.mark.parametrize(
    "header",
    [
        "",
        "soon",
        "-5",
        "nan",
        "inf",
        "1e400",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Wed, 99 Oct 2015",
        "Wed, 21 Oct 99999999999 07:28:00 GMT",
    ],
)
def test_a_pause_that_makes_no_sense_is_no_pause(answered: Answered, header: str) -> None:
    error = answered(429, {"Retry-After": header})
    assert isinstance(error, Retry)
    assert error.after in (None, 0)


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": 3}, {"prompt_tokens": None}, "free", counted(2**63), counted(-1), counted(1.5)],
)
def test_usage_that_makes_no_sense_does_not_cost_the_answer(answered: Answered, usage: Any) -> None:
    outputs = answered(200, EVENTS, stream({"content": "```python\nprint(1)\n```"}, usage=usage))
    assert isinstance(outputs, Outputs)
    assert outputs.code == "print(1)\n"
    assert outputs.usage is None


@pytest.mark.parametrize("name", ["\ud83d", "m" * 2_000_000])
def test_a_name_that_makes_no_sense_does_not_cost_the_answer(answered: Answered, name: str) -> None:
    body = stream({"content": "print(1)"}).replace(b'"strange"', json.dumps(name).encode())
    outputs = answered(200, EVENTS, body)
    assert isinstance(outputs, Outputs)
    assert outputs.code == "print(1)\n"
    assert outputs.model is not None
    assert len(outputs.model.encode()) <= 2_000


def test_a_character_that_was_cut_in_two_by_the_stream_is_whole_again(answered: Answered) -> None:
    outputs = answered(200, EVENTS, stream({"content": "print('\ud83d"}, {"content": "\ude00')"}))
    assert isinstance(outputs, Outputs)
    assert outputs.code == "print('😀')\n"


def test_a_stream_without_an_end_is_tried_again(answered: Answered) -> None:
    error = answered(200, EVENTS, stream({"content": "print(1)"}, finish_reason=None))
    assert isinstance(error, Retry)
    assert error.code == "cut_off"


def test_an_error_whose_body_breaks_off_is_tried_again(answered: Answered) -> None:
    error = answered(500, {"Content-Length": "100"}, b'{"error": ')
    assert isinstance(error, Retry)
    assert error.code == "cut_off"


def test_an_error_in_the_middle_of_a_stream_is_tried_again(answered: Answered) -> None:
    whole = stream({"content": "print(1)"})
    event = b'data: {"error": {"message": "overloaded", "type": "server_error", "code": null}}\n\n'
    error = answered(200, EVENTS, whole.split(b"\n\n")[0] + b"\n\n" + event)
    assert isinstance(error, Retry)


@pytest.mark.parametrize(
    "event",
    [
        b"[]",
        b"7",
        b'"text"',
        b'{"choices": null}',
        b'{"choices": [null]}',
        b'{"choices": [{"delta": null}]}',
        b'{"choices": [{"delta": {"content": 7}}]}',
        b'{"choices": 7}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_events_that_make_no_sense_are_tried_again(answered: Answered, event: bytes) -> None:
    error = answered(200, EVENTS, b"data: %b\n\ndata: [DONE]\n\n" % event)
    assert isinstance(error, Retry)


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"choices": null}\n\ndata: [DONE]\n\n',
        b'data: {"choices": \n\ndata: [DONE]\n\n',
        b'data: {"error": {"message": "overloaded"}}\n\ndata: [DONE]\n\n',
        stream(*[{"content": "x" * 100_000}] * 6),
    ],
    ids=["of no sense", "no JSON", "an error", "too long"],
)
def test_nothing_of_a_broken_off_stream_is_left_to_the_garbage_collector(answered: Answered, body: bytes) -> None:
    """It would end the stream's generators on whatever thread it runs, while their own loop may be at work on them."""

    def suspended() -> set[int]:
        return {id(found) for found in gc.get_objects() if isinstance(found, AsyncGeneratorType) and found.ag_frame}

    gc.collect()
    before = suspended()
    error = answered(200, EVENTS, body)
    assert isinstance(error, Failed | Retry)
    eventually(lambda: suspended() <= before, 3, "every generator has ended")


# --- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [{"fault": "hang"}, {"fault": "hang_midway", "seconds": 0.05}, {"seconds": 60}])
def test_a_stop_ends_the_call_and_closes_its_connection(
    step: Step, offline: OfflineModel, beside: ThreadPoolExecutor, rule: Document
) -> None:
    offline.script([rule])
    running = beside.submit(run, SUM, step)
    eventually(lambda: offline.open_calls() == 1)
    if rule.get("fault") != "hang":
        eventually(lambda: "code" in step.take_changes() or offline.open_calls() == 0 or _is_midway(step))
    stopped = time.monotonic()
    step.stop("lost")
    with pytest.raises(Stopped):
        running.result(5)
    assert time.monotonic() - stopped < 1
    eventually(lambda: offline.closed_early() == 1, 1)
    assert offline.open_calls() == 0
    assert [(entry["status"], entry["message"]) for entry in step.steps] == [("failed", "stopped")]


def _is_midway(step: Step) -> bool:
    """Half a second after the call began, its answer has."""
    [entry] = step.steps
    return datetime.now(UTC) - datetime.fromisoformat(entry["started_at"]) > timedelta(seconds=0.5)


def test_a_handler_that_is_stopped_already_calls_nobody(step: Step, offline: OfflineModel) -> None:
    step.stop("lost")
    with pytest.raises(Stopped):
        run(SUM, step)
    assert offline.calls() == {}


def test_a_stop_of_one_call_leaves_the_others_alone(offline: OfflineModel, beside: ThreadPoolExecutor) -> None:
    offline.script([{"seconds": 0.8}])
    steps = [Step(new_id(), settings_for(offline.base_url)) for _ in range(6)]
    running = [beside.submit(run, SUM, step) for step in steps]
    eventually(lambda: offline.open_calls() == 6)
    steps[0].stop("lost")
    with pytest.raises(Stopped):
        running[0].result(5)
    assert all(future.result(10).code for future in running[1:])


# --- together --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collects", [True, False])
def test_making_a_client_leaves_the_garbage_collector_as_it_was(collects: bool) -> None:
    (gc.enable if collects else gc.disable)()
    try:
        Model(api_key="none", base_url="http://127.0.0.1:1/v1", model="m", timeout=1)
        assert gc.isenabled() is collects
    finally:
        gc.enable()


def test_many_handlers_at_once_share_one_client(offline: OfflineModel, beside: ThreadPoolExecutor) -> None:
    def threads() -> int:
        return len([thread for thread in threading.enumerate() if thread.name == "model"])

    before = threads()
    settings = settings_for(offline.base_url, openai_model="shared")
    offline.script([{"seconds": 0.6}])
    steps = [Step(new_id(), settings) for _ in range(20)]
    running = [beside.submit(run, SUM, step) for step in steps]
    eventually(lambda: offline.open_calls() == 20)
    codes = {future.result(20).code for future in running}
    assert len(codes) == 1
    assert offline.calls() == {step.task_id: 1 for step in steps}
    assert threads() == before + 1
    assert client_of(settings) is client_of(settings_for(offline.base_url, openai_model="shared"))
