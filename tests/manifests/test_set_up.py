"""What MongoDB runs at each of its starts: tests/manifests/set-up.test.mjs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.servers import require
from tests.servers.npm import node_missing


def test_the_set_up_can_be_repeated_and_says_what_is_wrong() -> None:
    require(node_missing())
    done = subprocess.run(
        ["node", "--test", Path(__file__).with_name("set-up.test.mjs")], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
