"""FerretDB with its SQLite backend: a second server with MongoDB's protocol, written by other people than the first.

It is built from `ferretdb/` with `go build`, once for each state of its sources, into a cache folder.
`python -m tests.servers.ferretdb` builds it ahead.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

from tests.servers.ports import LOOPBACK, accepts_connections, free_port
from tests.servers.process import ServerProcess

SOURCES = Path(__file__).with_name("ferretdb")

#: Where Go's own installer puts it, for those who have not put that on their PATH.
GO = "/usr/local/go/bin/go"


class FerretDB(ServerProcess):
    """The server as a child process, built first if need be; the methods of WireMongo."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        data = Path(directory).resolve() / "data"
        super().__init__(
            "ferretdb",
            [binary(), "--port", str(self.port), "--directory", str(data)],
            directory,
            ready=self._answers,
        )
        self._data = data

    @property
    def uri(self) -> str:
        return f"mongodb://{LOOPBACK}:{self.port}/?directConnection=true"

    def launch(self) -> None:
        build()
        self._data.mkdir(parents=True, exist_ok=True)
        super().launch()

    def _answers(self) -> bool:
        if not accepts_connections(self.port):
            return False
        try:
            with pymongo.MongoClient[dict[str, object]](self.uri, serverSelectionTimeoutMS=1000) as client:
                client.admin.command("ping")
        except PyMongoError:
            return False
        return True


def ferretdb_missing() -> str | None:
    """None if it is built or can be, else the reason."""
    if binary().exists() or go_command() is not None:
        return None
    return "FerretDB is not built and there is no Go toolchain to build it with"


def build() -> Path:
    """Builds it unless that has been done. Raises subprocess.CalledProcessError; the compiler's words go to stderr."""
    target = binary()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # half a binary is never seen under its name
        made = Path(folder) / target.name
        command = [
            go_command() or "go",
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags=-s -w",
            "-o",
            str(made),
            ".",
        ]
        subprocess.run(command, cwd=SOURCES, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
        made.replace(target)
    return target


def binary() -> Path:
    """Where the program is, or will be: the folder's name is the sources' hash."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((SOURCES / name).read_bytes())
    cache = Path(os.environ.get("SLUICE_CACHE") or Path.home() / ".cache" / "sluice")
    return cache / f"ferretdb-{digest.hexdigest()[:16]}" / "ferretdb"


def go_command() -> str | None:
    return shutil.which("go") or shutil.which(GO)


if __name__ == "__main__":
    print(build())
