"""A browser, and Sluice to look at: in one process, and as in production."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.servers import require
from tests.servers.browser import ARGUMENTS, CHROMIUM, chromium_missing
from tests.servers.nginx import nginx_missing
from tests.servers.rabbit import RabbitNode
from tests.servers.wire_mongo import WireMongo
from tests.web.noise import Noise
from tests.web.sluices import ClusterSluice, EmbeddedSluice, Sluice

CONTEXT = {
    "viewport": {"width": 1280, "height": 800},
    "locale": "en-GB",
    "timezone_id": "Europe/Berlin",
    "reduced_motion": "reduce",
}


# For the package, not for a session: while it runs, asyncio thinks that the main thread has a loop already.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    require(chromium_missing())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def noise() -> Noise:
    """What the pages of this test complain of; `noise.allow()` for what it does on purpose."""
    return Noise()


@pytest.fixture
def open_page(browser: Browser, noise: Noise) -> Iterator[Callable[..., Page]]:
    """Opens a page in a context of its own, as another browser; takes the options of `new_context` that differ.

    The test fails at its end if a page has complained of anything that is not allowed.
    """
    contexts = []

    def open_page(**options: Any) -> Page:
        context = browser.new_context(**{**CONTEXT, **options})
        contexts.append(context)
        noise.listen(context)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()
    assert noise.unexpected() == []


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    return open_page()


@pytest.fixture(scope="package")
def started() -> Iterator[Callable[[str, Callable[[], Sluice]], Sluice]]:
    """Gives what is running under a name, and starts it when it is first asked for: a cluster takes seconds to start,
    and the tests of many files can share one, each with a user of its own."""
    running: dict[str, Sluice] = {}
    with ExitStack() as stack:

        def start(name: str, make: Callable[[], Sluice]) -> Sluice:
            if name not in running:
                running[name] = stack.enter_context(make())
            return running[name]

        yield start


@pytest.fixture(scope="module")
def sluice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, started: Any) -> Sluice:
    """Sluice as a cluster has it; for a test with the mark `both`, as `make run` starts it too."""
    if getattr(request, "param", "cluster") == "cluster":
        return _cluster(request, tmp_path_factory, started)
    return started("embedded", lambda: EmbeddedSluice(tmp_path_factory.mktemp("embedded")))


@pytest.fixture(scope="module")
def lasting_sluice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, started: Any) -> Sluice:
    """The same, but what was accepted is still there after `kill` and `start`."""
    if getattr(request, "param", "cluster") == "cluster":
        return _cluster(request, tmp_path_factory, started)
    mongo: WireMongo = request.getfixturevalue("wire_mongo")
    directory = tmp_path_factory.mktemp("embedded")
    database = f"web_{os.getpid()}_{directory.name}"
    return started("lasting", lambda: EmbeddedSluice(directory, MONGODB_URI=mongo.uri, MONGODB_DATABASE=database))


def _cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, started: Any) -> Sluice:
    require(nginx_missing())
    rabbit: RabbitNode = request.getfixturevalue("rabbit_node")
    mongo: WireMongo = request.getfixturevalue("wire_mongo")
    for server in (rabbit, mongo):
        if not server.running:  # a test before has left it down
            server.start()
    return started("cluster", lambda: ClusterSluice(tmp_path_factory.mktemp("cluster"), rabbit, mongo))
