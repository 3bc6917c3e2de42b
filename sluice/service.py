"""What people can do with tasks: add, get, list, cancel, retry. The functions in `functions/` are the doors to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from itertools import accumulate
from typing import Any

from sluice.broker import Message, publish
from sluice.errors import BrokerUnavailable, Conflict, KeyReused, StoreUnavailable, TaskNotFound, Unavailable
from sluice.kinds import kinds
from sluice.metrics import TASKS_ACCEPTED
from sluice.requests import ListQuery, NewTask, OverviewQuery, encode_cursor
from sluice.services import Services
from sluice.store import MongoTaskStore, cursor_of
from sluice.task import SUMMARY_FIELDS, Document, Task, id_from_key, is_id, new_id, new_task

#: Text that one page of a list may hold; a page that would hold more ends sooner.
MAX_PAGE_BYTES = 4 * 1024 * 1024

#: Where an overview stops to count: it means so many, or more.
MAX_COUNT = 10_000


def add_task(
    services: Services, new: NewTask, *, key: str | None = None, headers: Mapping[str, Any] | None = None
) -> Task:
    """Accept a task: the queue confirms the whole of it, then the database remembers it. One of the two is enough.

    `key` is the caller's Idempotency-Key; `headers` travel with the message. Raises KeyReused when the key stands for
    another task, and Unavailable when both services are away (then nothing is kept).
    """
    now = services.store.clock()
    task = new_task(
        task_id=new_id() if key is None else id_from_key(new.user_id, key),
        user_id=new.user_id,
        kind=new.kind.name,
        inputs=new.inputs,
        outputs=new.kind.blank_outputs(),
        now=now,
        ttl=timedelta(seconds=services.settings.task_ttl_seconds),
    )
    if key is not None and (earlier := _earlier(services.store, task.id)) is not None:
        return _same(earlier, task, new)
    until = _patience(services)
    try:
        queued = task.replace(queued_at=now)
        _publish(services, queued, headers, until)
        task = queued
    except BrokerUnavailable:
        pass  # stored with `queued_at` empty; the publisher sends it when the queue is back, or the sweep does
    try:
        stored = services.store.insert(task)
    except StoreUnavailable:
        if task.queued_at is None:
            raise Unavailable(
                "Neither the queue nor the database answers. Try again, best with an Idempotency-Key."
            ) from None
        TASKS_ACCEPTED.labels(task.kind, "queue").inc()
        return task  # the engine stores it, from the message
    if stored is task and task.queued_at is None and services.broker.is_connected and time.monotonic() < until:
        # The queue came back before the task was stored: what was sent then did not find it.
        stored = task = _queue(services, task, headers, until)
    TASKS_ACCEPTED.labels(task.kind, "database" if task.queued_at is None else "both").inc()
    return _same(stored, task, new)


def list_tasks(store: MongoTaskStore, query: ListQuery) -> Document:
    """One page of a user's tasks, or of their summaries: `{"tasks": [...], "next": cursor or None}`, newest first."""
    is_summary = query.view == "summary"
    tasks, following = store.page(
        query.user_id,
        kind=query.kind,
        status=query.status,
        limit=query.limit,
        after=query.after,
        fields=_fields_for_summaries() if is_summary else None,
    )
    if is_summary:
        tasks = [_summary(task) for task in tasks]
    weights = accumulate(task.weight for task in tasks)
    fitting = max(1, sum(weight <= MAX_PAGE_BYTES for weight in weights))
    if fitting < len(tasks):
        tasks, following = tasks[:fitting], cursor_of(tasks[fitting - 1])
    return {
        "tasks": [task.to_json() for task in tasks],
        "next": None if following is None else encode_cursor(following),
    }


def overview(services: Services, query: OverviewQuery) -> Document:
    """How many tasks of each status a user has (up to MAX_COUNT), how many engines are at work, for whomever, and
    which services are stand-ins."""
    return {
        "tasks": services.store.count_by_status(query.user_id, MAX_COUNT),
        "engines": services.store.count_engines(),
        "stand_ins": services.stand_ins,
    }


def list_kinds() -> Document:
    """The kinds of task that there are: `{"kinds": [...]}`."""
    return {"kinds": [kind.schema() for kind in kinds().values()]}


def get_task(store: MongoTaskStore, task_id: str) -> Task:
    """Raises TaskNotFound, for an id that can't be one too."""
    task = store.get(task_id) if is_id(task_id) else None
    if task is None:
        raise TaskNotFound("There is no task with this id.")
    return task


def cancel_task(store: MongoTaskStore, task_id: str) -> Task:
    """Cancel a task. A waiting one is never started; a running one is stopped by its engine. Raises TaskNotFound, or
    Conflict when it is finished."""
    cancelled = store.cancel(task_id) if is_id(task_id) else None
    if cancelled is None:
        raise Conflict(f"The task is {get_task(store, task_id).status}; only an unfinished task can be cancelled.")
    return cancelled


def retry_task(services: Services, task_id: str, headers: Mapping[str, Any] | None = None) -> Task:
    """Start a finished task again, with a new deadline. Raises TaskNotFound, or Conflict when it is not finished."""
    task = get_task(services.store, task_id)
    if not task.is_terminal:
        raise Conflict(f"The task is {task.status}; only a finished task can be retried.")
    deadline = services.store.clock() + timedelta(seconds=services.settings.task_ttl_seconds)
    kind = kinds().get(task.kind)
    if kind is None:
        raise Conflict(f"Tasks of kind {task.kind} are no longer done here.")
    pending = services.store.restart(task_id, deadline=deadline, outputs=kind.blank_outputs())
    if pending is None:
        raise Conflict("Somebody else has retried the task just now.")
    return _queue(services, pending, headers, _patience(services))


def _summary(task: Task) -> Task:
    """The task without its steps, inputs and outputs, but with a title."""
    kind = kinds().get(task.kind)
    title = "" if kind is None else kind.title_of(task.document)
    shown = {name: task.document[name] for name in SUMMARY_FIELDS if name in task.document}
    return Task({**shown, "title": title})


def _fields_for_summaries() -> list[str]:
    """What has to be read for a summary: no outputs, which can be large."""
    return [*SUMMARY_FIELDS, *(name for kind in kinds().values() for name in kind.inputs.model_fields)]


def _patience(services: Services) -> float:
    """Until when (by the monotonic clock) a call that begins now waits for the queue, however often it asks it."""
    return time.monotonic() + services.settings.publish_timeout_seconds


def _queue(services: Services, pending: Task, headers: Mapping[str, Any] | None, until: float) -> Task:
    """Send a task that is stored, and note it. Returns the task as it is then: not queued if that did not work."""
    queued = pending.replace(queued_at=services.store.clock())
    try:
        _publish(services, queued, headers, until)
        services.store.mark_queued(pending, queued.queued_at)
    except Unavailable:
        return pending  # the sweep sends it, or finds that it was sent
    return queued


def _publish(services: Services, task: Task, headers: Mapping[str, Any] | None, until: float) -> None:
    broker = services.broker
    message = Message(task.id, task.to_message(), dict(headers or {}))
    publish(broker, message, broker.topology.tasks, until - time.monotonic())


def _earlier(store: MongoTaskStore, task_id: str) -> Task | None:
    try:
        return store.get(task_id)
    except StoreUnavailable:
        return None  # the same key still means the same id: two messages, but never two tasks


def _same(stored: Task, task: Task, new: NewTask) -> Task:
    """The stored task, if it is what was asked for."""
    if stored.kind != task.kind or any(stored.document.get(name) != value for name, value in new.inputs.items()):
        raise KeyReused("This Idempotency-Key was used before, with another body.")
    return stored
