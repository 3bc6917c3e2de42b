"""What every case measures in: a private RabbitMQ node, a database, servers that end with it, and looks into /proc."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pika

from tests.servers.process import ServerProcess
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo

#: The folder of the project, in which every server runs.
ROOT = Path(__file__).resolve().parents[1]

#: Where the programs of this virtual environment are.
BIN = Path(sys.executable).parent

#: Of /proc/PID/stat (proc(5)), counted after the name: user, system, and the same of the children that were waited for.
_CPU_FIELDS, _OWN_CPU_FIELDS = slice(11, 15), slice(11, 13)

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

#: From the number on that tells threads of one kind apart: "worker 3", "blocking_0", "Thread-1 (run)".
_NUMBERED = re.compile(r"[ _-]?\d.*")


class Started(ServerProcess):
    """A server that runs already; `with` only stops it."""

    def __enter__(self) -> Self:
        return self


class Lab:
    """A temporary folder, a private RabbitMQ node, and what is started in it; all of it ends with the `with`."""

    directory: Path
    rabbit: RabbitNode

    def __init__(self, quick: bool = False) -> None:
        self.quick = quick
        #: How often each variant is measured.
        self.rounds = 1 if quick else 3
        #: The length of one measurement.
        self.seconds = 1.5 if quick else 3.0
        self._exits = contextlib.ExitStack()
        self._mongo: WireMongo | None = None
        self._names = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            temporary = tempfile.TemporaryDirectory(prefix="sluice-bench-", ignore_cleanup_errors=True)
            self.directory = Path(exits.enter_context(temporary))
            self.rabbit = exits.enter_context(RabbitNode(self.directory / "rabbit"))
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def mongo(self) -> WireMongo:
        """The wire server of the tests; started when it is asked for first, and again if it has ended."""
        if self._mongo is None:
            self._mongo = self._exits.enter_context(WireMongo(self.directory / "mongo"))
        elif not self._mongo.running:
            print(self._mongo.log_tail(), file=sys.stderr)
            self._mongo.start()
        return self._mongo

    @property
    def mongo_pid(self) -> int | None:
        """Its process, once somebody has asked for it."""
        return None if self._mongo is None else self._mongo.pid

    def start(
        self,
        name: str,
        command: Sequence[str | os.PathLike[str]],
        environment: Mapping[str, str],
        ready: Callable[[], bool],
    ) -> Started:
        """A server, run in the project's folder, once it is ready. It stops with the lab, or earlier, by `with`.

        `environment` comes on top of PATH, HOME, TMPDIR and PYTHONPATH. Raises ServerStartError.
        """
        self._names += 1
        base = {
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
        }
        process = Started(
            f"{name}-{self._names}",
            command,
            self.directory,
            {**base, **environment},
            ready=ready,
            working_directory=ROOT,
        )
        process.start()
        self._exits.callback(process.stop)  # does nothing to one that has stopped
        return process

    def queue(self) -> str:
        """A queue's name that nobody has had yet."""
        return f"bench-{uuid.uuid4().hex[:8]}"

    @contextlib.contextmanager
    def channel(self) -> Iterator[Any]:
        """A blocking channel on a connection of its own: to declare, to count, to look and to clear."""
        connection = pika.BlockingConnection(pika.URLParameters(self.rabbit.url))
        try:
            yield connection.channel()
        finally:
            connection.close()


def family(pid: int) -> list[int]:
    """A process and all its living descendants; empty when it is gone."""
    found, look = [], [pid]
    while look:
        current = look.pop()
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{current}/task").glob("*/children"):
                look.extend(map(int, children.read_text().split()))
            found.append(current)
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its descendants; of those that ended, if they were waited for."""
    seconds = 0.0
    for member in family(pid):
        with contextlib.suppress(OSError):
            seconds += _stat(Path(f"/proc/{member}/stat"), _CPU_FIELDS)[1]
    return seconds


def thread_seconds(pid: int) -> dict[str, float]:
    """The same by the names of the threads that live, without what numbers them. The first thread of a process is its
    "main thread"; the kernel knows the names of others where the program has told it (`bench.threads`)."""
    seconds: Counter[str] = Counter()
    for member in family(pid):
        for thread in Path(f"/proc/{member}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                name, spent = _stat(thread, _OWN_CPU_FIELDS)
                name = "main thread" if thread.parent.name == str(member) else _NUMBERED.sub("", name)
                seconds[name] += spent
    return dict(seconds)


def _stat(path: Path, fields: slice) -> tuple[str, float]:
    """The name, and the seconds in these fields together."""
    name, _, numbers = path.read_text().partition(" (")[2].rpartition(") ")
    return name, sum(map(int, numbers.split()[fields])) / _TICKS_PER_SECOND


def resident_mb(pid: int) -> float:
    """The memory of a process and its descendants, in MB; what they share counts once (PSS)."""
    return _memory_mb(pid, "smaps_rollup", "Pss:")


def rss_mb(pid: int) -> float:
    """The resident memory of a process and its descendants, in MB; what they share counts in each (RSS)."""
    return _memory_mb(pid, "status", "VmRSS:")


def _memory_mb(pid: int, file: str, field: str) -> float:
    kilobytes = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{member}/{file}").read_text().splitlines()
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith(field))
    return kilobytes / 1024
