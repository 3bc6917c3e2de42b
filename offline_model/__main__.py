"""`python -m offline_model`: serve until SIGTERM or SIGINT; the first line on stdout is the base URL."""

import argparse
import signal
import sys
import threading
from types import FrameType

from offline_model.model import OfflineModel


def main() -> int:
    """Serve until told to stop. Returns the exit code: 0, or 2 from argparse for bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m offline_model", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free one)")
    parser.add_argument("--scriptable", action="store_true", help="serve PUT and DELETE /script and GET /calls")
    parser.add_argument(
        "--seconds-per-answer", type=float, default=1.5, help="how long one answer takes (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if not 0 <= arguments.seconds_per_answer <= 3600:
        parser.error("--seconds-per-answer must be from 0 to 3600")
    if not 0 <= arguments.port <= 65535:
        parser.error("--port must be from 0 to 65535")

    asked_to_stop = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        asked_to_stop.set()

    # Before the port opens: whoever reads the first line may send the signal at once.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with OfflineModel(arguments.host, arguments.port, arguments.scriptable, arguments.seconds_per_answer) as model:
        sys.stdout.write(f"{model.base_url}\n")
        sys.stdout.flush()
        asked_to_stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
