"""The engine: takes messages from the queue, has ten of them worked on at once, and settles each by itself.

Its threads: the broker's (which only hands over), ten workers, one that keeps watch over what runs (reports, leases,
cancellations, time limits), one for dead letters, and one that sweeps.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any

from functions.engine.kinds import Handler, find_handler
from functions.engine.worker import Attempt, Decision, HandBack, Settled, Unreadable, Wait, Worker
from sluice.broker import Consumer, Delivery, Message, Queue, publish
from sluice.errors import BrokerUnavailable, StoreUnavailable, Unavailable, Unstorable
from sluice.metrics import MESSAGES_UNREADABLE
from sluice.services import Services
from sluice.sweep import sweep

log = logging.getLogger(__name__)

#: Seconds between two rounds of the watch, and between two looks at a task that reports nothing by itself.
WATCH_SECONDS, HOLD_SECONDS = 0.5, 1.0

#: Seconds without anything to do, while messages wait, after which the engine counts as deaf.
DEAF_SECONDS = 60.0

#: Seconds after which a watch that does not come round counts as stuck.
STUCK_SECONDS = 60.0

#: Seconds that handlers have to obey when the grace period is over.
OBEY_SECONDS = 5.0

#: Headers that go with a message when it moves on. The broker's own (x-death …) must not: RabbitMQ before 4.0 believes
#: them, takes the way for a cycle of expiries, and drops the message.
KEPT_HEADERS = ("x-request-id", "traceparent")

#: Seconds before a message goes back when its wait queue can't be reached: it would come again at once.
CALM_SECONDS = 1.0


class Engine:
    """Works on tasks from `start` to `drain`. `find` gives the handler of a kind."""

    def __init__(self, services: Services, find: Callable[[str], Handler] = find_handler) -> None:
        self._settings = services.settings
        self._store = services.store
        self._broker = services.broker
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._worker = Worker(services.store, services.settings, self.name, find)
        self._tasks: SimpleQueue[Delivery | None] = SimpleQueue()
        self._dead: SimpleQueue[Delivery | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._done = threading.Event()
        self._watched = self._heard = time.monotonic()
        #: Deliveries that are being worked on.
        self._busy: set[Delivery] = set()
        self._is_deaf = False
        self._consumer: Consumer | None = None

    def start(self) -> None:
        """Start to consume; returns at once, whether or not the services can be reached yet."""
        # First: the broker answers while the threads start.
        self._consumer = self._broker.consume(self._settings.engine_concurrency, self._tasks.put, self._dead.put)
        for number in range(self._settings.engine_concurrency):
            self._thread(f"worker-{number}", lambda: self._serve(self._tasks, self._on_task))
        self._thread("dead-letters", lambda: self._serve(self._dead, self._on_dead))
        self._thread("watch", self._watch)
        self._thread("sweep", self._sweep)

    def drain(self, grace: float | None = None) -> bool:
        """Stop without losing anything. In this order: take no more; hand back what has not been started, so that
        others can have it at once; let the handlers finish, for up to `grace` seconds; stop those that are left and
        hand their tasks back; only then let go of the queue. Returns whether every handler ended."""
        deadline = time.monotonic() + (self._settings.engine_grace_seconds if grace is None else grace)
        self._worker.draining.set()
        if self._consumer is not None:
            self._consumer.cancel()
        for inbox in (self._tasks, self._dead):
            with suppress(Empty):
                while (delivery := inbox.get_nowait()) is not None:
                    delivery.requeue()
        for inbox, count in ((self._tasks, self._settings.engine_concurrency), (self._dead, 1)):
            for _ in range(count):
                inbox.put(None)
        log.info("stopping; %s tasks are being finished", len(self._worker.running))
        ended = self._wait_for_workers(deadline)
        if not ended:
            self._worker.hurry.set()
            for attempt in self._worker.running:
                attempt.step.stop("draining")
            ended = self._wait_for_workers(time.monotonic() + OBEY_SECONDS)
        self._done.set()
        for thread in self._threads[-2:]:  # the watch and the sweep, which use the database
            thread.join(OBEY_SECONDS)
        if self._consumer is not None:
            self._consumer.close()
        log.info("stopped")
        return ended

    # --- health ------------------------------------------------------------------------------------------------------

    @property
    def is_consuming(self) -> bool:
        return self._consumer is not None and self._consumer.is_consuming

    def complaints(self) -> list[str]:
        """What a restart of this process would mend. Empty while it is well, also while the services are away."""
        complaints = []
        if self._consumer is not None and not self._consumer.is_alive:
            complaints.append("the connection's thread is dead or stuck")
        if time.monotonic() - self._watched > STUCK_SECONDS:
            complaints.append("the watch is stuck")
        if self._is_deaf:
            complaints.append("messages wait, but none arrives")
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        if dead and not self._worker.draining.is_set():
            complaints.append(f"threads have ended: {', '.join(dead)}")
        overdue = [
            a for a in self._worker.running if self._age(a) > self._settings.attempt_timeout_seconds + STUCK_SECONDS
        ]
        if len(overdue) >= self._settings.engine_concurrency:
            complaints.append("no handler obeys")
        return complaints

    # --- threads -----------------------------------------------------------------------------------------------------

    def _thread(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, inbox: SimpleQueue[Delivery | None], handle: Callable[[Delivery], None]) -> None:
        while (delivery := inbox.get()) is not None:
            if not delivery.is_open:
                continue  # its connection is gone while it waited here: it comes again
            self._busy.add(delivery)
            self._heard = time.monotonic()
            try:
                handle(delivery)
            except Exception:
                log.exception("a message could not be handled; it goes back to the queue")
                self._done.wait(CALM_SECONDS)
                delivery.requeue()
            finally:
                self._busy.discard(delivery)

    def _wait_for_workers(self, deadline: float) -> bool:
        workers = [thread for thread in self._threads if thread.name.startswith(("worker-", "dead-letters"))]
        for thread in workers:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in workers)

    # --- settling ----------------------------------------------------------------------------------------------------

    def _on_task(self, delivery: Delivery) -> None:
        self._settle(delivery, self._worker.work(delivery.message))

    def _on_dead(self, delivery: Delivery) -> None:
        self._settle(delivery, self._worker.bury(delivery.message))

    def _settle(self, delivery: Delivery, decision: Decision) -> None:
        match decision:
            case Settled():
                delivery.ack()
            case HandBack():
                delivery.requeue()
            case Wait(seconds, headers):
                self._move(delivery, self._broker.topology.wait_for(seconds), headers)
            case Unreadable():
                # Not rejected: that would make it a dead letter without a confirm, and nothing would mend its loss.
                MESSAGES_UNREADABLE.inc()
                self._move(delivery, self._broker.topology.unreadable)

    def _move(self, delivery: Delivery, queue: Queue, headers: dict[str, Any] | None = None) -> None:
        """Publish the message elsewhere, and acknowledge it here only once that is confirmed."""
        message = delivery.message
        kept = {name: value for name in KEPT_HEADERS if _is_sane(value := message.headers.get(name))}
        moved = Message(message.id, message.body, {**kept, **(headers or {})})
        try:
            publish(self._broker, moved, queue, self._settings.publish_timeout_seconds)
        except BrokerUnavailable as error:
            log.info("message %s goes back to its queue: %s", message.id[:64], error)
            self._worker.draining.wait(CALM_SECONDS)
            delivery.requeue()
        else:
            delivery.ack()

    # --- the watch ---------------------------------------------------------------------------------------------------

    def _age(self, attempt: Attempt) -> float:
        return time.monotonic() - attempt.step.started

    def _watch(self) -> None:
        while not self._done.wait(WATCH_SECONDS):
            for attempt in self._worker.running:
                if self._age(attempt) > self._settings.attempt_timeout_seconds:
                    attempt.step.stop(f"{self._settings.attempt_timeout_seconds:g} seconds")
            try:
                self._report_and_hold()
            except StoreUnavailable:
                pass  # the attempts go on; whether they still count shows when they write their results
            except Exception:
                log.exception("the watch failed in an unforeseen way")
            self._watched = time.monotonic()

    def _report_and_hold(self) -> None:
        """Write what the handlers report, renew the leases, and stop what is no longer this engine's: a task that was
        cancelled, or taken over."""
        lease = timedelta(seconds=self._settings.lease_seconds)
        quiet = []
        for attempt in self._worker.running:
            changes = attempt.step.take_changes() if self._age(attempt) >= WATCH_SECONDS else {}
            try:
                if changes:
                    if not self._store.report(attempt.task, changes, lease=lease):
                        attempt.step.stop("lost")
                    attempt.held = time.monotonic()
            except Unstorable:
                log.warning("what the handler of task %s reports can't be stored", attempt.task.id)
            except StoreUnavailable:
                attempt.step.put_back(changes)
                raise
            if time.monotonic() - attempt.held >= HOLD_SECONDS:
                quiet.append(attempt)
        if quiet:
            held = self._store.hold([attempt.task for attempt in quiet], engine=self.name, lease=lease)
            for attempt in quiet:
                attempt.held = time.monotonic()
                if (attempt.task.id, attempt.task.attempts) not in held:
                    attempt.step.stop("lost")

    # --- the sweep ---------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        has_indexes = hears_nothing = False
        pause = random.uniform(0.2, 1.0)  # engines that start together don't sweep together
        while not self._done.wait(pause):
            pause = self._settings.sweep_seconds * random.uniform(0.75, 1.25)
            try:
                has_indexes = has_indexes or self._create_indexes()
                sweep(self._store, self._broker, self._settings.publish_timeout_seconds, self._worker.reached)
                hears_nothing, heard_nothing = self._hears_nothing(), hears_nothing
                self._is_deaf = hears_nothing and heard_nothing
            except Unavailable as error:
                log.info("sweeping later: %s", error)
            except Exception:
                log.exception("the sweep failed in an unforeseen way")

    def _create_indexes(self) -> bool:
        try:
            self._store.create_indexes()
        except StoreUnavailable as error:
            log.warning("the indexes can't be created now: %s", error)
            return False
        return True

    def _hears_nothing(self) -> bool:
        """Whether tasks wait while this engine has had nothing to do for a long time."""
        if self._busy or self._worker.draining.is_set():
            self._heard = time.monotonic()
        return time.monotonic() - self._heard > DEAF_SECONDS and self._broker.ready(self._broker.topology.tasks) > 0


def _is_sane(header: Any) -> bool:
    return isinstance(header, str) and len(header) <= 256
