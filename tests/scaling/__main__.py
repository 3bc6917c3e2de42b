"""`python -m tests.scaling`: scaling without a cluster, in real numbers. Takes about four minutes, alone on two cores.

Exit status 1 when anything did not hold.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.e2e.stack import ROOT
from tests.scaling.cluster import SCALED_OBJECT, START_DELAY_SECONDS, Cluster
from tests.scaling.scaled_object import read_scaled_object
from tests.scaling.trials import BURST_ENGINES, BURST_TASK_SECONDS, LONG_SPEED, TRIALS, Check
from tests.servers.nginx import nginx_missing
from tests.servers.rabbit import rabbitmq_missing

#: The burst, as the README shows it.
PICTURE = ROOT / "docs" / "pictures" / "scaling.svg"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scaling", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "scaling", help="the folder for the load's files")
    parser.add_argument("--picture", action="store_true", help=f"make {PICTURE.relative_to(ROOT)} of it too")
    options = parser.parse_args()
    if missing := rabbitmq_missing() or nginx_missing():
        print(missing, file=sys.stderr)
        return 1
    scaled = read_scaled_object(SCALED_OBJECT)
    print(
        f"{SCALED_OBJECT.relative_to(ROOT)} over real engines and RabbitMQ. A pod's process starts"
        f" {START_DELAY_SECONDS:g} s after the pod (scheduler, image, container). At most {BURST_ENGINES} engines."
        f" For the long tasks all times of the ScaledObject and the HPA are divided by {LONG_SPEED:g}."
    )
    table = Table("trial", "has to hold", "seen", "")
    violations = 0
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder, Cluster(Path(folder), BURST_TASK_SECONDS) as cluster:
        for name, trial in TRIALS:
            begun = time.monotonic()
            try:
                checks = trial(cluster, scaled, options.out)
            except AssertionError as error:
                checks = [Check("the trial comes to its end", str(error), False)]
            violations += sum(not check.holds for check in checks)
            heading = f"{name} ({time.monotonic() - begun:.0f} s)"
            for check in checks:
                table.add_row(heading, check.what, check.seen, "ok" if check.holds else "VIOLATED")
                heading = ""
            table.add_section()
            print(f"done: {name}", flush=True)
    Console(width=140).print(table)
    if options.picture and not violations:
        shutil.copy(options.out / "load.svg", PICTURE)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
