"""A node of the control plane whose containers are processes of this machine, or are only said to run.

What it takes from a pod is what these manifests use: command, environment, readiness probe, pause before SIGTERM, grace
period and restart policy. Each pod gets an address of its own in 127.0.0.0/8, so that all may listen on the same port.
"""

from __future__ import annotations

import base64
import itertools
import os
import random
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from tests.control_plane.cluster import ControlPlane
from tests.servers.process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]

#: Seconds between two looks: at the pods that there should be, at a process, and at a probe.
LOOK_SECONDS = 0.2

#: Seconds between two signs of life. The controllers give a node up after 50.
SIGN_SECONDS = 10.0

#: More than the tests will ask for: whether there is room is not their question.
CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "200", "ephemeral-storage": "256Gi"}

#: For the claims of RabbitMQ and MongoDB, which are not let in before they have one.
DISKS = [
    {
        "metadata": {"name": f"disk-{number}"},
        "spec": {"capacity": {"storage": "64Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/nowhere"}},
    }
    for number in (1, 2)
]


@dataclass(frozen=True)
class Image:
    """What a container of an image runs: its command (unless the pod has one) and its environment."""

    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Node:
    """The node, from entry to exit. `images` says, by name (`sluice/engine`), what has a process; other containers are
    only said to run, and those of a Job to have succeeded. `environment` comes last in every process."""

    def __init__(
        self, plane: ControlPlane, directory: Path, images: Mapping[str, Image], environment: Mapping[str, str]
    ) -> None:
        self.name = "this-machine"
        self.plane = plane
        self.directory = directory
        self.images = images
        self.environment = environment
        #: (Unix time, pod, "started" | "ready" | "told to stop" | "ended with CODE"), in order.
        self.events: list[tuple[float, str, str]] = []
        self._numbers = itertools.count(1)
        self._network = f"{random.randrange(10, 250)}.{random.randrange(250)}"
        self._pods: dict[str, _Pod] = {}
        self._left = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="node")

    def __enter__(self) -> Node:
        node = {"kind": "Node", "metadata": {"name": self.name, "labels": {"kubernetes.io/os": "linux"}}}
        self.plane.api.post("/api/v1/nodes", json=node).raise_for_status()
        for disk in DISKS:
            self.plane.api.post("/api/v1/persistentvolumes", json=disk).raise_for_status()
        self._give_sign()
        self._keeper.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        self._keeper.join()
        for pod in self._pods.values():
            pod.leave()

    def address(self, pod: str) -> str:
        """Where a running pod's process listens. Raises KeyError."""
        return {one.name: one.address for one in self._pods.values()}[pod]

    def note(self, pod: str, what: str) -> None:
        self.events.append((time.time(), pod, what))

    def _keep(self) -> None:
        signed = time.monotonic()
        while not self._left.wait(LOOK_SECONDS):
            if time.monotonic() - signed > SIGN_SECONDS:
                self._give_sign()
                signed = time.monotonic()
            wanted = self.plane.get(f"/api/v1/pods?fieldSelector=spec.nodeName={self.name}")["items"]
            for manifest in wanted:
                uid = manifest["metadata"]["uid"]
                if uid not in self._pods:
                    self._pods[uid] = _Pod(self, manifest, f"{self._network}.{next(self._numbers)}")
                if "deletionTimestamp" in manifest["metadata"]:
                    self._pods[uid].delete(manifest["metadata"]["deletionGracePeriodSeconds"])

    def _give_sign(self) -> None:
        condition = {"type": "Ready", "status": "True", "reason": "Here", "lastHeartbeatTime": _now()}
        status = {"capacity": CAPACITY, "allocatable": CAPACITY, "conditions": [condition]}
        self.plane.patch(f"/api/v1/nodes/{self.name}/status", {"status": status})


class _Pod:
    """One pod's life, in a thread of its own: start, become ready, and end by itself or when it is deleted."""

    def __init__(self, node: Node, manifest: dict[str, Any], number: str) -> None:
        self.node = node
        self.name: str = manifest["metadata"]["name"]
        self.path = f"/api/v1/namespaces/{manifest['metadata']['namespace']}/pods/{self.name}"
        self.namespace = self.path.rpartition("/pods/")[0]
        self.uid = manifest["metadata"]["uid"]
        self.spec = manifest["spec"]
        # Endpoints must not be of the loopback network: the API is told another address.
        self.address, self.told_address = f"127.{number}", f"10.{number}"
        self._deleted = threading.Event()
        self._left = False
        self._grace_seconds = 0.0
        self._processes: list[ServerProcess] = []
        self._thread = threading.Thread(target=self._live, name=self.name)
        self._thread.start()

    def delete(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._deleted.set()

    def leave(self) -> None:
        """Kill its processes, without a word to anybody."""
        self._left = True
        self._deleted.set()
        self._thread.join()

    def _live(self) -> None:
        try:
            self._processes = [
                self._process(container) for container in self.spec["containers"] if self._is_real(container)
            ]
            for process in self._processes:
                process.launch()
            self.node.note(self.name, "started")
            code = self._run()
            if code is None:
                self._end()
            else:
                self.node.note(self.name, f"ended with {code}")
                self._report("Failed" if code else "Succeeded", ready=False, code=code)
                self._deleted.wait()
                self._forget()
        finally:
            for process in self._processes:
                process.kill()

    def _run(self) -> int | None:
        """The exit code of the first process that ends by itself; None when the pod is deleted before."""
        if not self._processes and self.spec["restartPolicy"] == "Never":
            return 0
        ready = False
        self._report("Running", ready)
        while not self._deleted.wait(LOOK_SECONDS):
            codes = [process.exit_code for process in self._processes if not process.running]
            if codes:
                return codes[0]
            if not ready and all(self._is_ready(container) for container in self.spec["containers"]):
                ready = True
                self._report("Running", ready)
                self.node.note(self.name, "ready")
        return None

    def _end(self) -> None:
        """As a kubelet does: the pause, SIGTERM, and SIGKILL when the grace period, which has begun with the pause, is
        over."""
        if self._left:
            return
        self.node.note(self.name, "told to stop")
        deadline = time.monotonic() + self._grace_seconds
        hooks = [container.get("lifecycle", {}).get("preStop", {}) for container in self.spec["containers"]]
        time.sleep(max(hook.get("sleep", {}).get("seconds", 0) for hook in hooks) if self._processes else 0)
        for process in self._processes:
            process.terminate()
        while any(process.running for process in self._processes) and time.monotonic() < deadline and not self._left:
            time.sleep(LOOK_SECONDS)
        codes = [process.kill() for process in self._processes]
        self.node.note(self.name, f"ended with {codes[0] if codes else 0}")
        if not self._left:
            self._forget()

    def _forget(self) -> None:
        """Tell the API that nothing of the pod is left."""
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        answer = self.node.plane.api.request("DELETE", self.path, json=options)
        if answer.status_code not in (404, 409):  # somebody else may have been faster
            answer.raise_for_status()

    def _report(self, phase: str, ready: bool, code: int | None = None) -> None:
        state = {"running": {"startedAt": _now()}} if code is None else {"terminated": {"exitCode": abs(code)}}
        truth = str(ready)
        status = {
            "phase": phase,
            "podIP": self.told_address,
            "podIPs": [{"ip": self.told_address}],
            "startTime": _now(),
            "conditions": [
                {"type": name, "status": truth, "lastTransitionTime": _now()} for name in ("Ready", "ContainersReady")
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": container["image"],
                    "ready": ready,
                    "restartCount": 0,
                    "state": state,
                }
                for container in self.spec["containers"]
            ],
        }
        self.node.plane.patch(f"{self.path}/status", {"status": status})

    def _is_real(self, container: dict[str, Any]) -> bool:
        return _image(container) in self.node.images

    def _is_ready(self, container: dict[str, Any]) -> bool:
        """What the readiness probe says, at the address where the process listens."""
        probe = container.get("readinessProbe", {}).get("httpGet")
        if probe is None or not self._is_real(container):
            return True
        (port,) = [port["containerPort"] for port in container["ports"] if port["name"] == probe["port"]]
        try:
            return bool(httpx2.get(f"http://{self.address}:{port}{probe['path']}", timeout=5).status_code == 200)
        except httpx2.TransportError:
            return False

    def _process(self, container: dict[str, Any]) -> ServerProcess:
        image = self.node.images[_image(container)]
        command = [*(container.get("command") or image.command), *container.get("args", [])]
        if command[0] == "python":
            command[0] = sys.executable
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **image.environment,
            **dict(self._variables(container)),
            "HOST": self.address,
            **self.node.environment,
        }
        directory = self.node.directory / self.name
        environment["HOME"] = environment["TMPDIR"] = str(directory)
        return ServerProcess(
            container["name"],
            command,
            directory,
            environment,
            working_directory=ROOT,
        )

    def _variables(self, container: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Raises httpx2.HTTPStatusError for a Secret or ConfigMap that is missing, KeyError for a key."""
        for source in container.get("envFrom", []):
            yield from self._content("configmaps", source["configMapRef"]).items()
        for variable in container.get("env", []):
            if "value" in variable:
                yield variable["name"], variable["value"]
                continue
            source = variable["valueFrom"]["secretKeyRef"]
            content = self._content("secrets", source)
            if source["key"] in content or not source.get("optional"):
                yield variable["name"], content[source["key"]]

    def _content(self, kind: str, source: dict[str, Any]) -> dict[str, str]:
        answer = self.node.plane.api.get(f"{self.namespace}/{kind}/{source['name']}")
        if answer.status_code == 404 and source.get("optional"):
            return {}
        content: dict[str, str] = answer.raise_for_status().json().get("data", {})
        if kind == "configmaps":
            return content
        return {name: base64.b64decode(value).decode() for name, value in content.items()}


def _image(container: dict[str, Any]) -> str:
    """The name as in the base, without registry and tag; nothing for an image that is not Sluice's."""
    name = re.search(r"sluice/[a-z-]+", container["image"])
    return name[0] if name else ""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
