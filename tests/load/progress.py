"""What is shown while a run goes on: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.load.options import Options
from tests.load.record import Run

#: Pause between two pictures on a terminal, and between two lines elsewhere, in seconds.
TERMINAL_SECONDS, LINE_SECONDS = 0.2, 5.0


async def show(console: Console, options: Options, run: Run) -> None:
    """Until it is cancelled."""
    if console.is_terminal:
        await _bars(console, options, run)
    while True:
        await asyncio.sleep(LINE_SECONDS)
        elapsed = run.clock() - run.started
        numbers = f"{len(run.records)} posted, {run.accepted} accepted, {run.finished} finished"
        console.print(f"[{elapsed:6.1f} s] {numbers}{news_of(run)}", markup=False, highlight=False, soft_wrap=True)


async def _bars(console: Console, options: Options, run: Run) -> None:
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[news]}"),
    )
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        posted = progress.add_task("accepted", total=options.tasks, news="")
        finished = progress.add_task("finished", total=options.tasks, news="")
        while True:
            total = options.tasks if run.posting_ended is None else run.accepted
            progress.update(posted, completed=run.accepted, total=total)
            progress.update(finished, completed=run.finished, total=total, news=news_of(run))
            progress.refresh()
            await asyncio.sleep(TERMINAL_SECONDS)


def news_of(run: Run) -> str:
    """What was observed last, and what is wrong."""
    parts = []
    observed = run.samples[-1].observed if run.samples else {}
    if "queue_ready" in observed:
        parts.append(f"{observed['queue_ready']} ready, {observed.get('queue_unacked', 0)} unacked")
    if "replicas_ready" in observed:
        parts.append(f"{observed['replicas_ready']} of {observed['replicas_wanted']} engines")
    if run.refused:
        parts.append(f"{run.refused} not accepted")
    if run.away is not None:
        parts.append(f"NO ANSWER: {run.away}")
    return "".join(f" · {part}" for part in parts)
