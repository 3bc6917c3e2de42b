"""Run in an image by its own Python: takes out what only installs or draws, and compiles the standard library.

The official Python images hold no bytecode of the standard library. A process that may write none itself, because it is
not root or its root filesystem is read-only, would compile each module that it imports, at each start.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import sys
import sysconfig
from pathlib import Path

STDLIB = Path(sysconfig.get_path("stdlib"))

#: Packages of the standard library that nothing here imports. ensurepip has a pip in it.
UNUSED = ["ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo"]

for folder in [*(STDLIB / name for name in UNUSED), Path(sysconfig.get_path("purelib"))]:
    shutil.rmtree(folder, ignore_errors=True)
for command in Path(sysconfig.get_path("scripts")).glob("pip*"):
    command.unlink()

# unchecked-hash: no time of a file goes into the bytecode, so that two builds are the same.
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
sys.exit(not compileall.compile_dir(STDLIB, quiet=1, invalidation_mode=mode))
