"""Runs a handler in a process of its own.

A task that was running when an engine died may have been the cause, or may just have been there. So it is tried again
in a child process: if that dies, it was the task, and nobody else is harmed. A line of JSON goes in (the task), lines
of JSON come out (what the handler reports, and how it ended); when the engine goes, the child goes too.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from pydantic import SecretStr

from functions.engine.handler import Failed, Retry, Step, Stopped
from functions.engine.kinds import find_handler
from sluice.kinds import Inputs, kinds
from sluice.settings import Settings
from sluice.task import Document, Task

#: Seconds between two reports of the child.
REPORT_SECONDS = 0.5


#: Children at once. Each costs about 60 MB and, at its start, a second of a core.
PLACES = 3

_places = threading.BoundedSemaphore(PLACES)

#: Where the kernel says how much memory this container may have: cgroup v2, then v1.
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Crashed(Exception):
    """The child process died without a word."""


def run_isolated(task: Task, inputs: Inputs, step: Step) -> Document:
    """The handler's outputs. Raises what the handler raises, Stopped when it was told to stop, Crashed when it died."""
    while not _places.acquire(timeout=0.5):
        step.check()
        step.started = time.monotonic()  # its time begins when it gets a place
    try:
        return _run_child(task, inputs, step)
    finally:
        _places.release()


def _run_child(task: Task, inputs: Inputs, step: Step) -> Document:
    step.check()
    child = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl+C is for the engine
    )
    into, out = cast("IO[str]", child.stdin), cast("IO[str]", child.stdout)
    try:
        with step.on_stop(child.kill):
            request = {
                "task_id": task.id,
                "kind": task.kind,
                "attempt": task.attempts,
                "steps": step.steps,
                "inputs": inputs.model_dump(mode="json"),
                "settings": _revealed(step.settings),
            }
            try:
                into.write(json.dumps(request) + "\n")
                into.flush()
                for line in out:
                    event = json.loads(line)
                    step.replay(event["changes"])
                    if "outputs" in event:
                        outputs: Document = event["outputs"]
                        return outputs
                    if "failed" in event:
                        raise Failed(*event["failed"])
                    if "retry" in event:
                        raise Retry(*event["retry"])
            except (BrokenPipeError, ValueError):
                pass  # it died while it was spoken to, or in the middle of a word
            step.check()
            code = child.wait()
            raise Crashed(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}")
    finally:
        child.kill()
        with suppress(BrokenPipeError):
            into.close()
        out.close()
        child.wait()


def _revealed(settings: Settings) -> dict[str, Any]:
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in settings.model_dump().items()
    }


def main() -> None:
    """The child: read the task, run its handler, tell what comes out."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the handler prints is no event
    _limit_memory()
    with suppress(OSError):  # if memory runs out, this process is the one to go
        Path("/proc/self/oom_score_adj").write_text("1000")
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_go_with_the_engine, daemon=True).start()
    kind = kinds()[request["kind"]]
    settings = Settings(**request["settings"])
    step = Step(request["task_id"], settings, request["attempt"], request["steps"], kind.outputs.model_fields.keys())
    speaking = threading.Lock()
    done = threading.Event()

    def tell(**event: Any) -> None:
        with speaking:
            events.write(json.dumps({"changes": step.take_changes(), **event}) + "\n")
            events.flush()

    def report() -> None:
        with suppress(OSError):  # the engine is gone
            while not done.wait(REPORT_SECONDS):
                tell()

    threading.Thread(target=report, daemon=True).start()
    try:
        outputs = find_handler(kind.name)(kind.inputs.model_validate(request["inputs"]), step)
        if isinstance(outputs, kind.outputs):
            outputs = outputs.model_dump(mode="json")
        tell(outputs=outputs)
    except Failed as error:
        tell(failed=[error.code, error.message])
    except Retry as error:
        tell(retry=[error.code, error.message, error.after])
    except Stopped:
        os._exit(1)
    except Exception as error:
        tell(failed=["internal_error", f"The handler failed in an unforeseen way ({type(error).__name__})."])
    done.set()


def _limit_memory() -> None:
    """Leave the engine and the other children their share of the container's memory. What wants more than its own runs
    into a MemoryError here, before the kernel ends the whole container (as it does under cgroup v2)."""
    for path in MEMORY_LIMITS:
        with suppress(OSError, ValueError):
            share = int(Path(path).read_text()) // (PLACES + 1)
            resource.setrlimit(resource.RLIMIT_DATA, (share, share))
            return


def _go_with_the_engine() -> None:
    sys.stdin.read()  # ends when the engine closes it, or dies
    os._exit(1)


if __name__ == "__main__":
    main()
