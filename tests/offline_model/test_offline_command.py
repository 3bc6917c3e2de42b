"""`python -m offline_model`, as a person starts it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "offline_model", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_says_its_url_serves_and_leaves_when_told_to(sign: signal.Signals) -> None:
    with start("--port", "0", "--scriptable", "--seconds-per-answer", "0.05") as process:
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(f"{url.removesuffix('/v1')}/calls", timeout=10) as response:
                assert json.load(response) == {"calls": {}, "open": 0, "closed_early": 0}
            process.send_signal(sign)
            assert process.wait(10) == 0
            assert process.stdout.read() == ""
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.parametrize("arguments", [("--port", "x"), ("--port", "70000"), ("--seconds-per-answer", "-1")])
def test_bad_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    with start(*arguments) as process:
        assert process.wait(10) == 2
        assert arguments[0] in process.stderr.read()
