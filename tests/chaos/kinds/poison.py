"""Kind `poison`, of the chaos tests: ends the process that runs it."""

from sluice import kinds

TITLE = "Poison"


class Inputs(kinds.Inputs):
    mark: kinds.Line


class Outputs(kinds.Outputs):
    pass
