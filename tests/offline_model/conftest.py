"""Puts the repository's root on the path, so that the tests run from anywhere, and makes models."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from offline_model import OfflineModel


@pytest.fixture
def model() -> Iterator[OfflineModel]:
    with OfflineModel(scriptable=True, seconds_per_answer=0.01) as running:
        yield running


@pytest.fixture
def client(model: OfflineModel) -> Iterator[openai.OpenAI]:
    # Without `verify=False` every client reads all of the system's certificates, for a server that has none.
    plain = openai.DefaultHttpxClient(verify=False)
    with openai.OpenAI(base_url=model.base_url, api_key="none", max_retries=0, timeout=10, http_client=plain) as made:
        yield made


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until something is true, at most 5 s."""

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not holds():
            assert time.monotonic() < deadline, "still not so after 5 s"
            time.sleep(0.005)

    return wait
