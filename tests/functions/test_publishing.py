"""How a function's process publishes: on the event loop that answers its calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from uvicorn_worker import UvicornWorker

from sluice.async_worker import AsyncWorker
from sluice.broker import Topology
from sluice.rabbit import RabbitTaskBroker
from sluice.services import Services, install, services
from sluice.settings import Settings


@pytest.fixture
def broker(free_port: int) -> Iterator[RabbitTaskBroker]:
    broker = RabbitTaskBroker(f"amqp://guest:guest@127.0.0.1:{free_port}/%2F", Topology())
    yield broker
    broker.close()


def test_a_worker_publishes_on_its_loop(broker: RabbitTaskBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[set[threading.Thread]] = []
    before = set(threading.enumerate())

    async def serve(_worker: AsyncWorker) -> None:
        assert not services().broker.is_connected  # and begins to connect
        served.append(set(threading.enumerate()) - before)
        broker.close()
        await asyncio.sleep(0)

    monkeypatch.setattr(UvicornWorker, "_serve", serve)
    monkeypatch.setattr("sluice.services._installed", {})
    install(Services(Settings(), cast(Any, None), broker))
    asyncio.run(AsyncWorker.__new__(AsyncWorker)._serve())
    assert served == [set()], "no thread for the connection"
