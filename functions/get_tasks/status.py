"""How the tasks of all users stand: `python -m functions.get_tasks.status`, which `make status` runs in a pod."""

from __future__ import annotations

import json
import sys

from sluice.errors import InvalidSettings, StoreUnavailable
from sluice.service import MAX_COUNT
from sluice.services import open_store
from sluice.settings import Settings


def main() -> int:
    """Prints the number of tasks of each status as JSON, none beyond MAX_COUNT. The exit status is 1 when the database
    does not answer, 2 with wrong settings."""
    try:
        store = open_store(Settings.load(required=("mongodb_uri",)), role="status")
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        sys.stdout.write(json.dumps(store.count_by_status(None, MAX_COUNT)) + "\n")
    except StoreUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
