"""Before a command does anything it makes sure of its tools and its cluster, and says how to get what is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from k8s.commands import cluster
from sluice.service import MAX_COUNT
from tests.commands.running import COMMANDS, ROOT, path_of, run
from tests.servers import require

#: What each command can't do without. `cluster-up` alone makes images, clusters and all.
TOOLS = {
    "cluster-up": {"docker", "git", "kind", "kubectl", "make", "python3"},
    "cluster-down": {"kind"},
    "deploy": {"kubectl", "python3"},
    "logs": {"kubectl"},
    "secrets": {"kubectl"},
    "shell": {"kubectl"},
    "status": {"kubectl"},
    "update": {"kubectl"},
}

SCRIPTS = sorted(path for path in COMMANDS.iterdir() if path.is_file() and path.read_text().startswith("#!"))
BASH = [path for path in SCRIPTS if "bash" in path.read_text().splitlines()[0]]

OLD_KUBECTL = 'echo "Client Version: v1.26.0"; echo "Kustomize Version: v4.5.7"'
KUBECTL_WITHOUT_CLUSTER = """
case "$*" in
    "version --client") echo "Kustomize Version: v5.0.1" ;;
    "config view") ;;
    *current-context*) echo "error: current-context is not set" >&2; exit 1 ;;
    *) echo "asked for $*" >> "$0.asked"; exit 1 ;;
esac
"""
KUBECTL_WITH_A_DEAD_CLUSTER = """
case "$*" in
    "version --client") echo "Kustomize Version: v5.0.1" ;;
    "config view") ;;
    *current-context*) echo gone ;;
    *) echo "dial tcp 127.0.0.1:1: connection refused" >&2; exit 1 ;;
esac
"""


def shellcheck_missing() -> str | None:
    return None if shutil.which("shellcheck") else "no shellcheck here: apt-get install shellcheck"


def test_every_command_is_a_program_and_is_looked_at_here() -> None:
    assert {path.name for path in SCRIPTS} == {*TOOLS, "images"}
    assert all(path.stat().st_mode & 0o111 for path in SCRIPTS)


@pytest.mark.parametrize("command", TOOLS)
def test_a_command_names_all_the_tools_that_are_missing_and_does_nothing(command: str, tmp_path: Path) -> None:
    ended = run(command, path=str(tmp_path))
    assert ended.returncode == 2
    first, *lines = ended.stderr.splitlines()
    assert first == "These tools are missing:"
    assert {line.split(":")[0].strip() for line in lines} == TOOLS[command]
    assert all("https://" in line or "apt-get install" in line for line in lines)
    assert ended.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["deploy", "logs", "shell", "update"])
def test_a_kubectl_whose_kustomize_is_too_old_is_refused(command: str, tmp_path: Path) -> None:
    ended = run(command, path_of(tmp_path / "bin", {"kubectl": OLD_KUBECTL}))
    assert ended.returncode == 2
    assert "too old" in ended.stderr


@pytest.mark.parametrize("command", sorted(TOOLS.keys() - {"cluster-up", "cluster-down", "secrets", "status"}))
def test_without_a_cluster_a_command_says_how_to_get_one(command: str, tmp_path: Path) -> None:
    ended = run(command, path_of(tmp_path / "bin", {"kubectl": KUBECTL_WITHOUT_CLUSTER}))
    assert ended.returncode == 2
    assert "make cluster-up" in ended.stderr
    assert not (tmp_path / "bin" / "kubectl.asked").exists()


@pytest.mark.parametrize("command", sorted(TOOLS.keys() - {"cluster-up", "cluster-down"}))
def test_a_cluster_that_does_not_answer_is_named_with_the_reason(command: str, tmp_path: Path) -> None:
    ended = run(command, path_of(tmp_path / "bin", {"kubectl": KUBECTL_WITH_A_DEAD_CLUSTER}))
    assert ended.returncode == 2
    assert "connection refused" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("script", BASH, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    require(shellcheck_missing())
    found = subprocess.run(
        ["shellcheck", "--external-sources", "--check-sourced", f"--source-path={ROOT}", str(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


def test_what_is_said_in_bash_and_in_python_is_the_same() -> None:
    bash = "".join((COMMANDS / name).read_text() for name in ("preflight.sh", "kind.sh"))
    said = dict(re.findall(r"^(NAMESPACE|KIND_CLUSTER)=(.+)$", bash, re.M))
    assert said == {"NAMESPACE": cluster.NAMESPACE, "KIND_CLUSTER": cluster.LAPTOP.removeprefix("kind-")}
    (many,) = re.findall(r"^MANY = ([\d_]+)$", (COMMANDS / "status").read_text(), re.M)
    assert int(many) == MAX_COUNT


def test_a_kubectl_that_can_not_read_its_settings_is_heard(tmp_path: Path) -> None:
    broken = (
        'case "$*" in "version --client") echo "Kustomize Version: v5.0.1" ;; *) echo "bad yaml" >&2; exit 1 ;; esac'
    )
    ended = run("logs", path_of(tmp_path / "bin", {"kubectl": broken}))
    assert (ended.returncode, ended.stderr) == (2, "bad yaml\n")
