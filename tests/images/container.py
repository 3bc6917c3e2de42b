"""Images as buildah keeps them, started as containers by runc: as Kubernetes would start them, but all in one network,
that of this process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.images.manifests import Bounds
from tests.servers import guardian
from tests.servers.process import ServerProcess

#: What a container may see of the machine, as containerd gives it to the pods of the restricted profile.
MOUNTS = [
    ("proc", "/proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("tmpfs", "/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("shm", "/dev/shm", "tmpfs", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("sysfs", "/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("cgroup", "/sys/fs/cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ("/etc/hosts", "/etc/hosts", "bind", ["bind", "ro"]),
]

HIDDEN = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


@dataclass(frozen=True)
class Image:
    """What an image says about how it is run."""

    name: str
    user: str
    command: list[str]
    environment: list[str]
    folder: str
    stop_signal: signal.Signals


def tools_missing() -> str | None:
    """None if images can be started here, else the reason and what to do about it."""
    missing = [name for name in ("buildah", "runc", "unshare") if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)} here: apt-get install --no-install-recommends buildah runc util-linux"
    return None if os.getuid() == 0 else "only root can start containers with runc"


def image_of(name: str) -> Image:
    """Raises subprocess.CalledProcessError where there is no image of this name."""
    told = json.loads(_buildah("inspect", "--type", "image", name))
    config = json.loads(told["Config"])["config"]
    return Image(
        name,
        user=config.get("User", ""),
        command=[*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])],
        environment=config.get("Env") or [],
        folder=config.get("WorkingDir") or "/",
        stop_signal=signal.Signals[config.get("StopSignal") or "SIGTERM"],
    )


def size_of(name: str) -> str:
    """As people read it, unpacked: "88.9 MB"."""
    return _buildah("images", "--format", "{{.Size}}", name).strip()


@contextmanager
def root_of(image: Image) -> Iterator[Path]:
    """The image's files, in a layer of its own."""
    container = _buildah("from", "--pull-never", image.name).strip()
    try:
        yield Path(_buildah("mount", container).strip())
    finally:
        _buildah("rm", container)  # unmounts it too


class Container(ServerProcess):
    """An image as a running container: its own user, no capabilities, a root filesystem that nobody writes to, /tmp in
    memory, and the memory that its manifest allows. Whatever `command` is given takes the place of the image's own.

    `stop` sends the signal that the image asks for. What runs in it ends with this process, however that ends.
    """

    def __init__(
        self,
        name: str,
        image: Image,
        root: Path,
        directory: Path,
        bounds: Bounds,
        environment: Mapping[str, str],
        ready: Callable[[], bool] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.image = image
        self.bounds = bounds
        self._bundle = directory / f"{name}.bundle"
        self._bundle.mkdir(parents=True)
        self._id = f"sluice-{name}-{os.getpid()}"
        self._first = self._bundle / "pid"
        given = [*image.environment, *(f"{key}={value}" for key, value in environment.items())]
        configuration = _configuration(image, root, bounds, given, list(command) or image.command, self._id)
        (self._bundle / "config.json").write_text(json.dumps(configuration))
        self._runc = ["runc", "--root", str(directory / "runc")]
        run = ["run", "--bundle", str(self._bundle), "--pid-file", str(self._first), self._id]
        super().__init__(
            name, [*self._runc, *run], directory, ready=ready, start_seconds=60, stop_seconds=bounds.grace_seconds
        )

    def wait_until_ready(self) -> None:
        super().wait_until_ready()
        guardian.watch(self.first_process)  # runc's own group is another one

    def terminate(self) -> None:
        if self.running:
            os.kill(self.pid, self.image.stop_signal)  # runc hands it on

    def kill(self) -> int | None:
        subprocess.run([*self._runc, "delete", "--force", self._id], stderr=subprocess.DEVNULL, check=False)
        if self._first.exists():
            guardian.forget(self.first_process)
        return super().kill()

    @property
    def first_process(self) -> int:
        """The id that the container's process 1 has on this machine."""
        return int(self._first.read_text())

    def memory_bytes(self) -> int:
        """What its processes take of the machine's memory; what several of them share counts once (proc(5), Pss)."""
        processes = json.loads(subprocess.check_output([*self._runc, "ps", "--format", "json", self._id]))
        lines = [line for pid in processes for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _configuration(
    image: Image, root: Path, bounds: Bounds, environment: list[str], command: list[str], name: str
) -> dict[str, Any]:
    """https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md"""
    user, _, group = image.user.partition(":")
    mounts = [*MOUNTS, ("tmpfs", "/tmp", "tmpfs", ["nosuid", "nodev", "mode=1777", f"size={bounds.tmp_bytes}"])]
    kinds = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": int(user), "gid": int(group)},
            "args": command,
            "env": environment,
            "cwd": image.folder,
            "noNewPrivileges": True,
            "capabilities": {kind: [] for kind in kinds},
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [
            {"source": source, "destination": destination, "type": kind, "options": options}
            for source, destination, kind, options in mounts
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "cgroupsPath": f"/{name}",
            "resources": {
                "memory": {"limit": bounds.memory_bytes},
                "devices": [{"allow": False, "access": "rwm"}],
            },
            "maskedPaths": HIDDEN,
            "readonlyPaths": READ_ONLY,
        },
    }


def _buildah(*arguments: str) -> str:
    return subprocess.check_output(["buildah", *arguments], text=True)
