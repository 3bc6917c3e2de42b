"""A child process that a test starts, waits for, stops, kills, freezes and looks into."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import guardian

#: Pause between two looks at whether a server is ready.
POLL_SECONDS = 0.05

#: How long a signal may take to stop every thread.
FREEZE_SECONDS = 2.0


class ServerStartError(Exception):
    """The server ended, or was not ready in time; the message ends with the tail of its log."""


class ServerProcess:
    """A server as a child process, leader of its own process group.

    The output of `command` is appended to `directory/NAME.log`; it runs in `working_directory` (default: `directory`).
    `env` is its whole environment; None hands on this process's own. `ready` is asked again and
    again until it returns True; an OSError counts as "not yet". Without it, a running process is a ready one.

    As a context manager it starts on entry and stops on exit. Whatever is still running when this process ends, even by
    SIGKILL, is killed by the guardian.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | os.PathLike[str]],
        directory: Path,
        env: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
        *,
        start_seconds: float = 30.0,
        stop_seconds: float = 10.0,
        working_directory: Path | None = None,
    ) -> None:
        self.name = name
        self.command = [os.fspath(part) for part in command]
        self.directory = Path(directory)
        self.env = None if env is None else dict(env)
        self.ready = ready
        self.start_seconds = start_seconds
        self.stop_seconds = stop_seconds
        self.working_directory = working_directory or self.directory
        self.log = self.directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._group_may_live = False
        self._frozen = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts it and returns when it is ready. Raises ServerStartError, with nothing left running."""
        self.launch()
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Starts it and returns at once: for several servers that are to come up side by side."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already, as process {self.pid}")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.working_directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._group_may_live, self._frozen = True, False
        guardian.watch(self._process.pid)

    def wait_until_ready(self) -> None:
        """Returns when the server is ready. Raises ServerStartError when it has ended or the deadline has passed."""
        deadline = time.monotonic() + self.start_seconds
        while not self._is_ready():
            if not self.running:
                raise ServerStartError(f"{self.name} ended with {self.exit_code}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerStartError(f"{self.name} not ready in {self.start_seconds:g} s\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self, seconds: float | None = None) -> int | None:
        """Ends it as Kubernetes would: SIGTERM to the first process, SIGKILL to all of them after the deadline.

        Returns the exit code (negative: the signal that ended it); None if it was never started.
        """
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(self.stop_seconds if seconds is None else seconds)
        return self.kill()

    def kill(self) -> int | None:
        """Ends it and its children by SIGKILL and returns the exit code, as `stop` does."""
        if self._process is None:
            return None
        self._signal_group(signal.SIGKILL)
        code = self._process.wait()
        if self._group_may_live:
            guardian.forget(self._process.pid)
        self._group_may_live = self._frozen = False
        return code

    def restart(self) -> None:
        """Stops it and starts it again, on the same ports and the same data."""
        self.stop()
        self.start()

    def terminate(self) -> None:
        """Sends SIGTERM to the first process and returns at once; see `wait`. Nothing happens if it has ended."""
        if self.running:
            assert self._process is not None
            self.thaw()  # a stopped process does not hear it
            self._process.terminate()

    def wait(self, seconds: float) -> int | None:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        return None if self._process is None else self._process.wait(seconds)

    def freeze(self) -> None:
        """Stops every one of its processes where it stands: connections stay open and nothing answers."""
        self._signal_group(signal.SIGSTOP)
        self._frozen = True
        deadline = time.monotonic() + FREEZE_SECONDS
        while not self._stands_still() and time.monotonic() < deadline:
            time.sleep(0.001)  # a busy machine gives a thread the signal when it is its turn

    def thaw(self) -> None:
        """Lets frozen processes go on."""
        if self._frozen:
            self._signal_group(signal.SIGCONT)
            self._frozen = False

    # -- what a test may ask ------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether its first process is there (a frozen one is)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of its first process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or before it was started."""
        return None if self._process is None else self._process.poll()

    def log_text(self) -> str:
        """All it has written to stdout and stderr, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the log, under a heading with the log's path."""
        return "\n".join([f"--- end of {self.log}", *self.log_text().splitlines()[-lines:]])

    def _is_ready(self) -> bool:
        if self.ready is None:
            return self.running
        try:
            return self.ready()
        except OSError:
            return False

    def _stands_still(self) -> bool:
        """Whether each thread of its first process is stopped (proc(5), the state after the name in parentheses)."""
        try:
            states = [
                path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{self.pid}/task").glob("*/stat")
            ]
        except OSError:
            return False
        return all(state in "Tt" for state in states)

    def _signal_group(self, number: signal.Signals) -> None:
        # Once killed and waited for, its number may be somebody else's.
        if self._process is not None and self._group_may_live:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
