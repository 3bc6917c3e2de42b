"""The metrics, for Prometheus. What each means to the people on duty: docs/metrics.md.

They are counted here in plain Python, and handed to prometheus_client when somebody asks for them: its import is a
tenth of an engine's start, and its counters cost a task several times as much. Only the worker processes of one
function, which answer for each other through files, count by prometheus_client itself.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import Any, Generic, TypeVar, cast

from sluice.settings import shares_metrics

#: The end of a sample's name, the labels that only it has, and its value.
Sample = tuple[str, dict[str, str], float]

#: The values of a metric's labels, in their order.
Values = tuple[str | int, ...]


class Counter:
    """How often something happened. Safe to use from many threads at once, as the others are."""

    TYPE = "counter"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def inc(self) -> None:
        with self._lock:
            self._count += 1

    def samples(self) -> Iterator[Sample]:
        yield "_total", {}, self._count


class Gauge(Counter):
    """How many there are now."""

    TYPE = "gauge"

    def dec(self) -> None:
        with self._lock:
            self._count -= 1

    def samples(self) -> Iterator[Sample]:
        yield "", {}, self._count


class Histogram:
    """How long something took: how often up to each of the `buckets`, in seconds."""

    TYPE = "histogram"

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.buckets = buckets
        self._lock = threading.Lock()
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        bucket = bisect_left(self.buckets, seconds)
        with self._lock:
            self._counts[bucket] += 1
            self._sum += seconds

    def samples(self) -> Iterator[Sample]:
        with self._lock:
            up_to, total = list(accumulate(self._counts)), self._sum
        for bound, count in zip([*map(float, self.buckets), "+Inf"], up_to, strict=True):
            yield "_bucket", {"le": str(bound)}, count
        yield "_count", {}, up_to[-1]
        yield "_sum", {}, total


M = TypeVar("M", Counter, Gauge, Histogram)

FAMILIES: list[Family[Any]] = []


class Family(Generic[M]):
    """All metrics of one name, each with its own values of the labels."""

    def __init__(self, name: str, documentation: str, label_names: tuple[str, ...], make: Callable[[], M]) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = label_names
        self._make: Callable[[Values], M] = _shared(self, make()) if shares_metrics() else lambda _: make()
        self._type = make().TYPE
        self._lock = threading.Lock()
        self._metrics: dict[Values, M] = {}
        FAMILIES.append(self)

    def labels(self, *values: str | int) -> M:
        """The metric whose labels have these values, in their order."""
        return self._metrics.get(values) or self._add(values)

    def _add(self, values: Values) -> M:
        if len(values) != len(self.label_names):
            raise ValueError(f"{self.name} takes a value for each of its labels: {', '.join(self.label_names)}")
        with self._lock:  # two threads that come first must not count apart
            if values not in self._metrics:
                self._metrics[values] = self._make(values)
            return self._metrics[values]

    def collect(self) -> Any:
        """What has been counted, in prometheus_client's words."""
        from prometheus_client.metrics_core import Metric

        base = self.name.removesuffix("_total")
        family = Metric(base, self.documentation, self._type)
        with self._lock:
            metrics = list(self._metrics.items())
        for values, metric in metrics:
            labels = dict(zip(self.label_names, map(str, values), strict=True))
            for ending, more, value in metric.samples():
                family.add_sample(base + ending, {**labels, **more}, value)
        return family


def _shared(family: Family[M], like: M) -> Callable[[Values], M]:
    """Metrics of prometheus_client, which count in files that all worker processes of a function read."""
    import prometheus_client

    arguments = family.name, family.documentation, family.label_names
    theirs: Any
    match like:
        case Gauge():
            theirs = prometheus_client.Gauge(*arguments, multiprocess_mode="livesum")
        case Counter():
            theirs = prometheus_client.Counter(*arguments)
        case Histogram():
            theirs = prometheus_client.Histogram(*arguments, buckets=like.buckets)
    return lambda values: cast("M", theirs.labels(*values) if values else theirs)


class _Ours:
    @staticmethod
    def collect() -> Iterator[Any]:
        for family in FAMILIES:
            yield family.collect()


_is_registered = threading.Event()
_registering = threading.Lock()


def _registry() -> Any:
    """What prometheus_client knows of by itself (the process, Python), and what is counted here."""
    from prometheus_client import REGISTRY

    with _registering:
        if not _is_registered.is_set():
            REGISTRY.register(_Ours())
            _is_registered.set()
    return REGISTRY


def exposition(shared_in: str | None = None) -> tuple[str, bytes]:
    """All metrics, as Prometheus reads them: content type and body. `shared_in` is the folder where the worker
    processes of a function share theirs, if they do."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    if shared_in is None:
        return CONTENT_TYPE_LATEST, generate_latest(_registry())
    registry = CollectorRegistry()
    MultiProcessCollector(registry, shared_in)  # type: ignore[no-untyped-call]
    return CONTENT_TYPE_LATEST, generate_latest(registry)


REQUESTS = Family("sluice_requests_total", "HTTP requests answered.", ("function", "method", "status"), Counter)
REQUEST_SECONDS = Family(
    "sluice_request_seconds",
    "Time to answer an HTTP request.",
    ("function",),
    partial(Histogram, (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)),
)
TASKS_ACCEPTED = Family(
    "sluice_tasks_accepted_total", "Tasks accepted, by where they were kept at first.", ("kind", "kept_by"), Counter
)
TASKS_STARTED = Family("sluice_tasks_started_total", "Attempts started.", ("kind",), Counter)
TASKS_FINISHED = Family(
    "sluice_tasks_finished_total", "Tasks that an engine brought to an end.", ("kind", "reason"), Counter
)
TASKS_PUT_OFF = Family(
    "sluice_tasks_put_off_total", "Attempts that ended with a transient error.", ("kind", "reason"), Counter
)
TASKS_RUNNING = Family("sluice_tasks_running", "Tasks in a handler now.", (), Gauge).labels()
TASK_SECONDS = Family(
    "sluice_task_seconds",
    "Time from an attempt's start to its end.",
    ("kind",),
    partial(Histogram, (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)),
)
QUEUED_SECONDS = Family(
    "sluice_task_queued_seconds",
    "Time from a task's acceptance to its first start.",
    (),
    partial(Histogram, (0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)),
).labels()
TASKS_MENDED = Family(
    "sluice_tasks_mended_total", "Tasks that the sweep mended, by what was wrong.", ("fault",), Counter
)
MESSAGES_REDELIVERED = Family(
    "sluice_messages_redelivered_total",
    "Messages that the broker handed out again: their first taker went away.",
    (),
    Counter,
).labels()
MESSAGES_UNREADABLE = Family("sluice_messages_unreadable_total", "Messages that were no tasks.", (), Counter).labels()
