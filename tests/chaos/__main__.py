"""`python -m tests.chaos --seed 1 --minutes 5`: one storm; exit status 1 when a promise was broken."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.bugs import BUGS
from tests.chaos.storm import storm
from tests.servers.rabbit import rabbitmq_missing

#: Violations that are printed; all are in the directory.
SHOWN = 30


def main() -> int:
    parser = argparse.ArgumentParser(description="Break everything around Sluice, and hold it to its promises.")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="what is broken when (random)")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long the storm lasts (2)")
    parser.add_argument("--rate", type=float, default=4.0, help="tasks added a second (4)")
    parser.add_argument(
        "--directory", type=Path, help="where everything is kept (a temporary one, removed when nothing was found)"
    )
    parser.add_argument("--bug", choices=BUGS, help="a mistake to put into the product, to see whether it is found")
    options = parser.parse_args()
    if missing := rabbitmq_missing():
        print(f"chaos: {missing}", file=sys.stderr)
        return 2
    directory = options.directory or Path(tempfile.mkdtemp(prefix=f"sluice-chaos-{options.seed}-"))
    directory.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", flush=True)

    outcome = storm(options.seed, options.minutes, directory, say, rate=options.rate, bug=BUGS.get(options.bug))
    for name, value in outcome.figures.items():
        print(f"{name:36} {value}")
    for violation in outcome.violations[:SHOWN]:
        print(violation)
    say(
        f"seed {options.seed}: {len(outcome.violations)} violations"
        + (f", see {directory}" if outcome.violations else "")
    )
    if options.directory is None and not outcome.violations:
        shutil.rmtree(directory)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
