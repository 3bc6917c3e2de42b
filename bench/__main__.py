"""`python -m bench`: run the cases, print what they found, and with --write put it into docs/performance.md."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback

from bench import figures, report
from bench.figures import Result
from bench.lab import Lab
from tests.servers.rabbit import rabbitmq_missing

#: In the order of the page.
CASES = ("submit", "publish", "work", "latency", "start", "read", "growth")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, shorter measurements")
    parser.add_argument("--only", metavar="NAME,NAME", help=f"some of {', '.join(CASES)}")
    parser.add_argument("--write", action="store_true", help="fill docs/performance.md and write its plots")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"no case named {', '.join(unknown)}")
    if missing := rabbitmq_missing():
        parser.error(missing)

    started = time.monotonic()
    results: dict[str, Result] = {}
    broken: list[str] = []
    with Lab(arguments.quick) as lab:
        for name in names:
            print(f"\n=== {name}", flush=True)
            try:
                case = importlib.import_module(f"bench.cases.{name}")
                print(case.TITLE, flush=True)
                results[name] = case.run(lab)
            except Exception:  # the other cases' minutes are not to be lost
                traceback.print_exc()
                broken.append(name)
                continue
            print(report.text_of(results[name]), flush=True)
        machine = report.machine(lab, figures.noise(), time.monotonic() - started, names if arguments.only else ())
    print(machine)
    if arguments.write and results:
        broken += [f"docs/performance.md has no place for {slug}" for slug in report.write(results, machine)]
    for variant, reason in figures.ALL_WRONG.items():
        print(f"WRONG: {variant}: {reason}", file=sys.stderr)
    for name in broken:
        print(f"BROKEN: {name}", file=sys.stderr)
    failing = [verdict for result in results.values() for verdict in result.verdicts if not verdict.holds]
    for verdict in failing:
        print(f"FAILS: {verdict.claim}: {verdict.found}", file=sys.stderr)
    # A promise that fails on a busy machine is shown, and is no error of the run; a wrong measurement is one.
    return 1 if figures.ALL_WRONG or broken else 0


if __name__ == "__main__":
    sys.exit(main())
