"""FerretDB with its SQLite backend: a second server with MongoDB's protocol, written by other people than the first.

It is built from `ferretdb/` with Go, once for each state of its sources. `python -m tests.servers.ferretdb` builds it
ahead.
"""

from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

from tests.servers.go import GoPrograms
from tests.servers.ports import LOOPBACK, accepts_connections, free_port
from tests.servers.process import ServerProcess

PROGRAM = GoPrograms("ferretdb", Path(__file__).with_name("ferretdb"))


class FerretDB(ServerProcess):
    """The server as a child process, built first if need be; the methods of WireMongo."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        data = Path(directory).resolve() / "data"
        super().__init__(
            "ferretdb",
            [PROGRAM.folder / "ferretdb", "--port", str(self.port), "--directory", str(data)],
            directory,
            ready=self._answers,
        )
        self._data = data

    @property
    def uri(self) -> str:
        return f"mongodb://{LOOPBACK}:{self.port}/?directConnection=true"

    def launch(self) -> None:
        PROGRAM.build()
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
    return PROGRAM.missing()


if __name__ == "__main__":
    print(PROGRAM.build())
