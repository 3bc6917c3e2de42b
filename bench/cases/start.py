"""A cold start: from the start of the process to the first message in a handler, and what a worker weighs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymongo

from bench import tasks
from bench.figures import Figures, Plot, Result, Sample, Table, Variant, Verdict, Wrong, interleave, number, wrong_rows
from bench.lab import ROOT, Lab, resident_mb, rss_mb
from bench.ladder import ladder, said
from bench.marks import Marks
from bench.workers import (
    BARE,
    CELERY_THREADS,
    DRAMATIQ_TEN,
    Contender,
    Job,
    calm_down,
    celery,
    dramatiq,
    fresh_queue,
    start,
)
from bench.workers import sluice as bench_engine
from offline_model import OfflineModel
from offline_model.calls import Calls
from sluice.task import Task, parse_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Cold start: a message waits, a worker is started"

OURS = "Sluice's engine"

#: Seconds that something which happens within one may take on a busy machine.
PATIENCE_SECONDS = 60.0

#: Seconds between two looks at a worker that starts: a look takes time from it.
LOOK_SECONDS = 0.1

#: How long the ten tasks run that Sluice's engine is weighed with.
BUSY_SECONDS = 3.0

#: What is promised: milliseconds to the first message and to the first call of the model, megabytes at rest.
MESSAGE_MS, MODEL_MS, REST_MB = 200, 700, 70


def run(lab: Lab) -> Result:
    ours = _programs(lab.directory / "engine", "-r", "functions/engine/requirements.txt")
    theirs = _programs(lab.directory / "peers", "celery", "dramatiq", "pika", "pymongo")
    peers = [
        celery("Celery, its default (prefork, CPUs)"),
        celery("Celery, threads x 10, lean", *CELERY_THREADS, "--without-gossip", "--without-mingle"),
        dramatiq("dramatiq, 1 process x 10 threads", *DRAMATIQ_TEN),
        BARE,
    ]
    variants = [
        Variant(OURS, partial(_sluice, lab, ours), is_ours=True),
        *(Variant(peer.name, partial(_peer, lab, _run_from(theirs, peer))) for peer in peers),
    ]
    for variant in variants:
        variant.measure()  # Python has compiled everything by then
    figures = interleave(variants, lab.rounds)
    return Result(tables=[_table(figures)], plots=[_plot(figures)], verdicts=_verdicts(figures))


def _programs(directory: Path, *packages: str) -> Path:
    """The programs of an environment with these packages and nothing else, as an image has it. The bench's own holds
    much that is imported where it is found (openai then takes aiohttp, for 0.15 s), and what a developer's environment
    does at each start (the finder of the editable install, the .pth files of setuptools and others)."""
    venv.create(directory, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", directory / "bin" / "python", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "-c", "constraints.txt", *packages], cwd=ROOT, check=True)
    return directory / "bin"


def _run_from(programs: Path, contender: Contender) -> Contender:
    """The same program, of this environment."""
    program, *arguments = contender.command
    own = str(programs / ("python" if program == sys.executable else Path(program).name))
    return replace(contender, command=[own, *arguments], environment={**contender.environment, "PYTHONPATH": str(ROOT)})


# --- Sluice's engine as it is: what its handlers report tells when they started --------------------------------------


def _sluice(lab: Lab, programs: Path) -> Sample:
    engine = bench_engine("engine", store=True)
    engine = replace(engine, command=[sys.executable, "-m", "functions.engine.main"], environment={})
    engine = _run_from(programs, engine)
    sample: Sample = {}
    with fresh_queue(lab, engine) as queue, _model() as (model, _):
        engine.fill(lab, queue, Job(count=1))
        started = time.time()
        with _engine(lab, engine, queue, model) as process, pymongo.MongoClient[Any](lab.mongo().uri) as client:
            done = _once(lambda: client[queue]["tasks"].find_one({"status": "completed"}))
            sample["message ms"] = (parse_time(done["steps"][0]["started_at"]).timestamp() - started) * 1000
            calm_down(process.pid)
            sample |= {"RSS at rest MB": rss_mb(process.pid), "PSS at rest MB": resident_mb(process.pid)}
    with fresh_queue(lab, engine) as queue, _model() as (model, calls):
        _send_code(lab, queue, 1)
        before = time.monotonic()
        with _engine(lab, engine, queue, model) as process:
            _once(lambda: calls.moments)
            sample["model ms"] = (calls.moments[0] - before) * 1000
            _once(lambda: not calls.open())
            _send_code(lab, queue, 10, first=1)
            _once(lambda: calls.open() == 10)
            time.sleep(BUSY_SECONDS / 2)
            sample |= {"RSS busy MB": rss_mb(process.pid), "PSS busy MB": resident_mb(process.pid)}
    return sample


def _engine(lab: Lab, engine: Contender, queue: str, model: OfflineModel) -> AbstractContextManager[Any]:
    settings = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "offline", "HOST": "127.0.0.1", "PORT": "0"}
    with_model = Contender(
        engine.name, engine.command, engine.fill, engine.queues, {**engine.environment, **settings}, uses_mongo=True
    )
    return start(lab, with_model, queue, Path("unused"), Job(count=0), wait=False)


def _send_code(lab: Lab, queue: str, count: int, first: int = 0) -> None:
    """Tasks for the model."""

    def code_tasks() -> Iterator[Task]:
        return (tasks.sluice_code_task(number) for number in range(first, first + count))

    tasks.store(lab.mongo().uri, queue, code_tasks())
    tasks.send(lab.rabbit.url, queue, code_tasks())


class NotingCalls(Calls):
    """Knows when each call began."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[float] = []

    def counted(self, request_id: str) -> AbstractContextManager[None]:  # type: ignore[override]
        self.moments.append(time.monotonic())
        return super().counted(request_id)


@contextlib.contextmanager
def _model() -> Iterator[tuple[OfflineModel, NotingCalls]]:
    with OfflineModel(seconds_per_answer=BUSY_SECONDS) as model:
        calls = model._running().calls = NotingCalls()
        yield model, calls


# --- the peers: their handlers leave marks ---------------------------------------------------------------------------


def _peer(lab: Lab, peer: Contender) -> Sample:
    sample: Sample = {}
    with fresh_queue(lab, peer) as queue:
        marks = Marks(lab.directory / queue)
        peer.fill(lab, queue, Job(count=1))
        before = time.monotonic()
        with start(lab, peer, queue, marks.directory, Job(count=0), wait=False) as process:
            _once(lambda: marks.count() == 1)
            sample["message ms"] = (marks.read()[0].started - before) * 1000
            calm_down(process.pid)
            sample |= {"RSS at rest MB": rss_mb(process.pid), "PSS at rest MB": resident_mb(process.pid)}
    with fresh_queue(lab, peer) as queue, Marks(lab.directory / queue) as marks:
        peer.fill(lab, queue, Job(count=10))
        with start(lab, peer, queue, marks.directory, Job(count=0)) as process:
            calm_down(process.pid)  # with all that it takes at once at the gate
            sample |= {"RSS busy MB": rss_mb(process.pid), "PSS busy MB": resident_mb(process.pid)}
            marks.open_gate()
    return sample


def _once(condition: Callable[[], Any]) -> Any:
    """The first true value of the condition. Raises Wrong when there is none in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Wrong(f"the worker did not get so far in {PATIENCE_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
    return value


# --- what it shows ---------------------------------------------------------------------------------------------------


def _table(figures: Figures) -> Table:
    rows = []
    for name, found in figures.items():
        model = found.get("model ms")
        rows.append(
            [
                name,
                f"{found['message ms'].value:.0f} ({found['message ms'].low:.0f}-{found['message ms'].high:.0f})",
                "-" if model is None else f"{model.value:.0f} ({model.low:.0f}-{model.high:.0f})",
                f"{found['RSS at rest MB'].value:.0f} / {found['PSS at rest MB'].value:.0f}",
                f"{found['RSS busy MB'].value:.0f} / {found['PSS busy MB'].value:.0f}",
            ]
        )
    rows += wrong_rows(figures)
    return Table(
        slug="start",
        title="From the start of the process to the first message, milliseconds; memory of all its processes, MB",
        columns=[
            "worker",
            "first message in a handler",
            "first call to the model",
            "at rest, RSS / PSS",
            "ten running",
        ],
        rows=rows,
        notes=[
            "With bytecode, Sluice's engine from an environment with only the packages of its image, the others from "
            "one with theirs. Lowest and highest of the rounds in parentheses.",
            "Sluice's engine and the bare one claim the task in the database before its handler starts. Sluice's ten "
            "tasks ask the model; the others' wait, and as many of them run at once as the worker takes.",
            "RSS counts what processes share in each of them, PSS once among all.",
        ],
    )


def _verdicts(figures: Figures) -> list[Verdict]:
    promises = [
        ("Process start to the first message in a handler", "message ms", MESSAGE_MS, "ms"),
        ("Process start to the first call to the model", "model ms", MODEL_MS, "ms"),
        ("The engine's memory at rest (RSS)", "RSS at rest MB", REST_MB, "MB"),
    ]
    verdicts = []
    for claim, measure, wanted, unit in promises:
        found = figures.get(OURS, {}).get(measure)
        shown = "not measured" if found is None else f"{number(found.value)} {unit}"
        holds = found is not None and found.value <= wanted
        verdicts.append(Verdict(claim, f"at most {wanted} {unit}", shown, holds))
    return verdicts


def _plot(figures: Figures) -> Plot:
    first = {name: found["message ms"] for name, found in figures.items()}

    def draw(axes: Axes) -> None:
        ladder(axes, first, "milliseconds from the start of the process to the first message in a handler")

    return Plot("start", draw, f"Bars of the milliseconds to the first message: {said(first)}.")
