"""What Lighthouse says of the page's first load, as in production: `make lighthouse`.

Starts the cluster of the tests (ingress, nginx, functions, engine) and measures it a few times as a phone and as a desk
does. Prints the median of each score, and what is transferred.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.servers.browser import ARGUMENTS, CHROMIUM, chromium_missing
from tests.servers.nginx import nginx_missing
from tests.servers.rabbit import RabbitNode, rabbitmq_missing
from tests.servers.wire_mongo import WireMongo
from tests.web.sluices import ClusterSluice

COMMAND = Path(__file__).with_name("node_modules") / ".bin" / "lighthouse"
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")
TIMES = ("first-contentful-paint", "largest-contentful-paint", "total-blocking-time")
SETTINGS: dict[str, list[str]] = {"phone": [], "desk": ["--preset=desktop"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    missing = [reason for reason in (chromium_missing(), nginx_missing(), rabbitmq_missing()) if reason]
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        directory = Path(folder)
        rabbit = servers.enter_context(RabbitNode(directory / "rabbit"))
        mongo = servers.enter_context(WireMongo(directory / "mongo"))
        sluice = servers.enter_context(ClusterSluice(directory / "cluster", rabbit, mongo))
        for name, options in SETTINGS.items():
            reports = [_measure(f"{sluice.url}/", options, directory / f"{name}-{run}.json") for run in range(runs)]
            print(f"{name}, median of {runs}:", ", ".join(_scores(reports)))
            print(f"    {', '.join(_times(reports))}; {_transfer(reports[0])}")
            for complaint in sorted({complaint for report in reports for complaint in _complaints(report)}):
                print(f"    {complaint}")
    return 0


def _measure(url: str, options: list[str], report: Path) -> dict[str, Any]:
    flags = " ".join(["--headless=new", *ARGUMENTS])
    command = [COMMAND, url, "--quiet", "--output=json", f"--output-path={report}", f"--chrome-flags={flags}"]
    command += [f"--only-categories={','.join(CATEGORIES)}", "--no-enable-error-reporting", *options]
    subprocess.run(command, env={**os.environ, "CHROME_PATH": str(CHROMIUM)}, check=True)
    read: dict[str, Any] = json.loads(report.read_text())
    return read


def _scores(reports: list[dict[str, Any]]) -> Iterator[str]:
    for name in CATEGORIES:
        scores = [report["categories"][name]["score"] for report in reports]
        # A category in which something could not be measured has no score.
        yield f"{name} {'?' if None in scores else round(100 * statistics.median(scores))}"


def _times(reports: list[dict[str, Any]]) -> Iterator[str]:
    for name in TIMES:
        milliseconds = statistics.median(report["audits"][name]["numericValue"] for report in reports)
        yield f"{name} {milliseconds:.0f} ms"


def _transfer(report: dict[str, Any]) -> str:
    requests = report["audits"]["network-requests"]["details"]["items"]
    return f"{sum(request['transferSize'] for request in requests) / 1024:.1f} KiB in {len(requests)} requests"


def _complaints(report: dict[str, Any]) -> Iterator[str]:
    """The audits that cost points."""
    for category in report["categories"].values():
        for reference in category["auditRefs"]:
            audit = report["audits"][reference["id"]]
            if reference["weight"] and audit["score"] is not None and audit["score"] < 0.9:
                yield f"{category['id']}: {audit['title']} ({audit['id']})"


if __name__ == "__main__":
    sys.exit(main())
