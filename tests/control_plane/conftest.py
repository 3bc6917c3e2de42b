"""These tests are for `make control-plane` alone: what they run on takes half an hour to build, once."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("CONTROL_PLANE") else ["test_*.py"]
