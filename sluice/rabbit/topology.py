"""The one place where the queues are declared."""

from __future__ import annotations

from typing import Any

from sluice.broker import Queue, Topology


def arguments_of(queue: Queue) -> dict[str, Any]:
    """A queue's arguments. Replicated (quorum), so that a confirmed message survives its broker's restart."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    if queue.ttl_seconds is not None:
        arguments["x-message-ttl"] = queue.ttl_seconds * 1000
    if queue.dead_letters_to is not None:
        arguments["x-dead-letter-exchange"] = ""
        arguments["x-dead-letter-routing-key"] = queue.dead_letters_to
    if queue.delivery_limit is not None:
        arguments["x-delivery-limit"] = queue.delivery_limit
    if queue.max_length is not None:
        arguments["x-max-length"] = queue.max_length
    return arguments


def declare_topology(channel: Any, topology: Topology, skip: frozenset[str] | set[str] = frozenset()) -> None:
    """Declare all queues but those named in `skip`, or look for them if they are not ours to declare (which takes no
    right to configure). Takes a blocking or an asynchronous channel; on an asynchronous one nothing is waited for.
    A queue that exists with other arguments closes the channel (406), and so does one that is missing (404)."""
    for queue in topology.queues:
        if queue.name not in skip:
            channel.queue_declare(
                queue=queue.name, durable=True, passive=not topology.is_ours, arguments=arguments_of(queue)
            )
