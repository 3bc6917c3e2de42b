"""Benches, threads and time limits for the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engine.doubles import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Threads for what has to happen beside the test. Whatever is submitted must end by itself."""
    with ThreadPoolExecutor(max_workers=32) as pool:
        yield pool
