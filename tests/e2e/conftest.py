from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from offline_model import OfflineModel
from tests.e2e.stack import Stack
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo


@pytest.fixture
def model() -> Iterator[OfflineModel]:
    with OfflineModel(scriptable=True, seconds_per_answer=0.1) as model:
        yield model


@pytest.fixture
def stack(tmp_path: Path, rabbit: RabbitNode, wire_mongo: WireMongo, model: OfflineModel) -> Iterator[Stack]:
    if not wire_mongo.running:
        wire_mongo.start()
    stack = Stack(tmp_path, rabbit, wire_mongo, model)
    yield stack
    stack.close()
