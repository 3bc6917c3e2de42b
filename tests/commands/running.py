"""Running the commands as make does, and saying what they may find on their PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ROOT / "k8s" / "commands"

#: Not the environment's link to it: the commands have to do without what is installed there.
PYTHON = os.path.realpath(sys.executable)

#: What a command may use without a word, as POSIX has it or every Linux and macOS.
EVERYDAY = ("bash", "cat", "date", "env", "git", "grep", "mktemp", "python3", "rm", "rmdir", "sed", "sort", "tail")


def run(command: str, path: str, *, tree: Path = ROOT, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command of a tree, with nothing but this PATH and these settings, and nobody at the keyboard. It does not
    raise."""
    file = tree / "k8s" / "commands" / command
    interpreter = PYTHON if "python3" in file.read_text().splitlines()[0] else shutil.which("bash")
    assert interpreter is not None
    return subprocess.run(
        [interpreter, str(file)],
        env={"PATH": path, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def path_of(directory: Path, scripts: Mapping[str, str]) -> str:
    """A PATH of one folder: the everyday programs, and these shell scripts."""
    directory.mkdir()
    for name in EVERYDAY:
        program = PYTHON if name == "python3" else shutil.which(name)
        assert program is not None, name
        (directory / name).symlink_to(program)
    for name, script in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    return str(directory)
