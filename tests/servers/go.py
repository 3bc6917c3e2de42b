"""Programs that are built with Go, once for each state of their sources, into a cache: `SLUICE_CACHE`, by default
`~/.cache/sluice`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: Where Go's own installer puts it, for those who have not put that on their PATH.
GO = "/usr/local/go/bin/go"

#: The files of a module that decide what is built.
SUFFIXES = (".go", ".mod", ".sum")


def go_command() -> str | None:
    return shutil.which("go") or shutil.which(GO)


@dataclass(frozen=True)
class GoPrograms:
    """One or more programs of one module."""

    name: str
    #: The folder with `go.mod`.
    sources: Path
    #: What is built there; `tool` are all programs that `go.mod` names as tools.
    package: str = "."
    #: For the linker; these leave out what only a debugger reads.
    flags: str = "-s -w"

    @property
    def folder(self) -> Path:
        """Where the programs are, or will be, under the last names of their packages: its name ends in the hash of
        what they are made of."""
        digest = hashlib.sha256(self.flags.encode())
        for path in sorted(self.sources.iterdir()):
            if path.suffix in SUFFIXES:
                digest.update(path.read_bytes())
        cache = Path(os.environ.get("SLUICE_CACHE") or Path.home() / ".cache" / "sluice")
        return cache / f"{self.name}-{digest.hexdigest()[:16]}"

    def missing(self) -> str | None:
        """None if they are built or can be, else the reason."""
        if self.folder.exists() or go_command():
            return None
        return f"{self.name} is not built, and there is no Go toolchain to build it with"

    def build(self) -> Path:
        """The folder of the programs, which are built unless that has been done. Raises subprocess.CalledProcessError;
        the compiler's words go to stderr."""
        target = self.folder
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as made:  # half of them are never seen under their names
            programs = Path(made) / "programs"
            programs.mkdir()  # a folder that exists is where `go build` puts what it makes, however many
            flags = ["-trimpath", "-buildvcs=false", f"-ldflags={self.flags}"]
            command = [go_command() or "go", "build", *flags, "-o", f"{programs}/", self.package]
            subprocess.run(command, cwd=self.sources, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
            try:
                programs.replace(target)
            except OSError:  # somebody else was faster
                if not target.exists():
                    raise
        return target
