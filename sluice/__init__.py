"""Sluice: post a task, a queue holds it, an engine that scales with the queue does it."""

__version__ = "0.1.0"
