"""The sweep: finds tasks whose message was lost, or never sent, and mends them.

Safe to run anywhere, any number at once: each mend is won by one conditional update.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import datetime, timedelta

from sluice.broker import Message, TaskBroker
from sluice.errors import BrokerUnavailable, StoreUnavailable
from sluice.metrics import TASKS_MENDED
from sluice.store import MongoTaskStore
from sluice.task import Task, expiry

log = logging.getLogger(__name__)

#: Tasks mended in one go.
BATCH = 100

#: Seconds that a pending task whose message should be in the queue, but is not, is left alone: an engine may hold it.
QUIET_SECONDS = 20.0

#: Seconds after its deadline, or after its lease, at which the sweep looks after a task: its message comes first.
PATIENCE_SECONDS = 2.0

#: Seconds between two messages for the same abandoned task.
AGAIN_SECONDS = 30.0


def sweep(store: MongoTaskStore, broker: TaskBroker, timeout: float, reached: datetime | None = None) -> None:
    """One round. Raises Unavailable when a service that it needs is away; the next round goes on from there."""
    fail_overdue(store)
    resend_abandoned(store, broker, timeout)
    send_unqueued(store, broker, timeout)
    resend_lost(store, broker, timeout, reached)


def fail_overdue(store: MongoTaskStore) -> None:
    """Pending tasks whose deadline is over: their dead letter was lost, or never written."""
    found = store.overdue(store.clock() - timedelta(seconds=PATIENCE_SECONDS), BATCH)
    while found:
        for task in found:
            if store.fail(task, expiry(task, task.document["error"])):
                _mended("overdue", task)
        found = store.overdue(store.clock() - timedelta(seconds=PATIENCE_SECONDS), BATCH) if len(found) == BATCH else []


def resend_abandoned(store: MongoTaskStore, broker: TaskBroker, timeout: float) -> None:
    """Tasks that are running, but whose engine is gone, and whose message has not brought another one."""
    found = store.abandoned(store.clock() - timedelta(seconds=AGAIN_SECONDS), BATCH)
    _send(store, broker, _won(found, store.mark_swept), "abandoned", timeout)


def send_unqueued(store: MongoTaskStore, broker: TaskBroker, timeout: float) -> None:
    """Tasks that were accepted while the queue was away."""
    _send_all(store, broker, lambda: store.unqueued(BATCH), "unqueued", timeout)


def resend_lost(store: MongoTaskStore, broker: TaskBroker, timeout: float, reached: datetime | None = None) -> None:
    """Pending tasks that nobody has taken although the queue is empty: their messages are gone. So they are when
    messages that were sent clearly later have been `reached` by an engine: the queue keeps the order."""
    quiet = timedelta(seconds=QUIET_SECONDS)
    before = store.clock() - quiet
    if not store.quiet(before, 1):
        return
    if broker.ready(broker.topology.tasks) > 0:
        if reached is None:
            return
        before = min(before, reached - quiet)
    _send_all(store, broker, lambda: store.quiet(before, BATCH), "lost", timeout)


def _send_all(
    store: MongoTaskStore, broker: TaskBroker, find: Callable[[], list[Task]], fault: str, timeout: float
) -> None:
    """Send the messages of all pending tasks that are found, batch by batch."""
    while True:
        found = find()
        now = store.clock()
        won = _won(found, lambda task, now=now: store.mark_queued(task, now))  # type: ignore[misc]
        _send(store, broker, [task.replace(queued_at=now) for task in won], fault, timeout)
        if len(found) < BATCH:
            return


def _won(tasks: list[Task], mark: Callable[[Task], bool]) -> list[Task]:
    """Those of these tasks that this sweep is the one to mend. When the database goes away in between, those that were
    won so far: they are marked, and must be sent."""
    won: list[Task] = []
    for task in tasks:
        try:
            if mark(task):
                won.append(task)
        except StoreUnavailable:
            break
    return won


def _send(store: MongoTaskStore, broker: TaskBroker, tasks: list[Task], fault: str, timeout: float) -> None:
    """Send these tasks' messages. What is not confirmed is noted as not queued, for the next round. Raises
    BrokerUnavailable if there is any."""
    sent: list[tuple[Task, Future[None] | None]] = []
    for task in tasks:
        try:
            sent.append((task, broker.send(Message(task.id, task.to_message()), broker.topology.tasks)))
        except BrokerUnavailable:
            sent.append((task, None))
    deadline = time.monotonic() + timeout
    unsent = []
    for task, future in sent:
        try:
            if future is None:
                raise BrokerUnavailable("no connection to the queue")
            future.result(max(0.0, deadline - time.monotonic()))
            _mended(fault, task)
        except (BrokerUnavailable, FutureTimeoutError):
            if future is not None:
                future.cancel()
            unsent.append(task)
    if unsent and fault != "abandoned":
        _won(unsent, lambda task: store.mark_queued(task, None))
    if unsent:
        raise BrokerUnavailable("the queue did not take all of the messages")


def _mended(fault: str, task: Task) -> None:
    TASKS_MENDED.labels(fault).inc()
    log.info("mended task %s: %s", task.id, fault)
