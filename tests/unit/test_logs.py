"""Logs: one JSON object a line, with the ids of what it is about, whatever is logged."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from sluice.logs import JsonFormatter, LineHandler, TextFormatter, configure_logs, log_context


class Log:
    """A logger of its own, and the lines that it wrote."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(formatter)
        self.logger = logging.Logger("sluice.test")  # not in the tree of loggers: pytest does not listen
        self.logger.addHandler(handler)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def log() -> Log:
    return Log(JsonFormatter())


@contextmanager
def logging_as_before() -> Iterator[None]:
    """Puts the root logger, and those of the libraries, back as they were."""
    loggers = [logging.getLogger(), *(item for item in logging.root.manager.loggerDict.values() if _is_logger(item))]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers if isinstance(logger, logging.Logger)]
    shown = {name: getattr(logging, name) for name in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")}
    try:
        yield
    finally:
        vars(logging).update(shown)
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers


def _is_logger(item: object) -> bool:
    return isinstance(item, logging.Logger)


class Rude:
    """An object that can't even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def test_a_line_is_a_json_object_with_time_severity_logger_and_message(log: Log) -> None:
    log.logger.warning("the %s is %d%% full", "queue", 80)
    [line] = log.lines
    moment = datetime.fromisoformat(line.pop("time"))
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert line == {"severity": "WARNING", "logger": "sluice.test", "message": "the queue is 80% full"}


def test_lines_carry_the_ids_of_what_they_are_about(log: Log) -> None:
    with log_context(request_id="r1"):
        log.logger.info("outer")
        with log_context(task_id="t1"):
            log.logger.info("inner")
        log.logger.info("outer again")
    log.logger.info("outside")
    ids = [{name: line[name] for name in ("request_id", "task_id") if name in line} for line in log.lines]
    assert ids == [{"request_id": "r1"}, {"request_id": "r1", "task_id": "t1"}, {"request_id": "r1"}, {}]


def test_the_ids_are_gone_after_an_exception(log: Log) -> None:
    with pytest.raises(ValueError, match="broken"), log_context(request_id="r1"):
        raise ValueError("broken")
    log.logger.info("outside")
    assert "request_id" not in log.lines[0]


def test_an_exception_is_part_of_its_line(log: Log) -> None:
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        log.logger.exception("it failed")
    [line] = log.lines
    assert (line["severity"], line["message"]) == ("ERROR", "it failed")
    assert "Traceback" in line["exception"]
    assert "ValueError: broken\nin two" in line["exception"]


def test_an_exception_that_can_not_be_printed_is_still_logged(log: Log) -> None:
    try:
        raise ValueError(Rude())
    except ValueError:
        log.logger.exception("it failed")
    assert "ValueError" in log.lines[0]["exception"]


def test_an_exception_is_asked_for_where_there_is_none(log: Log) -> None:
    log.logger.error("no exception here", exc_info=True)
    assert log.lines[0]["message"] == "no exception here"


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("two\nlines\r\n", ()),
        ('"quotes" and \\ and \x00 and \x1b[31m', ()),
        ("grüße 日本語 🦦", ()),
        ("\ud800", ()),
        ("%s", (object,)),
        ("%s", ({"a": b"\xff"},)),
        ("%(a)s", ({"a": datetime(2026, 7, 14, tzinfo=UTC)},)),
        ("100%", ()),
        (None, ()),
        ({"not": "a text"}, ()),
        (b"\xff", ()),
        ("%r", ("x" * 100_000,)),
    ],
    ids=repr,
)
def test_whatever_is_logged_is_one_line_of_json(log: Log, message: object, arguments: tuple[object, ...]) -> None:
    log.logger.info(message, *arguments)
    [line] = log.lines
    assert isinstance(line["message"], str)
    assert log.text.count("\n") == 1


@pytest.mark.parametrize(
    ("message", "arguments"),
    [("%s and %s", ("one",)), ("none", ("one",)), ("%d", ("one",)), ("%s", (Rude(),)), ("100%!", (1,))],
    ids=["too few", "too many", "wrong type", "rude", "bad format"],
)
def test_a_line_with_odd_arguments_harms_nobody(log: Log, message: str, arguments: tuple[object, ...]) -> None:
    log.logger.error(message, *arguments)
    log.logger.info("the next one")
    assert log.lines[-1]["message"] == "the next one"


class Gate(io.StringIO):
    """A stream that takes nothing until it is opened: a pipe whose reader is behind."""

    def __init__(self) -> None:
        super().__init__()
        self.is_reached, self.is_open = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.is_reached.set()
        assert self.is_open.wait(10)
        return super().write(text)


class Lines:
    """A logger on a LineHandler, and threads that log."""

    def __init__(self, stream: io.StringIO) -> None:
        self.stream = stream
        self.handler = LineHandler(stream)
        self.logger = logging.Logger("sluice.test")
        self.logger.addHandler(self.handler)

    def log_beside(self, *messages: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: [self.logger.info(message) for message in messages], daemon=True)
        thread.start()
        return thread

    @property
    def written(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def test_nobody_waits_for_the_line_of_another_and_both_are_written() -> None:
    gate = Gate()
    lines = Lines(gate)
    writer = lines.log_beside("first")
    assert gate.is_reached.wait(10)
    lines.logger.info("second")  # does not wait: the gate is closed
    gate.is_open.set()
    writer.join(10)
    assert lines.written == ["first", "second"]


def test_who_logs_more_than_the_stream_takes_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.logs.MAX_LINES", 2)
    gate = Gate()
    lines = Lines(gate)
    writer = lines.log_beside("1")
    assert gate.is_reached.wait(10)
    other = lines.log_beside("2", "3", "4", "5")
    other.join(0.2)
    assert other.is_alive()
    gate.is_open.set()
    writer.join(10)
    other.join(10)
    assert lines.written == ["1", "2", "3", "4", "5"]


def test_every_line_of_many_threads_is_written_once_and_whole() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        lines = Lines(io.StringIO())
        said = [[f"{thread}-{line}" for line in range(300)] for thread in range(8)]
        threads = [lines.log_beside(*messages) for messages in said]
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert sorted(lines.written) == sorted(line for messages in said for line in messages)
    for messages in said:
        assert [line for line in lines.written if line in messages] == messages


def test_a_stream_that_takes_nothing_any_more_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # logging's own way to tell goes to the real stderr
    stream = io.StringIO()
    lines = Lines(stream)
    stream.close()
    lines.logger.info("nobody hears this")
    lines.handler.stream = io.StringIO()
    lines.logger.info("this is heard")
    assert lines.handler.stream.getvalue() == "this is heard\n"


def test_a_filter_of_the_handler_is_obeyed() -> None:
    lines = Lines(io.StringIO())
    lines.handler.addFilter(lambda record: record.getMessage() != "secret")
    lines.logger.info("secret")
    lines.logger.info("public")
    assert lines.written == ["public"]


def test_text_for_people_ends_with_the_ids() -> None:
    log = Log(TextFormatter("%(levelname)s %(message)s"))
    with log_context(task_id="t1", request_id="r1"):
        log.logger.info("started")
    log.logger.info("idle")
    assert log.text == "INFO started task_id=t1 request_id=r1\nINFO idle\n"


@pytest.mark.parametrize("style", ["json", None])
def test_logs_are_json_on_stderr_unless_something_else_is_said(
    style: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with logging_as_before():
        configure_logs("INFO", style)
        logging.getLogger("sluice.test").info("shown")
        logging.getLogger("sluice.test").debug("hidden")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [json.loads(line)["message"] for line in captured.err.splitlines()] == ["shown"]


def test_logs_for_people_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as_before():
        configure_logs("DEBUG", "text")
        logging.getLogger("sluice.test").debug("shown")
    assert capsys.readouterr().err.endswith(" DEBUG   shown\n")


def test_configuring_twice_does_not_write_lines_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as_before():
        configure_logs("INFO", "json")
        configure_logs("INFO", "json")
        logging.getLogger("sluice.test").info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("library", ["pika", "httpx2", "openai", "pymongo"])
def test_the_libraries_own_chatter_is_not_shown(library: str, capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as_before():
        configure_logs("DEBUG", "json")
        logging.getLogger(f"{library}.deep.inside").info("chatter")
    assert capsys.readouterr().err == ""
