"""How many examples a test of hypothesis tries."""

from __future__ import annotations

from typing import Any

from hypothesis import settings


def examples(count: int, **more: Any) -> settings:
    """So many, always the same; as many others as you like with `--hypothesis-profile=long`."""
    return settings(max_examples=max(count, settings().max_examples), **more)
