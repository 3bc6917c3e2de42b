"""Real servers for the tests: each one private, on free ports of 127.0.0.1, in a folder of its own."""

import os


def require(reason: str | None) -> None:
    """Skips the running test for `reason`; fails it instead where CI is set. None means nothing is missing."""
    import pytest  # not at the top: the servers that run as processes import this package too

    if reason is None:
        return
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"CI must run this test, but {reason}", pytrace=False)
    pytest.skip(reason)
