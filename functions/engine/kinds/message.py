"""Kind `message`: store a text."""

from __future__ import annotations

from functions.engine.handler import Step
from sluice.kinds.message import Inputs, Outputs


def run(task: Inputs, step: Step) -> Outputs:
    with step("store the message"):
        return Outputs(message=task.text)
