"""Bugs that a storm has to find: `python -m tests.chaos --bug ack-early` puts one into the copy of the product that the
storm runs. A harness that finds nothing in a broken product would prove nothing about a sound one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bug:
    """`old` stands in `file` exactly once; `new` is the mistake."""

    file: str
    old: str
    new: str

    def put_into(self, tree: Path) -> None:
        path = tree / self.file
        source = path.read_text()
        if source.count(self.old) != 1:
            raise ValueError(f"{self.file} no longer has this once: {self.old}")
        path.write_text(source.replace(self.old, self.new))


BUGS = {
    # The message is acknowledged before the result is written.
    "ack-early": Bug(
        "functions/engine/engine.py",
        "        self._settle(delivery, self._worker.work(delivery.message))\n",
        "        delivery.ack()\n"
        "        message, nothing = delivery.message, lambda: None\n"
        "        delivery = __import__('types').SimpleNamespace(\n"
        "            message=message, ack=nothing, requeue=nothing\n"
        "        )\n"
        "        self._settle(delivery, self._worker.work(message))\n",
    ),
    # The final write does not ask whether the attempt is still the newest one.
    "no-fence": Bug(
        "sluice/store.py",
        'self._changed(_Change(_fence(task), {"$set": final}, proof))',
        'self._changed(_Change({"_id": task.id}, {"$set": final}, proof))',
    ),
    # Nobody consumes the dead letters.
    "no-dead-letters": Bug(
        "sluice/rabbit/broker.py",
        "callbacks = {self.topology.tasks.name: on_task, self.topology.dead.name: on_dead}",
        "callbacks = {self.topology.tasks.name: on_task}",
    ),
    # What is published counts as kept before the broker has confirmed it.
    "no-confirm": Bug(
        "sluice/service.py",
        "return not sent.cancel() and sent.done() and sent.exception() is None",
        "return not (sent.done() and sent.exception())",
    ),
    # A task that is tried again gets a new deadline.
    "fresh-deadline": Bug(
        "sluice/store.py",
        '"queued_at": self.clock(), **changes}',
        '"queued_at": self.clock(), **changes}\n        back["deadline"] = self.clock() + timedelta(seconds=60)',
    ),
    # A task is claimed without a look at its status.
    "claim-anything": Bug(
        "sluice/store.py",
        '{"_id": task_id, "status": "pending", "retry_at": _not_after(now)}',
        '{"_id": task_id, "retry_at": _not_after(now)}',
    ),
}
