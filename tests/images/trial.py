"""All images together, as containers: they do a task, answer the probes, and stop when they are told to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.images.container import Container, Image, image_of, root_of, size_of
from tests.images.manifests import Bounds, bounds_of
from tests.servers.nginx import Ingress
from tests.servers.ports import free_port
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo
from tests.waiting import eventually
from web.build import build

FUNCTIONS = {"add": "add-task", "get": "get-tasks", "cancel": "cancel-task", "retry": "retry-task"}
NAMES = ("offline-model", *FUNCTIONS.values(), "engine", "web")
TASK = {"user_id": "ada", "objective": "Create a function that sums up three numbers.", "language": "python"}

#: web/nginx.conf says it. The functions and the engine are told theirs by PORT, the model by its command.
WEB_PORT = 8080
MODEL_COMMAND = ("python3", "-m", "offline_model", "--port")


@dataclass
class Figures:
    """What is told of one image."""

    size: str
    #: Seconds from the start of the container to the first answer to its probe.
    start_seconds: float = 0.0
    memory_bytes: int = 0
    #: Seconds from the signal to the end.
    stop_seconds: float = 0.0


@dataclass
class Trial:
    """A place for the trial, and what came of it so far."""

    directory: Path
    tag: str
    figures: dict[str, Figures] = field(default_factory=dict)
    _containers: dict[str, Container] = field(default_factory=dict)
    _ports: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Raises AssertionError, or ServerStartError, that says what is wrong. Nothing is left running."""
        with ExitStack() as stack:
            rabbit = stack.enter_context(RabbitNode(self.directory / "rabbit"))
            mongo = stack.enter_context(WireMongo(self.directory / "mongo"))
            self._ports = {name: free_port() for name in NAMES} | {"web": WEB_PORT}
            settings = {"MONGODB_URI": mongo.uri, "RABBITMQ_URL": rabbit.url}
            settings["OPENAI_BASE_URL"] = f"{self._url('offline-model')}/v1"
            for name in NAMES:  # one by one: a start is timed while the machine does nothing else
                stack.enter_context(self._started(name, settings))
            ingress = Ingress(
                self.directory / "ingress",
                self._url("web"),
                {f"/tasks/{path}": self._url(name) for path, name in FUNCTIONS.items()},
            )
            stack.enter_context(ingress)
            with httpx2.Client(base_url=ingress.url, timeout=10) as client:
                check_probes(client, {name: self._url(name) for name in NAMES})
                check_page(client, self.directory / "page")
                check_task(client)
            self._check_containers()
            self._sweep(settings)
            for name, container in self._containers.items():
                self.figures[name].stop_seconds = stopped(container)

    @contextmanager
    def _started(self, name: str, environment: dict[str, str]) -> Iterator[None]:
        port = self._ports[name]
        command = (*MODEL_COMMAND, str(port)) if name == "offline-model" else ()
        with self._container(name, name, {**environment, "PORT": str(port)}, command) as container:
            container.ready = lambda: answers(f"http://127.0.0.1:{port}/healthz")
            self.figures[name] = Figures(size=size_of(container.image.name))
            self._containers[name] = container
            start = time.monotonic()
            with container:
                self.figures[name].start_seconds = time.monotonic() - start
                yield

    @contextmanager
    def _container(
        self, name: str, image_name: str, environment: dict[str, str], command: tuple[str, ...] = ()
    ) -> Iterator[Container]:
        """Not started yet."""
        image, bounds = image_of(f"sluice/{image_name}:{self.tag}"), bounds_of(name)
        check_image(image, bounds)
        with root_of(image) as root:
            yield Container(name, image, root, self.directory, bounds, environment, command=command)

    def _sweep(self, settings: dict[str, str]) -> None:
        command = ("python", "-m", "functions.engine.sweep")
        with self._container("sweep", "engine", settings, command) as container:
            container.launch()
            try:
                code = container.wait(30)
            finally:
                container.kill()
        assert code == 0, f"the sweep ended with {code}\n{container.log_tail()}"

    def _check_containers(self) -> None:
        for name, container in self._containers.items():
            self.figures[name].memory_bytes = container.memory_bytes()
            program = Path(f"/proc/{container.first_process}/exe").readlink().name
            assert program.startswith(container.image.command[0]), f"process 1 of {name} is {program}"
            assert "Traceback" not in container.log_text(), container.log_tail()

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}"


def check_image(image: Image, bounds: Bounds) -> None:
    assert image.user == bounds.user, f"{image.name} is made for the user {image.user}, the manifest says {bounds.user}"


def check_probes(client: httpx2.Client, urls: dict[str, str]) -> None:
    for name, url in urls.items():
        for path in ("/healthz",) if name in ("web", "offline-model") else ("/healthz", "/readyz"):
            eventually(lambda address=f"{url}{path}": answers(address), what=f"{name} answers {path}")  # type: ignore[misc]
    # From the files that its processes share in /tmp.
    metrics = client.get(f"{urls['add-task']}/metrics")
    assert metrics.status_code == 200
    assert "sluice_" in metrics.text


def check_page(client: httpx2.Client, folder: Path) -> None:
    """The page of this tree is what is served, with the times that its build gives, in every image the same."""
    release = build(folder)
    page = client.get("/", headers={"Accept-Encoding": "identity"})
    index = (folder / "index.html").stat()
    assert page.text == (folder / "index.html").read_text()
    assert page.headers["ETag"] == f'"{int(index.st_mtime):x}-{index.st_size:x}"'
    for file in (folder / "assets" / release).rglob("*"):
        if file.is_file() and file.suffix != ".gz":
            answer = client.get(f"/{file.relative_to(folder)}")
            assert answer.content == file.read_bytes(), f"{file.name}: {answer.status_code}"


def check_task(client: httpx2.Client) -> None:
    """Each function does its part: a task is added, completed, looked at, not cancelled any more, and done again."""
    added = client.post("/tasks/add", json=TASK)
    assert added.status_code == 202, added.text
    place = added.headers["Location"]
    task = eventually(lambda: completed(client, place), 30, "the task is completed")
    assert task["code"]
    refused = client.post(place.replace("/get/", "/cancel/"))
    assert refused.status_code == 409, refused.text
    again = client.post(place.replace("/get/", "/retry/"))
    assert again.status_code == 202, again.text
    eventually(lambda: completed(client, place), 30, "the task is completed again")


def completed(client: httpx2.Client, place: str) -> dict[str, object] | None:
    task: dict[str, object] = client.get(place).raise_for_status().json()
    assert task["status"] != "failed", task
    return task if task["status"] == "completed" else None


def answers(url: str) -> bool:
    try:
        return bool(httpx2.get(url, timeout=2).status_code == 200)
    except httpx2.HTTPError:
        return False


def stopped(container: Container) -> float:
    """Seconds that it took to end, after the signal that Kubernetes sends. Its status has to be 0."""
    start = time.monotonic()
    code = container.stop()
    seconds = time.monotonic() - start
    assert code == 0, f"{container.name} ended with {code} after {seconds:.1f} s\n{container.log_tail()}"
    return seconds


Say = Callable[[str], None]


def table(figures: dict[str, Figures], say: Say) -> None:
    say(f"{'IMAGE':14}{'SIZE':>10}{'START':>10}{'MEMORY':>12}{'STOP':>10}")
    for name, one in figures.items():
        memory = f"{one.memory_bytes / 1024**2:.0f} MiB"
        say(f"{name:14}{one.size:>10}{one.start_seconds:>8.2f} s{memory:>12}{one.stop_seconds:>8.2f} s")
