import json
import os
import time

from sluice.kinds.probe import Inputs, Outputs

from functions.engine.handler import Failed, Retry, Step


def note(event: str, step: Step) -> None:
    """One line, in one write: runs in several processes note theirs in one file."""
    line = {"task": step.task_id, "attempt": step.attempt, "pid": os.getpid(), "event": event, "at": time.time()}
    file = os.open(os.environ["CHAOS_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, json.dumps(line).encode() + b"\n")
    os.close(file)


def run(task: Inputs, step: Step) -> Outputs:
    note("start", step)
    with step("take its time"):
        end = time.monotonic() + task.milliseconds / 1000
        while time.monotonic() < end:
            step.check()
            time.sleep(0.02)
    note("end", step)
    if task.outcome == "fail":
        raise Failed("probe_failed", "It was asked to.")
    if task.outcome == "retry" and step.attempt == 1:
        raise Retry("probe_retry", "It was asked to.")
    return Outputs(made_by=step.attempt)
