"""One storm from its start to the verdict: a healthy time, the faults under load, the calm, and the look back."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import httpx2
from bson.codec_options import CodecOptions

from sluice.task import parse_time
from tests.chaos.breaker import Breaker
from tests.chaos.bugs import Bug
from tests.chaos.checker import SETTLED_WITHIN, Violation, check
from tests.chaos.cluster import TTL, Cluster
from tests.chaos.history import TERMINAL, History, Mend, read_logs, read_runs, seconds
from tests.chaos.load import Crowd, Visitor, make_wish
from tests.chaos.schedule import ENGINES, schedule
from tests.servers.mongo_store import documents_written

#: Tasks of the healthy time, and the seconds in which they are to be done.
HEALTHY, HEALTHY_SECONDS = 40, 60

#: How often it is looked whether all is settled.
LOOK_SECONDS = 0.5


@dataclass
class Outcome:
    history: History
    violations: list[Violation]
    figures: dict[str, str]


def storm(
    seed: int, minutes: float, directory: Path, say: Callable[[str], None], *, rate: float = 4.0, bug: Bug | None = None
) -> Outcome:
    """Raises what goes wrong with a tool; what goes wrong with Sluice is in the outcome."""
    history = History(ttl=TTL)
    faults = schedule(seed, minutes * 60)
    say(f"seed {seed}: {len(faults)} faults in {minutes:g} minutes; all that happens is kept in {directory}")
    (directory / "schedule.txt").write_text("".join(f"{fault}\n" for fault in faults))
    with Cluster(directory, history, bug) as cluster:
        _healthy_time(cluster, history, seed)
        say(f"{len(history.healthy)} tasks done in health; now the storm")
        crowd, breaker = Crowd(cluster.stack, history, seed, rate=rate), Breaker(cluster, faults)
        crowd.start()
        breaker.start()
        breaker.join()
        breaker.finale()
        crowd.stop()
        history.calm = time.time()
        say(f"{len(history.accepted)} tasks accepted; now the calm")
        _settle(cluster, history)
        history.calls = cluster.model.calls()
        logs = [cluster.processes[name].log for name in ENGINES]
    for task in documents_written(cluster.mongo.journal, ".tasks", CodecOptions(tz_aware=True, tzinfo=UTC)):
        history.versions.setdefault(task["_id"], []).append(task)
    history.runs = read_runs(cluster.notes)
    _read_logs(history, logs)
    history.write(directory / "history")
    violations = check(history)
    (directory / "violations.txt").write_text("".join(f"{violation}\n" for violation in violations))
    return Outcome(history, violations, figures(history, minutes))


def _healthy_time(cluster: Cluster, history: History, seed: int) -> None:
    dice = random.Random(f"{seed} healthy")
    with httpx2.Client(timeout=10) as client:
        visitor = Visitor(cluster.stack, history, client, "healthy")
        for number in range(HEALTHY):
            wish = make_wish(dice, "healthy", number)
            if wish.kind != "poison" and wish.outcome != "retry":
                history.healthy.append(wish.mark)
                visitor.add(wish)
    deadline = time.monotonic() + HEALTHY_SECONDS
    while _open(cluster) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)


def _settle(cluster: Cluster, history: History) -> None:
    """Wait until every task is at its end and every queue is empty, or the time for it is over."""
    while history.settled is None and time.time() < history.calm + SETTLED_WITHIN:
        if not _open(cluster):
            history.queues = cluster.queue_lengths()
            if not any(count for name, count in history.queues.items() if name != "unreadable"):
                history.settled = time.time()
        time.sleep(LOOK_SECONDS)
    history.queues = cluster.queue_lengths()


def _open(cluster: Cluster) -> int:
    with cluster.tasks() as tasks:
        return tasks.count_documents({"status": {"$nin": sorted(TERMINAL)}})


def _read_logs(history: History, logs: list[Path]) -> None:
    for entry in read_logs(logs):
        message = str(entry.get("message"))
        if message.startswith("mended task "):
            task_id, _, what = message.removeprefix("mended task ").partition(": ")
            history.mends.append(Mend(seconds(parse_time(entry["time"])), task_id, what))
        history.redelivered += message.startswith("handed out again")
        history.too_late += "came too late" in message or "taken it over" in message


def figures(history: History, minutes: float) -> dict[str, str]:
    """What a report says."""
    ends = Counter(
        task["error"]["code"] if task["status"] == "failed" else task["status"]
        for versions in history.versions.values()
        for task in versions[-1:]
    )
    sent = Counter((request.action, request.status) for request in history.requests)
    sorts = Counter(f"{one.fault.lane}: {one.fault.sort}" for one in history.faults)
    restarts = sum(one.fault.sort in {"kill", "terminate", "stop"} for one in history.faults)
    return {
        "minutes of storm": f"{minutes:g}",
        "adds accepted": str(len(history.accepted)),
        "requests": ", ".join(
            f"{action} {status or 'no answer'}: {n}" for (action, status), n in sorted(sent.items(), key=str)
        ),
        "faults": f"{len(history.faults)}: " + ", ".join(f"{sort} {n}" for sort, n in sorted(sorts.items())),
        "kills and restarts": str(restarts),
        "messages handed out again": str(history.redelivered),
        "attempts beyond the first": str(sum(max(0, v[-1]["attempts"] - 1) for v in history.versions.values())),
        "results refused by the fence": str(history.too_late),
        "mended by the sweep": ", ".join(f"{what} {n}" for what, n in Counter(m.what for m in history.mends).items()),
        "ends": ", ".join(f"{end} {n}" for end, n in ends.most_common()),
        "versions of tasks checked": str(sum(map(len, history.versions.values()))),
        "seconds from the last fault to rest": f"{(history.settled or 0) - history.calm:.1f}",
    }
