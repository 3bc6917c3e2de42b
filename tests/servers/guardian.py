"""The process that outlives a killed test process just long enough to kill the servers it leaves behind.

It reads `+GROUP` and `-GROUP` lines from the test process, and when that pipe closes, however the test process ended,
it sends SIGKILL to every process group still on its list. The kernel's own PR_SET_PDEATHSIG is no good here: it strikes
when the *thread* that started the child ends, so a server restarted by a test's helper thread would die with it, and it
spares the grandchildren.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading

_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None


def watch(group: int) -> None:
    """Has the process group killed when this process ends."""
    _tell(f"+{group}\n")


def forget(group: int) -> None:
    """Takes back `watch`: the group is gone and its number may belong to somebody else soon."""
    _tell(f"-{group}\n")


def _tell(line: str) -> None:
    global _process
    with _lock:
        if _process is None:
            _process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for the tests, not for the guardian
            )
        assert _process.stdin is not None
        _process.stdin.write(line.encode())
        _process.stdin.flush()


def _leave_to_the_parent() -> None:
    """A forked child drops its copy of the pipe, or the pipe would stay open after the test process is gone."""
    global _lock, _process
    _lock = threading.Lock()
    if _process is not None and _process.stdin is not None:
        _process.stdin.close()
        _process.returncode = 0  # not this process's child: nothing to wait for, nothing to warn about
        _process = None


def _take_leave() -> None:
    """Ends the guardian in an orderly way, together with what is still on its list."""
    if _process is not None and _process.stdin is not None:
        _process.stdin.close()
        _process.wait(5)


def _guard() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    _guard()
else:
    os.register_at_fork(after_in_child=_leave_to_the_parent)
    atexit.register(_take_leave)
