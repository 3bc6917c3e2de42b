"""Reading: lists, one task, and what need not be sent again; with few and with very many tasks of other users."""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from bench import crowd, readers
from bench.doors import image_command
from bench.figures import Figures, Plot, Result, Sample, Table, Variant, Verdict, Wrong, interleave, number
from bench.lab import Lab, cpu_seconds
from bench.report import COLOURS
from sluice.store import open_mongodb
from tests.servers.ferretdb import FerretDB, ferretdb_missing
from tests.servers.ports import free_port
from tests.servers.process import ServerProcess
from tests.servers.sqlite_plans import Plans
from tests.servers.wire_mongo import WireMongo

TITLE = "Reading: a list of 50 of 10,000 tasks, one task, and 304s"

#: The reader's own tasks. FerretDB reads and sorts all of them for each list, and has fewer.
OWN, OWN_IN_FERRETDB = 10_000, 100

FEW = 1_000

#: How much slower reading may become from the fewest tasks of others to the most.
MAY_SLOW_DOWN = 1.2

#: Ids that single reads take in turn.
IDS = 50

#: A measurement here is shorter than the lab's: there are many, and nothing has to fill or empty.
SHARE_OF_SECONDS = 0.5

#: Before each measurement.
WARM_SECONDS = 0.2

#: What is read, and whether the client says that it has the answer.
READS = {
    "list of 50": ("list", False),
    "list of 50, summaries": ("summary", False),
    "list of 50, not changed (304)": ("list", True),
    "one task": ("task", False),
    "one task, not changed (304)": ("task", True),
}

WHAT_GROWS = ("list of 50", "list of 50, summaries", "one task")

#: The list as the store asks a database for it.
LIST = ({"user_id": crowd.READER}, {"created_at": -1, "_id": -1}, 51)

TURNS_NOTE = "One request at each in turn, so that the machine's noise meets all alike."


@dataclass(frozen=True)
class Place:
    """Sluice's get function on a database with so many tasks of others."""

    others: int
    uri: str
    database: ServerProcess
    function: ServerProcess
    base: str
    ids: list[str]

    def urls(self, what: str) -> list[str]:
        if what == "task":
            return [f"{self.base}/tasks/get/{task_id}" for task_id in self.ids]
        view = "&view=summary" if what == "summary" else ""
        return [f"{self.base}/tasks/get?user_id={crowd.READER}&limit=50{view}"]


def run(lab: Lab) -> Result:
    sizes = [FEW, 20_000 if lab.quick else 1_000_000]
    result = Result()
    with contextlib.ExitStack() as exits:
        places, notes = [], []
        for others in sizes:
            started = time.monotonic()
            server = crowd.wire(lab.directory / f"crowd-{others}", OWN, others)
            exits.callback(server.stop)
            notes.append(f"{others:,} in {time.monotonic() - started:.0f} s")
            places.append(exits.enter_context(_place(lab, server, others, crowd.ids_of(server.uri, IDS))))
        measure_reads(lab, places[0], result)
        measure_growth(lab, places, result, f"Filled: {', '.join(notes)}.")
    if (missing := ferretdb_missing()) is None:
        measure_ferretdb(lab, 10_000 if lab.quick else 100_000, result)  # it grows slower, and slowly
    else:
        result.tables[-1].notes.append(f"No real server: {missing}.")
    return result


@contextlib.contextmanager
def _place(lab: Lab, server: WireMongo | FerretDB, others: int, ids: list[str]) -> Iterator[Place]:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    environment = {
        "FUNCTION_SOURCE": "functions/get_tasks/main.py",
        "FUNCTION_TARGET": "get_tasks",
        "MONGODB_URI": server.uri,
        "MONGODB_DATABASE": crowd.DATABASE,
        "RABBITMQ_URL": lab.rabbit.url,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": "1",
    }

    def ready() -> bool:
        with urllib.request.urlopen(f"{base}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)

    with lab.start("get-tasks", image_command(), environment, ready) as function:
        yield Place(others, server.uri, server, function, base, ids)


# --- every read ------------------------------------------------------------------------------------------------------


def measure_reads(lab: Lab, place: Place, result: Result) -> None:
    counts = (1, 32)
    variants = [
        Variant(f"{name}, {connections}", functools.partial(_read, lab, place, what, known, connections), is_ours=True)
        for name, (what, known) in READS.items()
        for connections in counts
    ]
    figures = interleave(variants, lab.rounds)
    rows = []
    for name in READS:
        for connections in counts:
            found = figures.get(f"{name}, {connections}")
            if found is None:
                rows.append([name, str(connections), f"WRONG: {figures.wrong[f'{name}, {connections}']}"])
            else:
                measures = ("requests/s", "p50 ms", "p99 ms", "CPU ms", "database ms")
                rows.append([name, str(connections), *(number(found[measure].value) for measure in measures)])
    columns = ["read", "connections", "requests/s", "p50 ms", "p99 ms", "CPU ms/request", "the database's"]
    notes = [
        f"One process of the get function, as its image runs it; wire database; {OWN:,} tasks of this user and {FEW:,} "
        "of others. Each answer's length, and each twentieth answer byte by byte, is held against the right one."
    ]
    result.tables.append(Table("read", "Reading over HTTP", columns, rows, notes))


def _read(lab: Lab, place: Place, what: str, known: bool, connections: int) -> Sample:
    readers.load(place.urls(what), connections=connections, seconds=WARM_SECONDS, known=known)
    before = cpu_seconds(place.function.pid), cpu_seconds(place.database.pid)
    seconds = lab.seconds * SHARE_OF_SECONDS
    reads = readers.load(place.urls(what), connections=connections, seconds=seconds, known=known)
    after = cpu_seconds(place.function.pid), cpu_seconds(place.database.pid)
    return {
        "requests/s": reads.rate,
        "p50 ms": reads.p50,
        "p99 ms": reads.p99,
        "CPU ms": (after[0] - before[0]) / reads.count * 1000,
        "database ms": (after[1] - before[1]) / reads.count * 1000,
    }


# --- many tasks of others --------------------------------------------------------------------------------------------


def measure_growth(lab: Lab, places: Sequence[Place], result: Result, filled: str) -> None:
    variants = [_turns(lab, name, places) for name in WHAT_GROWS]
    figures = interleave(variants, lab.rounds)
    sizes = [place.others for place in places]
    rows = [_growth_row(figures, name, name, sizes) for name in WHAT_GROWS]
    notes = [
        f"The wire database, whose indexes work as MongoDB's do, in memory; {OWN:,} tasks of the reader. {filled}",
        TURNS_NOTE,
    ]
    columns = ["p50 ms, 1 connection", *(f"{others:,} of others" for others in sizes), "last : first"]
    result.tables.append(Table("read-growth", "Reading with very many tasks of others", columns, rows, notes))
    result.plots.append(
        Plot(
            "read-growth",
            functools.partial(_draw, figures, sizes),
            "The time of a list and of one task over the number of other users' tasks: flat lines.",
        )
    )
    for name in ("list of 50", "one task"):
        claim = f"{name}, from {FEW:,} to {sizes[-1]:,} tasks of others"
        result.verdicts.append(_verdict(claim, _ratio(figures, name, sizes)))


def _turns(lab: Lab, name: str, places: Sequence[Place]) -> Variant:
    """The same read on all of these places, one request at each in turn."""
    urls = {f"{place.others}": place.urls(READS[name][0]) for place in places}
    return Variant(name, lambda: readers.take_turns(urls, lab.seconds), is_ours=True)


def _growth_row(figures: Figures, name: str, shown: str, sizes: Sequence[int]) -> list[str]:
    if name not in figures:
        return [shown, f"WRONG: {figures.wrong[name]}"]
    return [shown, *(number(figures[name][str(n)].value) for n in sizes), f"{_ratio(figures, name, sizes):.2f}"]


def _ratio(figures: Figures, name: str, sizes: Sequence[int]) -> float:
    """The last in terms of the first: the median of the rounds."""
    samples = figures.samples.get(name, [])
    if name not in figures or not samples:
        return float("nan")
    return statistics.median(sample[str(sizes[-1])] / sample[str(sizes[0])] for sample in samples)


def _verdict(claim: str, ratio: float) -> Verdict:
    return Verdict(claim, f"at most {MAY_SLOW_DOWN} times slower", f"{ratio:.2f} times", ratio <= MAY_SLOW_DOWN)


def _draw(figures: Figures, sizes: Sequence[int], axes: Axes) -> None:
    for name, colour in zip(WHAT_GROWS, COLOURS, strict=False):
        if name in figures:
            values = [figures[name][str(others)].value for others in sizes]
            axes.plot(sizes, values, marker="o", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tasks of other users")
    axes.set_ylabel("p50 in ms, 1 connection")
    axes.legend()


# --- a real server ---------------------------------------------------------------------------------------------------


def measure_ferretdb(lab: Lab, most: int, result: Result) -> None:
    """FerretDB finds one task by an index, and hands no other query to its database: it reads all that there are. So a
    list is measured twice: as FerretDB does it, on a few tasks, and as its SQLite does it with the same indexes."""
    with contextlib.ExitStack() as exits:
        places: dict[int, Place] = {}
        plans: dict[int, Plans] = {}
        started = time.monotonic()
        for others in (FEW, most):
            folder = lab.directory / f"ferretdb-{others}"
            server = crowd.ferretdb(folder, OWN_IN_FERRETDB, others)
            exits.callback(server.stop)
            plans[others] = exits.enter_context(contextlib.closing(Plans(crowd.file_of(folder), "tasks")))
            ids = [str(document["_id"]) for document in plans[others].find(*LIST)][:IDS]
            places[others] = exits.enter_context(_place(lab, server, others, ids))
        seconds = time.monotonic() - started
        by_index = {str(others): functools.partial(plan.find, *LIST) for others, plan in plans.items()}
        variants = [
            _turns(lab, "one task", list(places.values())),
            Variant("list of 50", lambda: _lists(by_index), is_ours=True),
            Variant("as FerretDB does it", lambda: _lists({str(FEW): lambda: _list(places[FEW].uri)}, 3), is_ours=True),
        ]
        figures = interleave(variants, lab.rounds)
        steps = plans[most].explain(*LIST)
    sizes = [FEW, most]
    rows = [
        _growth_row(figures, "one task", "one task, over HTTP", sizes),
        _growth_row(figures, "list of 50", "list of 50, SQLite alone, by its index", sizes),
    ]
    by_itself = figures.get("as FerretDB does it", {}).get(str(FEW))
    rows.append(
        ["list of 50, as FerretDB does it", "WRONG" if by_itself is None else number(by_itself.value), "-", "-"]
    )
    columns = ["p50 ms, 1 connection", *(f"{others:,} of others" for others in sizes), "last : first"]
    notes = [
        f"FerretDB 1.24 with SQLite; {OWN_IN_FERRETDB} tasks of the reader. Filled in {seconds:.0f} s by SQLite. "
        f"Its plan for the list: {'; '.join(steps)}.",
        "FerretDB gives SQLite no condition but a lone `_id`, and sorts by itself: a list costs it the more the more "
        "tasks there are, of whomever, with any index. MongoDB uses them. Its index of `_id` is written otherwise than "
        "its query (`->\"_id\"`, `->'$._id'`), so that SQLite does not use it: one that does was added by hand.",
        TURNS_NOTE,
    ]
    result.tables.append(Table("read-ferretdb", "The same on a real server", columns, rows, notes))
    for name, claim in (("one task", "one task, FerretDB"), ("list of 50", "the list's index in SQLite")):
        ratio = _ratio(figures, name, sizes)
        result.verdicts.append(_verdict(f"{claim}, from {FEW:,} to {most:,} tasks of others", ratio))


def _lists(finds: Mapping[str, Callable[[], list[Any]]], count: int = 200) -> Sample:
    """The p50 of each of these lists, taken in turn."""
    found: dict[str, list[float]] = {name: [] for name in finds}
    order = list(finds)
    for _ in range(count):
        order.reverse()
        for name in order:
            started = time.perf_counter()
            documents = finds[name]()
            found[name].append((time.perf_counter() - started) * 1000)
            if len(documents) != LIST[2]:
                raise Wrong(f"the list has {len(documents)} tasks")
    return {name: statistics.median(times) for name, times in found.items()}


def _list(uri: str) -> list[Any]:
    store = open_mongodb(uri, crowd.DATABASE, timeout=60)
    try:
        return store.page(crowd.READER, limit=LIST[2])[0]
    finally:
        store.close()
