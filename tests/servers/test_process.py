"""Child processes: what happens when they do not start, do not stop, or outlive the tests."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tests.servers import require
from tests.servers.ports import accepts_connections, free_port
from tests.servers.process import ServerProcess, ServerStartError

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def alive(pid: int) -> bool:
    """Whether the process is there and is not just waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_shows_the_log_of_a_server_that_does_not_start(tmp_path: Path) -> None:
    server = ServerProcess("broken", python("print('the reason'); exit(3)"), tmp_path, ready=lambda: False)
    with pytest.raises(ServerStartError, match=r"broken ended with 3\n(.*\n)*the reason"):
        server.start()


def test_kills_a_server_that_is_not_ready_in_time(tmp_path: Path) -> None:
    sleeper = python("import time; print('still at it', flush=True); time.sleep(60)")
    server = ServerProcess("slow", sleeper, tmp_path, ready=lambda: False, start_seconds=0.5)
    with pytest.raises(ServerStartError, match=r"not ready in 0.5 s\n(.*\n)*still at it"):
        server.start()
    assert not alive(server.pid)


def test_hands_on_just_the_environment_given(tmp_path: Path) -> None:
    show = python("import os; print(os.environ['ONLY'], 'PYTEST_CURRENT_TEST' in os.environ)")
    server = ServerProcess("show", show, tmp_path, {"ONLY": "this"})
    server.launch()
    assert server.wait(10) == 0
    assert server.log_text() == "this False\n"


def test_ends_with_sigterm_even_when_frozen_and_with_sigkill_when_that_is_ignored(tmp_path: Path) -> None:
    with ServerProcess("polite", python("import time; time.sleep(60)"), tmp_path) as polite:
        polite.freeze()
        assert polite.running
        assert polite.stop() == -signal.SIGTERM
        assert polite.stop() == polite.kill() == -signal.SIGTERM
        polite.restart()
        assert polite.running
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    deaf = ServerProcess("deaf", python(code), tmp_path, ready=lambda: "deaf" in deaf.log_text())
    with deaf:
        assert deaf.stop(seconds=0.3) == -signal.SIGKILL


def test_ends_grandchildren_too(tmp_path: Path) -> None:
    parent = python(
        """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(child.pid, flush=True)
        child.wait()
        """
    )
    server = ServerProcess("parent", parent, tmp_path, ready=lambda: server.log_text().endswith("\n"))
    with server:
        grandchild = int(server.log_text())
        assert alive(grandchild)
    assert wait_for_end(grandchild)


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = ServerProcess("sleeper", python("import time; time.sleep(60)"), tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert server.running
    server.stop()


def test_a_server_does_not_outlive_a_killed_test_process(tmp_path: Path) -> None:
    code = f"""
        import os, pathlib, signal, sys
        from tests.servers.process import ServerProcess
        sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
        server = ServerProcess("sleeper", sleeper, pathlib.Path({str(tmp_path)!r}))
        server.start()
        server.freeze()
        print(server.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    tests = subprocess.run(python(code), cwd=ROOT, stdout=subprocess.PIPE, check=False)
    assert tests.returncode == -signal.SIGKILL
    assert wait_for_end(int(tests.stdout))


def test_gives_every_port_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert not any(accepts_connections(port) for port in ports[:5])


def test_what_is_missing_skips_on_a_laptop_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    require(None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no broker here"):
        require("no broker here")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no broker here"):
        require("no broker here")
    assert os.environ["CI"] == "true"
