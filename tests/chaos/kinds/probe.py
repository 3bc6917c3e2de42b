"""Kind `probe`, of the chaos tests: takes its time, and notes when it began and ended."""

from typing import Literal

from sluice import kinds

TITLE = "Probe"


class Inputs(kinds.Inputs):
    mark: kinds.Line
    milliseconds: int
    outcome: Literal["done", "fail", "retry"]


class Outputs(kinds.Outputs):
    made_by: int = 0
