"""`POST /tasks/add` over HTTP, until RabbitMQ has confirmed the message."""

from __future__ import annotations

import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from bench import doors
from bench.confirms import full_queue
from bench.doors import Door
from bench.figures import (
    CPU_OF,
    Figures,
    Plot,
    Result,
    Sample,
    Table,
    Variant,
    Verdict,
    Wrong,
    interleave,
    number,
    wrong_rows,
)
from bench.lab import Lab, cpu_seconds, resident_mb
from bench.load import Load, body_of, load
from bench.report import bars
from bench.spent import Spending, cpu_table, parts

TITLE = "Submit: POST /tasks/add until the queue has confirmed the task (quorum queue, persistent)"

#: Requests in a burst (in a quick run), over this many connections.
BURST, QUICK_BURST, BURST_CONNECTIONS = 2000, 500, 128

#: Requests per second of the steady load.
STEADY = 200

#: Seconds in which what was sent without confirms must have arrived.
ARRIVAL_SECONDS = 5.0

OURS, FLASK_DOOR = "Sluice", "Sluice, Flask door"
GATEWAY, UNCONFIRMED, PER_REQUEST = "FastAPI + Celery", "FastAPI + Celery, its default -", "Flask + pika per request"

Open = Callable[[str], Door]


def run(lab: Lab) -> Result:
    gateway = partial(doors.fastapi_celery, lab)
    contenders: dict[str, Open] = {
        OURS: partial(doors.sluice, lab),
        FLASK_DOOR: partial(doors.sluice_flask, lab),
        GATEWAY: gateway,
        UNCONFIRMED: partial(gateway, confirm=False),
        PER_REQUEST: partial(doors.flask_pika, lab),
    }
    proved: set[str] = set()
    print(" two processes, no store")
    two = interleave(
        [
            Variant(name, partial(_proved, lab, name, open_door, proved), name == OURS)
            for name, open_door in contenders.items()
        ],
        lab.rounds,
    )
    print(" one process, no store")
    rounds = 1 if lab.quick else 2
    one = interleave(
        [
            Variant(name, partial(_one_load, lab, partial(contenders[name], workers=1)), name == OURS)
            for name in (OURS, FLASK_DOOR, GATEWAY, PER_REQUEST)
        ],
        rounds,
    )
    print(" two processes, the same store for all")
    stored = interleave(
        [
            Variant(name, partial(_one_load, lab, partial(contenders[name], store=True)), name == OURS)
            for name in (OURS, FLASK_DOOR, GATEWAY, PER_REQUEST)
        ],
        rounds,
    )
    by_store = {"no store": two, "wire database": stored}
    return Result(
        tables=[
            _headline("submit", "32 connections, two processes, no store", two),
            _by_connections(two),
            _processes(one, two),
            _headline("submit-store", "32 connections, two processes, the same store for all", stored),
            cpu_table(
                "submit-cpu",
                "Where the CPU of a task goes that Sluice accepts: 32 connections, two processes",
                {name: parts(found.get(OURS, {}), "32 ") for name, found in by_store.items()},
            ),
        ],
        plots=[_plot_rates(two), _plot_tails(two)],
        verdicts=_verdicts(two),
    )


# --- measuring -------------------------------------------------------------------------------------------------------


def _proved(lab: Lab, name: str, open_door: Open, proved: set[str]) -> Sample:
    if name not in proved:
        prove(lab, open_door, confirms=name != UNCONFIRMED, is_ours=name.startswith("Sluice"))
        proved.add(name)
    return _all(lab, open_door)


def prove(lab: Lab, open_door: Open, *, confirms: bool, is_ours: bool = False) -> None:
    """Raises Wrong unless the server learns from a full queue what it should: with confirms that its message was
    refused, without them nothing."""
    door = open_door(full_queue(lab))
    try:
        told = any(_is_told(door, is_ours=is_ours) for _ in range(20))
    finally:
        door.process.kill()
        doors.delete_queues(lab, door.queue)
    if told != confirms:
        raise Wrong(f"it was {'' if told else 'not '}told that a full queue refuses its messages")


def _is_told(door: Door, *, is_ours: bool) -> bool:
    """Whether the server says of a task that the queue does not have it: by an error, or, as Sluice does where the
    store has it, by an empty `queued_at`."""
    request = urllib.request.Request(door.url, body_of(None), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer).get("queued_at", "") is None
    except urllib.error.HTTPError as error:
        # Sluice keeps a task that the queue refuses (a 500 would be a fault of its own); the others can only fail.
        return error.code >= 500 and not is_ours


def _all(lab: Lab, open_door: Open) -> Sample:
    """One server, alone on the machine: 1, 32 and 128 connections, a burst and a steady load."""
    burst = QUICK_BURST if lab.quick else BURST
    with opened(lab, open_door) as counted:
        sample = counted.measure("32 ", 32, seconds=lab.seconds, by_part=True)
        sample |= counted.measure("1 ", 1, seconds=lab.seconds / 2)
        sample |= counted.measure("128 ", 128, seconds=lab.seconds / 2)
        sample |= counted.measure("burst ", BURST_CONNECTIONS, requests=burst, look_inside=True)
        sample["burst requests"] = burst
        sample |= counted.measure("steady ", 1, seconds=lab.seconds / 2, rate=STEADY)
        return sample


def _one_load(lab: Lab, open_door: Open) -> Sample:
    with opened(lab, open_door) as counted:
        return counted.measure("32 ", 32, seconds=lab.seconds, by_part=True)


class opened:  # noqa: N801 - used as a function is
    """A door with an empty queue; closed, and its queues deleted, on the way out."""

    def __init__(self, lab: Lab, open_door: Open) -> None:
        self.lab = lab
        self.door = open_door(lab.queue())

    def __enter__(self) -> opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.door.process.kill()  # it has nothing more to do, and some take a second for their goodbye
        doors.delete_queues(self.lab, self.door.queue)

    def measure(
        self,
        prefix: str,
        connections: int,
        *,
        seconds: float | None = None,
        requests: int | None = None,
        rate: float | None = None,
        size: int | None = None,
        look_inside: bool = False,
        by_part: bool = False,
        waiting: int | None = None,
    ) -> Sample:
        """One load, with what it cost. Raises Wrong unless the queue holds exactly what was accepted beside the
        messages that were `waiting` before."""
        pid, rabbit = self.door.process.pid, self.lab.rabbit.pid
        queue = self.door.queue
        ids = self.lab.directory / "ids" if look_inside else None
        with self.lab.channel() as channel:
            if waiting is None:
                channel.queue_purge(queue)
        spending = Spending({"function": pid}, {"RabbitMQ": rabbit, "the database": self.lab.mongo_pid})
        cpu, rabbit_cpu = cpu_seconds(pid), cpu_seconds(rabbit)
        found = load(
            self.door.url, connections=connections, seconds=seconds, requests=requests, rate=rate, size=size, ids=ids
        )
        cpu, rabbit_cpu = cpu_seconds(pid) - cpu, cpu_seconds(rabbit) - rabbit_cpu
        cpu_parts = spending.per(found.accepted) if by_part else {}
        self._check(queue, found, waiting or 0, set() if ids is None else set(ids.read_text().split()))
        answered = found.accepted + found.failed
        client_cpu = found.cpu_seconds / answered * 1e6
        if by_part:
            cpu_parts[f"{CPU_OF}the client"] = client_cpu
        return {
            f"{prefix}/s": found.rate,
            f"{prefix}p50": found.p50,
            f"{prefix}p99": found.p99,
            f"{prefix}failed": found.failed,
            f"{prefix}seconds": found.seconds,
            f"{prefix}cpu": cpu / answered * 1e6,
            f"{prefix}rabbit cpu": rabbit_cpu / answered * 1e6,
            f"{prefix}client cpu": client_cpu,
            f"{prefix}MB": resident_mb(pid),
            **{f"{prefix}{part}": value for part, value in cpu_parts.items()},
        }

    def _check(self, queue: str, found: Load, before: int, ids: set[str]) -> None:
        deadline = time.monotonic() + ARRIVAL_SECONDS
        with self.lab.channel() as channel:
            while (there := doors.waiting(channel, queue) - before) < found.accepted and time.monotonic() < deadline:
                time.sleep(0.02)
            # A request that failed may have left its message, or not.
            if not found.accepted <= there <= found.accepted + found.failed:
                raise Wrong(f"{found.accepted:,} requests were accepted, and {there:,} messages are in the queue")
            if ids and not ids <= (sent := _ids_in(channel, queue, there)):
                raise Wrong(f"{len(ids - sent):,} accepted tasks are not in the queue")


def _ids_in(channel: Any, queue: str, count: int) -> set[str]:
    """Take so many messages, or all that come in time. Returns their tasks' ids: the message's id, or Celery's
    correlation id."""
    found = set()
    taken = channel.consume(queue, auto_ack=True, inactivity_timeout=ARRIVAL_SECONDS)
    for _method, properties, _body in itertools.islice(taken, count):
        if properties is None:
            break
        found.add(properties.message_id or properties.correlation_id)
    channel.cancel()
    return found


# --- showing ---------------------------------------------------------------------------------------------------------


def _headline(slug: str, title: str, figures: Figures) -> Table:
    peer = _best_peer(figures)
    rows = []
    for name, found in figures.items():
        rows.append(
            [
                name,
                number(found["32 /s"].value),
                f"{number(found['32 /s'].low)} to {number(found['32 /s'].high)}",
                "" if peer is None else f"{found['32 /s'].value / peer:.1f} times",
                number(found["32 p50"].value),
                number(found["32 p99"].value),
                number(found["32 cpu"].value),
                number(found["32 rabbit cpu"].value),
                number(found["32 client cpu"].value),
                number(found["32 MB"].value),
                number(found["32 failed"].high),
            ]
        )
    columns = ["", "requests/s", "rounds", "to the best peer", "p50 ms", "p99 ms", "CPU µs/request"]
    columns += ["RabbitMQ's", "the client's", "memory MB", "failed"]
    return Table(slug, f"Submit, {title}", columns, rows + wrong_rows(figures), _NOTES)


_NOTES = [
    "`-`: the peer's default, without publisher confirms; all others wait for the confirm.",
    "CPU: user and system time of all processes of the server, for each answered request. Memory: PSS of them all.",
    "failed: requests without a 202, in the worst round; they count neither as requests nor in the percentiles.",
]


def _by_connections(figures: Figures) -> Table:
    rows = []
    for name, found in figures.items():
        row = [name]
        for prefix in ("1 ", "32 ", "128 "):
            rate, p50, p99 = (found[prefix + measure].value for measure in ("/s", "p50", "p99"))
            row.append(f"{number(rate)} ({number(p50)} / {number(p99)})")
        seconds, p99, failed = (found["burst " + measure].value for measure in ("seconds", "p99", "failed"))
        row.append(f"{number(seconds)} s ({number(p99)})" + (f", {failed:.0f} failed" if failed else ""))
        row.append(f"{number(found['steady p50'].value)} / {number(found['steady p99'].value)}")
        rows.append(row)
    burst = next((found["burst requests"].value for found in figures.values()), BURST)
    columns = ["requests/s (p50 / p99 ms)", "1 connection", "32", "128"]
    columns += [f"burst of {burst:,.0f} (p99)", f"steady {STEADY}/s: p50 / p99"]
    notes = [f"The burst goes over {BURST_CONNECTIONS} connections; its messages' ids are held against the answers'."]
    title = "Submit, two processes, no store, by connections"
    return Table("submit-connections", title, columns, rows + wrong_rows(figures), notes)


def _processes(one: Figures, two: Figures) -> Table:
    rows = []
    for name, found in one.items():
        if name in two:
            alone, pair = found["32 /s"].value, two[name]["32 /s"].value
            memory = f"{number(found['32 MB'].value)} / {number(two[name]['32 MB'].value)}"
            tails = f"{number(found['32 p99'].value)} / {number(two[name]['32 p99'].value)}"
            rows.append([name, number(alone), number(pair), f"{pair / alone:.2f} times", tails, memory])
    columns = ["32 connections, no store", "one process", "two", "gain", "p99 ms, one / two", "MB, one / two"]
    return Table("submit-processes", "Submit, one and two processes, requests/s", columns, rows)


def _best_peer(figures: Figures) -> float | None:
    """Requests/s of the fastest peer with confirms."""
    return max((figures[name]["32 /s"].value for name in (GATEWAY, PER_REQUEST) if name in figures), default=None)


def _plot_rates(figures: Figures) -> Plot:
    def draw(axes: Axes) -> None:
        prefixes = ("1 ", "32 ", "128 ")
        series = {name: [found[f"{prefix}/s"].value for prefix in prefixes] for name, found in figures.items()}
        bars(axes, ["1 connection", "32 connections", "128 connections"], series, "requests/s")
        axes.set_title("Submit, two processes, no store: requests per second (more is better)", fontsize=10)

    return Plot("submit-rates", draw, "Requests per second of each server at 1, 32 and 128 connections")


def _plot_tails(figures: Figures) -> Plot:
    def draw(axes: Axes) -> None:
        prefixes = ("1 ", "32 ", "128 ", "steady ")
        series = {name: [found[f"{prefix}p99"].value for prefix in prefixes] for name, found in figures.items()}
        groups = ["1 connection", "32 connections", "128 connections", f"steady {STEADY}/s"]
        bars(axes, groups, series, "p99, ms (logarithmic)", log=True)
        axes.set_title("Submit, two processes, no store: 99th percentile of the latency (less is better)", fontsize=10)

    return Plot("submit-tails", draw, "99th percentile of the latency of each server by connections")


def _verdicts(figures: Figures) -> list[Verdict]:
    if OURS not in figures:
        return [Verdict("Submit is measured", "correct figures", "none of Sluice", False)]
    ours, found = figures[OURS], []
    for name, factor in ((GATEWAY, 3), (PER_REQUEST, 10)):
        if name not in figures:
            continue
        ratio = ours["32 /s"].value / figures[name]["32 /s"].value
        claim = f"Submit at 32 connections, requests/s against {name}"
        found.append(Verdict(claim, f"≥ {factor} times", f"{ratio:.1f} times", ratio >= factor))
        mine, theirs = ours["32 p99"].value, figures[name]["32 p99"].value
        claim = f"Submit at 32 connections, p99 against {name}"
        found.append(Verdict(claim, f"< {number(theirs)} ms", f"{number(mine)} ms", mine < theirs))
    return found
