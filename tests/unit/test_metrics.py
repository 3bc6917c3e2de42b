"""What is counted is what Prometheus reads, in one process as in many that share their metrics."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluice import metrics
from sluice.metrics import Counter, Family, Gauge, Histogram, exposition

COUNT = (
    "from sluice.metrics import *; REQUESTS.labels('f', 'GET', 200).inc(); REQUEST_SECONDS.labels('f').observe(0.003)"
)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    known = len(metrics.FAMILIES)
    yield
    del metrics.FAMILIES[known:]


def samples(body: bytes) -> dict[str, float]:
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(body.decode())
    return {
        f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
        for family in families
        for sample in family.samples
    }


def test_a_counter_counts_by_its_labels() -> None:
    family = Family("test_total", "Tests.", ("kind", "status"), Counter)
    family.labels("code", 200).inc()
    family.labels("code", 200).inc()
    family.labels("message", 404).inc()
    content_type, body = exposition()
    assert content_type.startswith("text/plain")
    assert b"# HELP test_total Tests.\n# TYPE test_total counter\n" in body
    assert samples(body)["test_total[('kind', 'code'), ('status', '200')]"] == 2
    assert samples(body)["test_total[('kind', 'message'), ('status', '404')]"] == 1


def test_a_gauge_goes_up_and_down() -> None:
    gauge = Family("test", "Tests.", (), Gauge).labels()
    gauge.inc()
    gauge.inc()
    gauge.dec()
    assert samples(exposition()[1])["test"] == 1


def test_a_histogram_counts_what_is_up_to_each_bound() -> None:
    histogram = Family("test_seconds", "Tests.", (), lambda: Histogram((0.01, 1))).labels()
    for seconds in (0.01, 0.02, 1, 5):
        histogram.observe(seconds)
    found = samples(exposition()[1])
    buckets = [found[f"test_seconds_bucket[('le', '{bound}')]"] for bound in ("0.01", "1.0", "+Inf")]
    assert buckets == [1, 3, 4]
    assert (found["test_seconds_count"], found["test_seconds_sum"]) == (4, 6.03)


def test_a_family_wants_a_value_for_each_label() -> None:
    family = Family("test_total", "Tests.", ("kind",), Counter)
    for values in ((), ("code", "both")):
        with pytest.raises(ValueError, match="kind"):
            family.labels(*values)


def test_a_metric_without_labels_is_there_before_it_counts() -> None:
    assert samples(exposition()[1])["sluice_tasks_running"] == metrics.TASKS_RUNNING._count


@pytest.mark.usefixtures("hasty")
def test_threads_that_count_at_once_lose_nothing() -> None:
    family = Family("test_total", "Tests.", ("kind",), Counter)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(lambda: [family.labels(f"{number % 50}").inc() for number in range(1000)])
    assert sum(value for name, value in samples(exposition()[1]).items() if name.startswith("test_total")) == 8000


@pytest.fixture
def hasty() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_processes_that_share_their_metrics_answer_for_each_other(tmp_path: Path, root: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", COUNT], cwd=root, env=environment, check=True)
    found = samples(exposition(str(tmp_path))[1])
    assert found["sluice_requests_total[('function', 'f'), ('method', 'GET'), ('status', '200')]"] == 2
    assert found["sluice_request_seconds_bucket[('function', 'f'), ('le', '0.005')]"] == 2


def test_shared_and_unshared_metrics_read_the_same(tmp_path: Path, root: Path) -> None:
    program = f"{COUNT}; import sys; sys.stdout.buffer.write(exposition(sys.argv[1] if sys.argv[1:] else None)[1])"
    texts = []
    for environment, arguments in (({}, []), ({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}, [str(tmp_path)])):
        command = [sys.executable, "-c", program, *arguments]
        run = subprocess.run(command, cwd=root, env={**os.environ, **environment}, capture_output=True, check=True)
        texts.append(samples(run.stdout))
    alone, shared = texts
    # Of those that share, each tells only what it has seen.
    assert {name: value for name, value in alone.items() if re.match("sluice_request", name)} == {
        name: value for name, value in shared.items() if re.match("sluice_request", name)
    }


def test_counting_needs_no_prometheus_client(root: Path) -> None:
    program = f"{COUNT}; import sys; print('prometheus_client' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
