"""The browser of the tests: Debian's Chromium, which Playwright drives."""

from __future__ import annotations

from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")

#: It talks to nobody but the tests' servers, and runs as root and on machines without a graphics card.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_missing() -> str | None:
    """None if there is a browser here, else the reason and what to do about it."""
    if CHROMIUM.exists():
        return None
    return f"no {CHROMIUM} here: apt-get install --no-install-recommends chromium fonts-noto-core"
