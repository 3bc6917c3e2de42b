"""Run in an image, as its user and with its settings: loads what its command loads. The arguments are the modules that
the library must have there. Ends with a message and status 1 when something is missing, or is there that should not be.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import ssl
import sys
from pathlib import Path


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it would be in
        return False


if lost := [module for module in sys.argv[1:] if not is_there(module)]:
    sys.exit(f"the wheel left out {', '.join(lost)}")
if os.getuid() == 0:
    sys.exit("it runs as root")
if too_much := [module for module in ("pip", "setuptools", "ensurepip") if is_there(module)]:
    sys.exit(f"there is {', '.join(too_much)} in it")

stores = ssl.get_default_verify_paths()
if not stores.cafile and not any(Path(stores.capath or "/nowhere").glob("*.0")):
    sys.exit("it trusts no certificate")

if "FUNCTION_TARGET" in os.environ:
    importlib.import_module("sluice.async_worker").create_app()
    for server in ("gunicorn.app.wsgiapp", "uvloop", "uvicorn.server"):
        importlib.import_module(server)
else:
    importlib.import_module("functions.engine.main")
    importlib.import_module("functions.engine.sweep")

loaded = {name: getattr(module, "__cached__", None) for name, module in sys.modules.items()}
if slow := sorted(name for name, bytecode in loaded.items() if bytecode and not Path(bytecode).exists()):
    sys.exit(f"each start would compile {', '.join(slow)}")
