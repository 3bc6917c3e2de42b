from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scaling.api_server import ApiServer
from tests.scaling.node import Node, Pod, PodTemplate, deletion_order
from tests.scaling.scalers import queue_url
from tests.servers.process import ServerProcess
from tests.waiting import eventually

#: An engine's way to go: at SIGTERM it says how much it has to finish.
WORKER = """
import signal, sys, time
def stop(*_):
    print("stopping; 3 tasks are being finished", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(60)
"""

#: One that does not hear.
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    nodes = []

    def start(code: str = WORKER, grace: float = 30.0, start_delay: float = 0.0) -> Node:
        def make(number: int) -> ServerProcess:
            return ServerProcess(f"worker-{number}", [sys.executable, "-c", code], tmp_path)

        nodes.append(Node(make, lambda worker: "up" in worker.log_text(), PodTemplate(grace, {}), start_delay))
        return nodes[-1]

    yield start
    for node in nodes:
        node.close()


def test_pods_are_created_at_once_and_become_ready_later(start: Callable[..., Node]) -> None:
    node = start()
    node.scale(2)
    assert (node.created, node.ready) == (2, 0)
    eventually(lambda: node.ready == 2)


def test_a_pod_that_is_told_to_stop_says_what_it_had_to_finish(start: Callable[..., Node]) -> None:
    node = start()
    node.scale(1)
    eventually(lambda: node.ready == 1)
    node.scale(0)
    assert (node.replicas, node.created) == (0, 0)
    eventually(lambda: node.running == 0)
    assert node.pods[0].stopped_in_mid_work == 3
    assert not node.pods[0].was_killed


def test_a_pod_that_does_not_end_is_killed_after_its_grace(start: Callable[..., Node]) -> None:
    node = start(DEAF, grace=0.5)
    node.scale(1)
    eventually(lambda: node.ready == 1)
    node.scale(0)
    eventually(lambda: node.running == 0)
    assert node.pods[0].was_killed


def test_a_pod_that_has_not_started_goes_first_and_never_starts(start: Callable[..., Node]) -> None:
    node = start(start_delay=30.0)
    node.scale(2)
    node.scale(1)
    gone = [pod for pod in node.pods if pod.ended is not None]
    assert len(gone) == 1
    assert gone[0].launched is None


def test_the_youngest_ready_pod_goes_before_older_ones(tmp_path: Path) -> None:
    def pod(number: int, launched: float | None, ready: float | None) -> Pod:
        process = ServerProcess(f"pod-{number}", ["true"], tmp_path)
        return Pod(process, created=0.0, launched=launched, ready=ready)

    old, young, unready, pending = pod(0, 1, 2), pod(1, 1, 98), pod(2, 1, None), pod(3, None, None)
    order = sorted([old, young, unready, pending], key=lambda pod: deletion_order(pod, 100.0))
    assert order == [pending, unready, young, old]


def test_the_kubernetes_client_reads_the_deployment(tmp_path: Path) -> None:
    from kubernetes import client, config

    counts = [7, 4]
    with ApiServer(lambda: counts[0], lambda: counts[1]) as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        with config.new_client_from_config(str(tmp_path / "kubeconfig")) as connection:
            api = client.AppsV1Api(connection)
            found = api.read_namespaced_deployment("engine", "sluice")
            assert (found.spec.replicas, found.status.ready_replicas) == (7, 4)
            counts[1] = 0
            assert api.read_namespaced_deployment("engine", "sluice").status.ready_replicas is None
            with pytest.raises(client.ApiException) as caught:
                api.read_namespaced_deployment("web", "sluice")
            assert caught.value.status == 404


@pytest.mark.parametrize(
    ("url", "vhost", "expected"),
    [  # `getVhostAndPathFromURLTestData` of KEDA's rabbitmq_scaler_test.go
        ("http://h:1/myVhost", "", "http://h:1/api/queues/myVhost/q"),
        ("http://h:1/%2FmyVhost", "", "http://h:1/api/queues/%2FmyVhost/q"),
        ("http://h:1", "", "http://h:1/api/queues/%2F/q"),
        ("http://h:1/", "", "http://h:1/api/queues/%2F/q"),
        ("http://h:1/%2F", "", "http://h:1/api/queues/%2F/q"),
        ("http://h:1/sub1/myVhost", "", "http://h:1/sub1/api/queues/myVhost/q"),
        ("http://h:1/sub1/", "", "http://h:1/sub1/api/queues/%2F/q"),
        ("http://h:1/sub1/", "other", "http://h:1/sub1/api/queues/other/q"),
        ("http://h:1/sub1/sub2/%2F", "", "http://h:1/sub1/sub2/api/queues/%2F/q"),
        ("http://h:1/myVhost", "other", "http://h:1/api/queues/other/q"),
    ],
)
def test_the_last_part_of_the_url_s_path_is_the_vhost(url: str, vhost: str, expected: str) -> None:
    assert queue_url(url, "q", vhost) == expected
