"""The proof that a publisher waits for confirms: a queue that refuses messages.

RabbitMQ nacks what a full queue refuses (https://www.rabbitmq.com/docs/maxlength#overflow-behaviour): who waits for the
confirm gets to know it, and who doesn't goes on without a word.
"""

from __future__ import annotations

import json
import uuid
from functools import cache

from bench.lab import Lab

#: Queues whose names begin so hold one message and refuse the next ones.
FULL = "full-"

#: A quorum queue tells its publishers a little later that it is full; so many messages are enough.
ATTEMPTS = 300


def full_queue(lab: Lab) -> str:
    """The name of a queue that will be full from its first message on."""
    _set_policy(lab)
    return f"{FULL}{uuid.uuid4().hex[:8]}"


@cache
def _set_policy(lab: Lab) -> None:
    """Once: rabbitmqctl takes a second."""
    policy = json.dumps({"max-length": 1, "overflow": "reject-publish"})
    lab.rabbit.ctl("set_policy", "full", f"^{FULL}", policy, "--apply-to", "queues")
