"""What npm brings for the page and its tests: `make test` runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

WEB = Path(__file__).resolve().parents[2] / "web"
MODULES = WEB / "node_modules"


def modules_missing() -> str | None:
    """None if web/node_modules holds what web/package-lock.json asks for, else the reason and what to do about it."""
    installed = MODULES / ".package-lock.json"
    if installed.exists() and _versions(installed) == _versions(WEB / "package-lock.json"):
        return None
    if shutil.which("npm") is None:
        return "no npm here to make web/node_modules: apt-get install --no-install-recommends npm"
    return "web/node_modules is not what web/package-lock.json says: make test, or npm ci in web/"


def node_missing() -> str | None:
    """None if there is a node that reads modules as browsers do, else how to get one."""
    return None if shutil.which("node") else "no node here: apt-get install --no-install-recommends nodejs"


def _versions(lock: Path) -> dict[str, str]:
    packages = json.loads(lock.read_text())["packages"]
    return {name: package["version"] for name, package in packages.items() if name}
