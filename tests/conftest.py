"""The servers that tests share. A missing one skips on a laptop, with the reason, and fails in CI."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers import ports, require
from tests.servers.ferretdb import FerretDB, ferretdb_missing
from tests.servers.go import go_command
from tests.servers.rabbit import RabbitNode, rabbitmq_missing
from tests.servers.wire_mongo import WireMongo

# A second real server where there is a Go toolchain to build it with; nothing is missed without one.
collect_ignore = [] if go_command() else ["servers/test_ferretdb.py"]

# `make test` and `make long-tests` try the same examples each time, and keep none; the long profile tries others, and
# many more.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.register_profile("long", deadline=None, max_examples=30_000, database=None)
settings.load_profile("steady")


#: The folders, and the files beside them, that take longest and are begun first: at the end there is always a worker
#: with nothing left.
SLOW = ["e2e", "web", "chaos", "load", "contract", "servers", "test_operations.py", "commands", "scaling", "engine"]
SLOW += ["test_docs.py", "functions", "manifests"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--no-loadscope-reorder` this is the order in which the workers take the files."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        top = item.path.relative_to(here).parts[0]
        return SLOW.index(top) if top in SLOW else len(SLOW)

    items.sort(key=place)


@pytest.fixture(scope="session")
def rabbit_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    require(rabbitmq_missing())
    with RabbitNode(tmp_path_factory.mktemp("rabbit")) as node:
        yield node


@pytest.fixture
def rabbit(rabbit_node: RabbitNode) -> RabbitNode:
    """The shared node, up again if a test before has left it down."""
    if not rabbit_node.running:
        rabbit_node.start()
    return rabbit_node


@pytest.fixture(scope="session")
def wire_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WireMongo]:
    with WireMongo(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture(scope="session")
def ferretdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FerretDB]:
    require(ferretdb_missing())
    with FerretDB(tmp_path_factory.mktemp("ferretdb")) as server:
        yield server


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads change places as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def root() -> Path:
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def free_port() -> int:
    return ports.free_port()
