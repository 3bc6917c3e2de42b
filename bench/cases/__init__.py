"""The cases: each has a TITLE and a `run` that takes a Lab and returns a Result."""
