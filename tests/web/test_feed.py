"""The part of a list that the page has loaded, over a model of the server: tests/web/feed.test.mjs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.servers import require
from tests.servers.npm import node_missing


def test_the_loaded_part_of_a_list_is_what_the_server_has() -> None:
    require(node_missing())
    done = subprocess.run(
        ["node", "--test", Path(__file__).with_name("feed.test.mjs")], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
