"""A handler in a process of its own: what comes through, and what it can't harm."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from functions.engine.handler import Failed, Retry, Step, Stopped
from functions.engine.isolation import Crashed, run_isolated
from sluice import kinds
from sluice.task import Document
from tests.engine.doubles import a_task, without_model
from tests.waiting import eventually

POISON_KIND = '''
"""Kind `poison`: does harm in the way that it is told to."""

from sluice import kinds

TITLE = "Poison"


class Inputs(kinds.Inputs):
    how: str
    note: str = ""


class Outputs(kinds.Outputs):
    result: str = ""
'''

POISON_HANDLER = """
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from functions.engine.handler import Failed, Retry
from sluice.kinds.poison import Outputs


def run(task, step):
    step.progress(30)
    step.show(result="half")
    with step("take the poison"):
        match task.how:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(3)
            case "exit politely":
                sys.exit(4)
            case "print":
                print('{"outputs": {"result": "forged"}}', flush=True)
                os.write(1, b'{"outputs": {"result": "forged"}, "changes": {}}\\n' * 20_000)
                sys.stderr.write("noise\\n" * 20_000)
                subprocess.run(["/bin/echo", '{"outputs": {"result": "forged"}, "changes": {}}'], check=True)
            case "fail":
                raise Failed("refused", "No: \\u20ac \\U0001f600\\nand \\u2028 more.")
            case "retry":
                raise Retry("busy", "It is busy.", after=12.5)
            case "retry at once":
                raise Retry("busy", "It is busy.")
            case "error":
                raise ValueError("a secret")
            case "a set":
                return {"result": {1, 2}}
            case "half a character":
                return {"result": "\\ud83d"}
            case "a lot":
                return Outputs(result="\\u20ac" * 1_000_000)
            case "wait":
                Path(task.note).write_text(str(os.getpid()))
                time.sleep(600)
            case "leave a thread":
                threading.Thread(target=time.sleep, args=(600,)).start()
            case "settings":
                key = step.settings.openai_api_key
                return Outputs(result=f"{step.task_id} {key.get_secret_value()} {step.settings.lease_seconds:g}")
    return Outputs(result="done")
"""

DRIVER = """
import sys
from functions.engine.handler import Step
from functions.engine.isolation import run_isolated
from sluice.kinds.poison import Inputs
from sluice.settings import Settings
from sluice.task import Task

task = Task({"_id": "a" * 32, "kind": "poison", "attempts": 1})
run_isolated(task, Inputs(how="wait", note=sys.argv[1]), Step(task.id, Settings(mongodb_uri=None)))
"""


class Inputs(kinds.Inputs):
    """As in the kind `poison`."""

    how: str
    note: str = ""


Run = Callable[..., Document]


@pytest.fixture
def elsewhere(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project that has the kind `poison`; child processes are started in it."""
    for package in ("sluice", "functions"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "sluice/kinds/poison.py").write_text(POISON_KIND)
    (tmp_path / "functions/engine/kinds/poison.py").write_text(POISON_HANDLER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def step() -> Step:
    return Step("a" * 32, without_model(openai_api_key="sk-test", lease_seconds=7), attempt=2)


@pytest.fixture
def take(elsewhere: Path, step: Step) -> Run:
    """Take the poison, in a child process."""

    def take(how: str, note: str = "") -> Document:
        return run_isolated(a_task("poison", _id="a" * 32, attempts=2), Inputs(how=how, note=note), step)

    return take


def is_alive(pid: int) -> bool:
    """Whether this process still runs; one that only waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_kind_message_runs_in_a_child_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sluice.kinds.message import Inputs

    monkeypatch.chdir(root)
    step = Step("a" * 32, without_model(), 2, [{"name": "before", "attempt": 1, "status": "failed"}])
    text = "Grüße, 世界 😀\n\t\u2028"
    assert run_isolated(a_task(attempts=2), Inputs(text=text), step) == {"message": text}
    assert [(entry["name"], entry["attempt"], entry["status"]) for entry in step.steps] == [
        ("before", 1, "failed"),
        ("store the message", 2, "completed"),
    ]


@pytest.mark.parametrize(
    ("how", "cause"),
    [("kill", "SIGKILL"), ("segfault", "SIGSEGV"), ("exit", "exit status 3")],
)
def test_the_death_of_the_child_is_a_crash_that_says_how(take: Run, how: str, cause: str) -> None:
    with pytest.raises(Crashed, match=cause):
        take(how)


def test_a_handler_that_calls_exit_ends_its_task_only(take: Run) -> None:
    with pytest.raises((Crashed, Failed)):
        take("exit politely")


def test_a_permanent_error_comes_through_whole(take: Run, step: Step) -> None:
    with pytest.raises(Failed) as caught:
        take("fail")
    assert (caught.value.code, caught.value.message) == ("refused", "No: € 😀\nand \u2028 more.")
    assert [(entry["name"], entry["status"], entry["message"]) for entry in step.steps] == [
        ("take the poison", "failed", "No: € 😀\nand \u2028 more.")
    ]


@pytest.mark.parametrize(("how", "after"), [("retry", 12.5), ("retry at once", None)])
def test_a_transient_error_comes_through_with_its_pause(take: Run, how: str, after: float | None) -> None:
    with pytest.raises(Retry) as caught:
        take(how)
    assert (caught.value.code, caught.value.message, caught.value.after) == ("busy", "It is busy.", after)


@pytest.mark.parametrize("how", ["error", "a set"])
def test_any_other_error_is_a_fault_of_the_handler_and_keeps_its_secrets(take: Run, how: str) -> None:
    with pytest.raises(Failed) as caught:
        take(how)
    assert caught.value.code == "internal_error"
    assert "secret" not in caught.value.message


def test_what_the_handler_prints_confuses_nobody(take: Run, step: Step, capfd: pytest.CaptureFixture[str]) -> None:
    assert take("print") == {"result": "done"}
    assert step.take_changes()["progress"] == 30
    assert "forged" not in capfd.readouterr().out


def test_large_outputs_and_odd_characters_come_through(take: Run) -> None:
    assert take("a lot") == {"result": "€" * 1_000_000}
    assert take("half a character") == {"result": "\ud83d"}


def test_the_child_has_the_task_and_the_settings(take: Run) -> None:
    assert take("settings") == {"result": f"{'a' * 32} sk-test 7"}


def test_a_thread_that_the_handler_leaves_behind_holds_nobody_up(take: Run) -> None:
    started = time.monotonic()
    assert take("leave a thread") == {"result": "done"}
    assert time.monotonic() - started < 10


def test_what_the_handler_shows_is_seen_while_it_works(
    take: Run, step: Step, elsewhere: Path, beside: ThreadPoolExecutor
) -> None:
    running = beside.submit(take, "wait", str(elsewhere / "pid"))
    try:
        shown: Document = {}
        eventually(lambda: shown.update(step.take_changes()) or "steps" in shown)
        assert (shown["progress"], shown["result"]) == (30, "half")
        assert [(entry["name"], entry["status"], entry["attempt"]) for entry in shown["steps"]] == [
            ("take the poison", "running", 2)
        ]
    finally:
        step.stop("lost")
    with pytest.raises(Stopped):
        running.result(5)


def test_a_stop_ends_the_child_within_a_second(
    take: Run, step: Step, elsewhere: Path, beside: ThreadPoolExecutor
) -> None:
    pid = elsewhere / "pid"
    running = beside.submit(take, "wait", str(pid))
    eventually(lambda: pid.exists() and pid.read_text())
    stopped = time.monotonic()
    step.stop("lost")
    with pytest.raises(Stopped):
        running.result(5)
    assert time.monotonic() - stopped < 1
    assert not is_alive(int(pid.read_text()))


def test_a_task_that_is_stopped_already_starts_no_child(take: Run, step: Step, elsewhere: Path) -> None:
    step.stop("lost")
    with pytest.raises(Stopped):
        take("wait", str(elsewhere / "pid"))
    assert not (elsewhere / "pid").exists()


def test_no_child_is_left_over(take: Run) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    take("settings")
    with pytest.raises(Crashed):
        take("kill")
    assert children.read_text() == before


def test_the_child_goes_when_the_engine_is_killed(elsewhere: Path) -> None:
    pid = elsewhere / "pid"
    engine = subprocess.Popen([sys.executable, "-c", DRIVER, str(pid)], cwd=elsewhere)
    try:
        child = int(eventually(lambda: pid.exists() and pid.read_text(), 20))
        assert is_alive(child)
    finally:
        engine.send_signal(signal.SIGKILL)
        engine.wait(10)
    eventually(lambda: not is_alive(child), 5)


def test_the_engines_interrupt_does_not_reach_the_child(elsewhere: Path) -> None:
    """Ctrl-C goes to all of a terminal's foreground processes; a child that dies of it would be counted as a crash."""
    pid = elsewhere / "pid"
    engine = subprocess.Popen([sys.executable, "-c", DRIVER, str(pid)], cwd=elsewhere, start_new_session=True)
    try:
        child = int(eventually(lambda: pid.exists() and pid.read_text(), 20))
        assert os.getpgid(child) != engine.pid
    finally:
        engine.kill()
        engine.wait(10)
