"""What people can do with tasks: add, get, list, cancel, retry. The functions in `functions/` are the doors to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from sluice.broker import Message, publish
from sluice.errors import Conflict, KeyReused, StoreUnavailable, TaskNotFound, Unavailable
from sluice.kinds import kinds
from sluice.metrics import TASKS_ACCEPTED
from sluice.requests import ListQuery, NewTask, OverviewQuery, encode_cursor
from sluice.services import Services
from sluice.store import MongoTaskStore
from sluice.task import SUMMARY_FIELDS, Document, Task, id_from_key, is_id, new_id, new_task, shown
from sluice.waiting import Blocking, Done

T = TypeVar("T")

#: Text that one page of a list may hold; a page that would hold more ends sooner.
MAX_PAGE_BYTES = 4 * 1024 * 1024

#: Where an overview stops to count: it means so many, or more.
MAX_COUNT = 10_000


async def add_task(
    services: Services, new: NewTask, *, key: str | None = None, headers: Mapping[str, Any] | None = None
) -> Task:
    """Accept a task: the queue is to confirm the whole of it, and the database to remember it; both are asked at once,
    and one of the two is enough. A coroutine of `sluice.waiting`.

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
    if key is not None:
        earlier = await Blocking(partial(_earlier, services.store, task.id))
        if earlier is not None:
            return _same(earlier, task, new)
    until = _patience(services)
    queued = task.replace(queued_at=now)
    broker = services.broker
    sent = _soon(lambda: broker.send(_message(queued, headers), broker.topology.tasks))
    storing = _soon(lambda: services.store.insert_soon(queued))
    await Done(sent, until - time.monotonic())
    await Done(storing, until + services.settings.store_timeout_seconds - time.monotonic())
    storing.cancel()  # what was not sent by now need not be: a queue that has confirmed is enough
    is_queued = _is_confirmed(sent)
    try:
        stored = storing.result(0)
    except (StoreUnavailable, CancelledError, TimeoutError):
        if not is_queued:
            raise Unavailable(
                "Neither the queue nor the database answers. Try again, best with an Idempotency-Key."
            ) from None
        TASKS_ACCEPTED.labels(task.kind, "queue").inc()
        return queued  # the engine stores it, from the message
    if not is_queued and stored is queued:
        stored = await Blocking(partial(_unqueued, services, queued, headers, until))
    TASKS_ACCEPTED.labels(task.kind, "database" if stored.queued_at is None else "both").inc()
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
        shape=_summary if is_summary else shown,
        max_bytes=MAX_PAGE_BYTES,
    )
    return {
        "tasks": tasks,
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


def _summary(document: Document) -> Document:
    """A task's document as it is shown, without its steps, inputs and outputs, but with a title."""
    kind = kinds().get(document["kind"])
    summary = shown({name: document[name] for name in SUMMARY_FIELDS if name in document})
    summary["title"] = "" if kind is None else kind.title_of(document)
    return summary


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


def _unqueued(services: Services, task: Task, headers: Mapping[str, Any] | None, until: float) -> Task:
    """A task that is stored as queued, and is not: note it, so that the publisher sends it when the queue is back, or
    the sweep does. If the queue has come back meanwhile, what was sent then did not find the task: send it now."""
    pending = task.replace(queued_at=None)
    try:
        if not services.store.mark_queued(task, None):  # the message was there after all, or somebody has cancelled
            return services.store.get(task.id) or task
    except StoreUnavailable:
        return task  # the sweep finds that there is no message
    if services.broker.is_connected and time.monotonic() < until:
        return _queue(services, pending, headers, until)
    return pending


def _publish(services: Services, task: Task, headers: Mapping[str, Any] | None, until: float) -> None:
    broker = services.broker
    publish(broker, _message(task, headers), broker.topology.tasks, until - time.monotonic())


def _soon(ask: Callable[[], Future[T]]) -> Future[T]:
    """What a service is asked for; if it refuses at once, that is in the future too."""
    try:
        return ask()
    except Unavailable as error:
        refused: Future[T] = Future()
        refused.set_exception(error)
        return refused


def _is_confirmed(sent: Future[None]) -> bool:
    """Whether the queue has confirmed a message by now. One that was not sent until now never will be."""
    return not sent.cancel() and sent.done() and sent.exception() is None


def _message(task: Task, headers: Mapping[str, Any] | None) -> Message:
    return Message(task.id, task.to_message(), dict(headers or {}))


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
