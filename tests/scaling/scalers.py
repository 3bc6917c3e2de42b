"""The triggers of a ScaledObject, asked of a real RabbitMQ over the very endpoints that KEDA asks.

After kedacore/keda v2.20.2, `pkg/scalers/rabbitmq_scaler.go` (`getQueueStatus`, `getQueueInfoViaHTTP`) and
`pkg/scaling/cache/scalers_cache.go` (`GetMetricsAndActivityForScaler`: what fails is made anew and asked once more).
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol
from urllib.parse import quote_plus, urlsplit

import httpx2
import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from tests.scaling.keda import Readings
from tests.scaling.scaled_object import Trigger

#: Seconds that the broker has for an answer: KEDA's `KEDA_HTTP_DEFAULT_TIMEOUT`.
ANSWER_SECONDS = 3.0

#: What may go wrong while a broker is away, or its queue is missing.
ERRORS = (pika.exceptions.AMQPError, AMQPConnectorException, httpx2.HTTPError, OSError, ValueError)


class Scaler(Protocol):
    def read(self) -> float: ...

    def close(self) -> None: ...


class AmqpScaler:
    """A passive declaration counts the ready messages of this moment, and nothing that an engine holds. A queue that
    does not exist is an error. Connects at once, as KEDA does when it builds the scaler."""

    def __init__(self, url: str, queue: str) -> None:
        self._queue = queue
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()

    def read(self) -> float:
        return float(self._channel.queue_declare(self._queue, passive=True).method.message_count)

    def close(self) -> None:
        with suppress(*ERRORS):
            self._connection.close()


class HttpScaler:
    """The management API's `messages`: ready and unacknowledged, as old as its statistics."""

    def __init__(self, url: str, queue: str) -> None:
        self._url = queue_url(url, queue)
        self._client = httpx2.Client(timeout=ANSWER_SECONDS)

    def read(self) -> float:
        answer = self._client.get(self._url)
        if answer.status_code != 200:
            raise ValueError(f"the management API answers {answer.status_code}")
        return float(answer.json().get("messages", 0))  # a count that is not there yet is none, not an error

    def close(self) -> None:
        self._client.close()


def queue_url(url: str, queue: str, vhost: str = "") -> str:
    """Where the queue is counted: the last part of the URL's path is the vhost, unless one is named
    (`getVhostAndPathFromURL`)."""
    parts = urlsplit(url)
    *before, last = parts.path.split("/")
    path = posixpath.join(*[part for part in before if part]) if any(before) else ""
    found = quote_plus(vhost) or last or "%2F"
    return f"{parts.scheme}://{parts.netloc}{'/' + path if path else ''}/api/queues/{found}/{quote_plus(queue)}"


#: Who asks, by the protocol of the trigger: takes the URL and the queue.
SCALERS: dict[str, Callable[[str, str], Scaler]] = {"amqp": AmqpScaler, "http": HttpScaler}


class Scalers:
    """All triggers of a ScaledObject, with KEDA's memory of them: connected once, and anew after an error. `urls` says
    where each protocol is found, with name and password."""

    def __init__(self, triggers: tuple[Trigger, ...], urls: dict[str, str]) -> None:
        self._factories: list[Callable[[], Scaler]] = [
            partial(SCALERS[trigger.protocol], urls[trigger.protocol], trigger.queue) for trigger in triggers
        ]
        self._scalers: list[Scaler] = []

    def read(self) -> Readings:
        """The metric of each trigger; None for one that failed twice, and for all when one can't be connected."""
        if not self._scalers and not self._build():
            return None
        readings = [self._read(index) for index in range(len(self._scalers))]
        if None in readings:
            self.close()
        return readings

    def close(self) -> None:
        for scaler in self._scalers:
            scaler.close()
        self._scalers = []

    def _build(self) -> bool:
        for factory in self._factories:
            try:
                self._scalers.append(factory())
            except ERRORS:
                self.close()
                return False
        return True

    def _read(self, index: int) -> float | None:
        try:
            return self._scalers[index].read()
        except ERRORS:
            self._scalers[index].close()
        try:
            self._scalers[index] = self._factories[index]()
            return self._scalers[index].read()
        except ERRORS:
            return None
