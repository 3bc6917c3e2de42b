"""The load script: `python -m tests.load`, or `make load`. docs/load.md says what it measures."""
