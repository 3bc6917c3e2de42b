"""A connection to RabbitMQ that an event loop serves, beside the calls that it answers."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection

from sluice.broker import Topology
from sluice.rabbit.link import FIRST_PAUSE, LAST_PAUSE, Link, guarded

log = logging.getLogger(__name__)


class LoopLink(Link):
    """A link without a thread: no message and no confirm changes threads, and all that is sent in one turn of the loop
    goes in one write."""

    def __init__(
        self,
        parameters: pika.URLParameters,
        topology: Topology,
        on_up: Callable[[Any], None],
        on_down: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = loop
        self._loops_thread = 0
        self._pause = FIRST_PAUSE
        self._ended = threading.Event()
        super().__init__(parameters, topology, on_up, on_down)

    @property
    def is_alive(self) -> bool:
        return not self._ended.is_set() and self._loop.is_running()

    def call(self, callback: Callable[[], None]) -> bool:
        if self._connection is None:
            return False
        is_ours = threading.get_ident() == self._loops_thread
        call_soon = self._loop.call_soon if is_ours else self._loop.call_soon_threadsafe
        try:
            call_soon(guarded(callback))
        except RuntimeError:  # the loop is closed
            return False
        return True

    def close(self, timeout: float = 5.0) -> None:
        """As a link's; on the loop's own thread it returns at once, and the loop does the rest."""
        self._stopping.set()
        if self.call(self.reset) and threading.get_ident() != self._loops_thread:
            self._ended.wait(timeout)

    def _start(self) -> None:
        self._loop.call_soon_threadsafe(self._connect)

    def _connect(self) -> None:
        self._loops_thread = threading.get_ident()
        if self._stopping.is_set():
            self._ended.set()
            return
        self._opened = False
        try:
            self._connection = AsyncioConnection(
                self._parameters,
                on_open_callback=self._set_up,
                on_open_error_callback=self._lost,
                on_close_callback=self._lost,
                custom_ioloop=self._loop,
            )
        except Exception:
            log.exception("the connection to RabbitMQ could not be begun, in an unforeseen way; trying again")
            self._leave(None)

    def _leave(self, _connection: Any) -> None:
        self._connection = None
        guarded(self._on_down)()
        self._pause = FIRST_PAUSE if self._opened else min(2 * self._pause, LAST_PAUSE)
        if self._stopping.is_set():
            self._ended.set()
        else:
            self._loop.call_later(self._pause * random.uniform(0.5, 1), self._connect)
