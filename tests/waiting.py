"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], seconds: float = 10.0, what: str = "") -> T:
    """The first true value of the condition. Fails when there is none in time.

    It is asked ever less often, up to ten times a second: what is waited for needs the processor, too.
    """
    began = time.monotonic()
    deadline = began + seconds
    while True:
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}; last seen: {value!r}")
        time.sleep(min(max(0.02, (now - began) / 20), 0.1))
