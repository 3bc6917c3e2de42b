"""Logs: one JSON object a line, with the ids of the task and the request that a line is about."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO, cast

from sluice.task import format_time

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

#: Lines that may wait for the thread that writes. With more, whoever logs waits too: the stream can't keep up.
MAX_LINES = 1_000

_context: ContextVar[dict[str, str]] = ContextVar("log_context", default={})  # noqa: B039 - replaced, never changed


@contextmanager
def log_context(**ids: str) -> Iterator[None]:
    """Add these ids (`task_id`, `request_id`) to every line that is logged inside."""
    token = _context.set({**_context.get(), **ids})
    try:
        yield
    finally:
        _context.reset(token)


#: Every task is told about twice, and a line put together from its values costs less than half of one that
#: `json.dumps` makes from a dict.
_as_json = json.JSONEncoder(ensure_ascii=False).encode


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": format_time(datetime.fromtimestamp(record.created, UTC)),
            "severity": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_context.get(),
        }
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return "{" + ", ".join([f'"{name}": {_as_json(value)}' for name, value in line.items()]) + "}"


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        ids = "".join(f" {name}={value}" for name, value in _context.get().items())
        return f"{super().format(record)}{ids}"


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream. No thread waits for another one's line: the one that writes also writes what the others
    add meanwhile, at once. (Taking turns at a lock cost the engine a tenth to a third of its CPU time.)"""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: deque[str] = deque()

    def handle(self, record: logging.LogRecord) -> bool:
        """As every handler's, but without its lock."""
        wanted = bool(self.filter(record))
        if wanted:
            self.emit(record)
        return wanted

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
            while self._lines and self._lock.acquire(blocking=len(self._lines) > MAX_LINES):
                try:
                    self._write()
                finally:
                    self._lock.release()
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        with self._lock:
            self._write()

    @property
    def _lock(self) -> threading.RLock:
        return cast("threading.RLock", self.lock)  # every handler's own, which logging makes anew in a forked process

    def _write(self) -> None:
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        self.stream.write("".join(lines))
        self.stream.flush()


def configure_logs(level: str, style: str | None) -> None:
    """Log to stderr, as `json` (if nothing else is said) or as `text`. The libraries' own chatter starts at WARNING."""
    handler = LineHandler(sys.stderr)
    text = TextFormatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(text if style == "text" else JsonFormatter())
    # What no line shows need not be found out for each (docs.python.org/3/howto/logging.html, "Optimization"): where in
    # the source it was logged, and by which thread and process.
    logging._srcfile = None
    logging.logThreads = logging.logMultiprocessing = False  # but processes are: gunicorn's lines name them
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("pika", "httpx2", "httpcore2", "openai", "pymongo", "waitress"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # What happens to a connection is told by sluice.rabbit, once and in words.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
