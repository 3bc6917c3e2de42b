"""Signals, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WAITS = """
from sluice.signals import Signals
signals = Signals({on_second})
assert not signals.wait(0.01)
print("ready", flush=True)
signals.wait()
assert signals.wait(0) and signals.wait()
print("told", flush=True)
while not input("") == "end": pass
"""


@contextmanager
def process(root: Path, on_second: str = "") -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", WAITS.format(on_second=on_second)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert line(child) == "ready"
        try:
            yield child
        finally:
            child.kill()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_and_stays_heard(root: Path, number: signal.Signals) -> None:
    with process(root) as child:
        child.send_signal(number)
        assert line(child) == "told"
        child.communicate("end\n", timeout=10)
        assert child.returncode == 0


def test_a_second_signal_can_be_what_ends_it(root: Path) -> None:
    with process(root, "lambda: __import__('os')._exit(7)") as child:
        child.send_signal(signal.SIGINT)
        assert line(child) == "told"
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 7


#: Sends a signal at each of the first lines that the main thread runs of what it waits with.
INTERRUPTED = """
import os, signal, sys
left = 200
def interrupt(frame, event, _):
    global left
    if left and event == "line" and frame.f_code.co_filename.endswith(("threading.py", "signals.py")):
        left -= 1
        os.kill(os.getpid(), signal.SIGTERM)
    return interrupt
from sluice.signals import Signals
signals = Signals()
sys.settrace(interrupt)
assert signals.wait()
assert not left or signals.wait(0)
"""


def test_a_signal_that_comes_while_another_is_heard_holds_nobody_up(root: Path) -> None:
    """With a lock that it can't take twice, the main thread would wait for itself."""
    subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=root, check=True, timeout=20)
