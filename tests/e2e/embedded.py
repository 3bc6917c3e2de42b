"""`make run` as a process, and a shell that talks to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

from tests.servers.ports import free_port
from tests.servers.process import ServerProcess

ROOT = Path(__file__).resolve().parent.parent.parent


class Embedded(ServerProcess):
    """Sluice in one process, with no services but those that `settings` name."""

    def __init__(self, directory: Path, *, tree: Path = ROOT, command: Sequence[str] = (), **settings: str) -> None:
        self.port = free_port()
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/tmp"),
            "PYTHONPATH": str(tree),
            "PORT": str(self.port),
            "HOST": "127.0.0.1",
            **settings,
        }
        super().__init__(
            "embedded",
            command or [sys.executable, "-m", "embedded"],
            directory,
            environment,
            ready=self._is_up,
            start_seconds=120,
            stop_seconds=20,
            working_directory=tree,
        )

    def _is_up(self) -> bool:
        try:
            return bool(self.client.get("/readyz").status_code == 200)
        except httpx2.HTTPError:
            return False

    def stop(self, seconds: float | None = None) -> int | None:
        self.client.close()
        return super().stop(seconds)

    def shell(self, command: str) -> Any:
        """Run a command of a document, against this process, and read the JSON that it prints."""
        done = subprocess.run(
            ["bash", "-euc", command.replace("localhost:8080", f"127.0.0.1:{self.port}")],
            check=True,
            capture_output=True,
            timeout=20,
        )
        return json.loads(done.stdout)
