"""What is broken, when, and for how long: drawn from a seed, and the same seed breaks the same things.

Faults come in lanes. A lane does one thing at a time; the lanes run side by side, so that any fault of one meets any
fault of the others.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

ENGINES = ("engine-0", "engine-1", "engine-2")
FUNCTIONS = ("add_task", "get_tasks", "cancel_task", "retry_task")

#: The way from whom to what. All functions share theirs; each engine has its own.
LINKS = (
    *(f"{who}>{what}" for who in ("functions", *ENGINES) for what in ("broker", "database")),
    "engines>model",
)


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort of fault: whom it may befall, for how many seconds, and how often it is drawn beside the others."""

    name: str
    targets: tuple[str, ...]
    lasts: tuple[float, float] = (0.0, 0.0)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Lane:
    """Faults that never overlap each other, with a pause of so many seconds between two."""

    name: str
    pause: tuple[float, float]
    sorts: tuple[Sort, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Times are in seconds, `at` from the start of the storm; `draw` (0 to 1) settles what its sort leaves
    open, as how slow a slow link is."""

    at: float
    lane: str
    sort: str
    target: str
    lasts: float
    draw: float

    def __str__(self) -> str:
        return f"{self.at:7.2f}  {self.lane:<9}  {self.sort:<12}  {self.target:<20}  {self.lasts:5.2f} s"


LANES = (
    Lane(
        "engines",
        (1.0, 5.0),
        (
            Sort("kill", (*ENGINES, "all"), (0.0, 2.0), 3),
            Sort("terminate", ENGINES, (0.0, 1.0), 2),
            Sort("freeze", ENGINES, (0.5, 8.0), 2),
        ),
    ),
    Lane(
        "functions",
        (2.0, 6.0),
        (
            Sort("kill", FUNCTIONS, (0.0, 1.0), 2),
            Sort("terminate", FUNCTIONS, (0.0, 1.0)),
            Sort("freeze", FUNCTIONS, (0.5, 4.0)),
        ),
    ),
    Lane(
        "servers",
        (6.0, 14.0),
        (
            Sort("kill", ("broker", "database", "broker+database"), (0.0, 4.0), 2),
            Sort("stop", ("broker", "database"), (0.0, 4.0)),
            Sort("freeze", ("broker", "database", "broker+database"), (1.0, 6.0), 2),
        ),
    ),
    Lane(
        "links",
        (1.0, 4.0),
        (
            Sort("reset", LINKS, weight=2),
            Sort("cut", LINKS, (0.5, 2.0), 2),
            Sort("drop", LINKS, (1.0, 6.0), 2),
            Sort("drop", ("functions>*",), (3.0, 6.0), 2),  # what is accepted now is kept by nobody
            Sort("stall", LINKS, (1.0, 6.0)),
            Sort("half-open", LINKS, (1.0, 6.0)),
            Sort("delay", LINKS, (2.0, 6.0)),
            Sort("throttle", LINKS, (2.0, 6.0)),
            Sort("refuse", LINKS, (1.0, 4.0)),
        ),
    ),
    Lane(
        "model",
        (2.0, 6.0),
        tuple(
            Sort(name, ("model",), (1.0, 4.0))
            for name in (
                *("429", "500", "401", "hang", "hang_midway", "cut_off", "length"),
                *("refuse", "content_filter", "empty", "garbage", "html", "no_choices"),
            )
        ),
    ),
    Lane(
        "queue",
        (2.0, 6.0),
        (
            Sort("garbage", ("tasks", "dead", "retry"), weight=2),
            Sort("duplicate", ("tasks", "dead", "retry"), weight=2),
            Sort("steal", ("tasks",)),
        ),
    ),
)


def schedule(seed: int, seconds: float) -> list[Fault]:
    """All faults of a storm of so many seconds, in the order of their times; each is over when the storm is."""
    faults = [fault for lane in LANES for fault in _of(lane, random.Random(f"{seed} {lane.name}"), seconds)]
    return sorted(faults, key=lambda fault: fault.at)


def _of(lane: Lane, dice: random.Random, seconds: float) -> list[Fault]:
    faults: list[Fault] = []
    at = dice.uniform(*lane.pause)
    while True:
        (sort,) = dice.choices(lane.sorts, [sort.weight for sort in lane.sorts])
        target, lasts, draw = dice.choice(sort.targets), dice.uniform(*sort.lasts), dice.random()
        if at + lasts > seconds:
            return faults
        faults.append(Fault(round(at, 3), lane.name, sort.name, target, round(lasts, 3), draw))
        at += lasts + dice.uniform(*lane.pause)
