"""`python -m tests.load --url http://localhost:8080 --tasks 500 --rate 50`; docs/load.md says what it measures.

Exit status: 0; 1 when an accepted task did not reach a final status; 2 when the usage is wrong, the server can't be
reached, or nothing was accepted; 130 after Ctrl+C.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from rich.console import Console

from tests.load.options import Options, parse
from tests.load.picture import draw
from tests.load.plan import WrongUsage
from tests.load.progress import show
from tests.load.report import complaints, exit_status, figures_of, table_of, write_files
from tests.load.run import Load, Unreachable


async def carry_out(options: Options, console: Console) -> Load:
    """Ctrl+C ends it early; a second one ends the process."""
    running = Load(options)

    def on_interrupt() -> None:
        if running.run.interrupted:
            console.show_cursor()  # the bars have hidden it
            os._exit(130)
        console.print("stopping (Ctrl+C again to stop at once)", markup=False)
        running.stop()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, on_interrupt)
    await running.carry_out(None if options.quiet else lambda: show(console, options, running.run))
    return running


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        done = asyncio.run(carry_out(options, console))
    except (Unreachable, WrongUsage, OSError) as error:  # OSError: the folder can't be made
        print(f"load: {error}", file=sys.stderr)
        return 2
    run = done.run
    figures = figures_of(options, run, done.meter.load)
    console.print(table_of(options, figures))
    for sentence in complaints(options, run):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    write_files(options.out, run, figures)
    draw(options, run, options.out / "load.svg")
    console.print(f"{options.out}: summary.json, tasks.csv, samples.csv, load.svg", markup=False, soft_wrap=True)
    return exit_status(run)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while the table and the files are made
        sys.exit(130)
