"""Logs: one JSON object a line, with the ids of the task and the request that a line is about."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sluice.task import format_time

if TYPE_CHECKING:
    from collections.abc import Iterator

_context: ContextVar[dict[str, str]] = ContextVar("log_context", default={})  # noqa: B039 - replaced, never changed


@contextmanager
def log_context(**ids: str) -> Iterator[None]:
    """Add these ids (`task_id`, `request_id`) to every line that is logged inside."""
    token = _context.set({**_context.get(), **ids})
    try:
        yield
    finally:
        _context.reset(token)


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
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        ids = "".join(f" {name}={value}" for name, value in _context.get().items())
        return f"{super().format(record)}{ids}"


def configure_logs(level: str, style: str | None) -> None:
    """Log to stderr, as `json` (if nothing else is said) or as `text`. The libraries' own chatter starts at WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    text = TextFormatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(text if style == "text" else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("pika", "httpx2", "httpcore2", "openai", "pymongo", "waitress"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # What happens to a connection is told by sluice.rabbit, once and in words.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
