"""`python -m bench`: run the cases and print what each found; with --write put it into docs/performance.md at once.
SIGINT (Ctrl-C) or SIGTERM ends it early, with all that it has started."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
import traceback

from bench import report
from bench.figures import ALL_WRONG, NOISE, Verdict
from bench.lab import Lab
from tests.servers.rabbit import rabbitmq_missing

#: In the order of the page, with the minutes that they take on two quiet cores: whole, and quick.
CASES = {
    "submit": (7.0, 1.5),
    "publish": (3.0, 1.0),
    "work": (6.0, 1.0),
    "latency": (2.5, 0.5),
    "start": (3.0, 1.5),
    "read": (4.5, 1.0),
    "growth": (11.0, 1.5),
}

#: The exit code of a run that was ended early: a shell's for SIGINT.
ENDED_EARLY = 130


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
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has its background jobs ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    try:
        with Lab(arguments.quick) as lab:
            broken, failing = run(lab, names, write=arguments.write)
    except KeyboardInterrupt:
        print("\nended early", file=sys.stderr)
        return ENDED_EARLY
    for variant, reason in ALL_WRONG.items():
        print(f"WRONG: {variant}: {reason}", file=sys.stderr)
    for name in broken:
        print(f"BROKEN: {name}", file=sys.stderr)
    for verdict in failing:
        print(f"FAILS: {verdict.claim}: {verdict.found}", file=sys.stderr)
    # A promise that fails on a busy machine is shown, and is no error of the run; a wrong measurement is one.
    return 1 if ALL_WRONG or broken else 0


def run(lab: Lab, names: list[str], *, write: bool) -> tuple[list[str], list[Verdict]]:
    """Measure these cases, one after the other. Returns what broke, and the promises that failed."""
    began, commit = time.monotonic(), report.commit()
    broken: list[str] = []
    failing: list[Verdict] = []
    done: list[str] = []
    left = sum(_minutes(lab, name) for name in names)
    print(f"about {left:.0f} min", flush=True)
    for name in names:
        left -= _minutes(lab, name)
        NOISE.forget()
        started = time.monotonic()
        try:
            case = importlib.import_module(f"bench.cases.{name}")
            print(f"\n=== {name}, about {_minutes(lab, name):g} min\n{case.TITLE}", flush=True)
            result = case.run(lab)
            provenance = report.provenance(lab, commit, NOISE, time.monotonic() - started)
            print(f"{report.text_of(result)}\n{provenance}", flush=True)
            done.append(name)
            failing += [verdict for verdict in result.verdicts if not verdict.holds]
            if write:
                machine = report.machine(lab, done)
                missing = report.write(name, result, provenance, machine, report.PAGE, report.PICTURES)
                broken += [f"docs/performance.md has no place for {slug}" for slug in missing]
        except Exception:  # the other cases' minutes are not to be lost
            traceback.print_exc()
            broken.append(name)
        print(f"=== {(time.monotonic() - began) / 60:.1f} min are over, about {left:.0f} are left", flush=True)
    print(f"\n{report.machine(lab, done)}")
    return broken, failing


def _minutes(lab: Lab, name: str) -> float:
    whole, quick = CASES[name]
    return quick if lab.quick else whole


if __name__ == "__main__":
    sys.exit(main())
