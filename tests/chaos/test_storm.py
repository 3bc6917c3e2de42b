"""One short storm, in `make long-tests`; `make chaos` runs long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.storm import storm
from tests.servers import require
from tests.servers.rabbit import rabbitmq_missing


@pytest.mark.timeout(300)
def test_a_storm_breaks_no_promise(tmp_path: Path) -> None:
    require(rabbitmq_missing())
    outcome = storm(seed=4, minutes=0.4, directory=tmp_path, say=print)
    assert [str(violation) for violation in outcome.violations] == []
    assert len(outcome.history.accepted) > 40
    assert len(outcome.history.faults) > 20
