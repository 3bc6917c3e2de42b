"""How a function is served in production:

FUNCTION_SOURCE=functions/add_task/main.py FUNCTION_TARGET=add_task \\
    gunicorn -c functions/gunicorn.conf.py functions_framework.aio:app
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sluice.settings import Settings

settings = Settings.load()

bind = f"{settings.host or '0.0.0.0'}:{settings.port}"  # noqa: S104 - a container serves all
worker_class = "sluice.async_worker.AsyncWorker"
workers = settings.workers

# Longer than any proxy keeps an idle connection: the side that closes first must not be this one, or a request that is
# on its way meets a closed connection (502).
keepalive = 75
# Requests that are being answered are finished; adding a task takes 5 s at most, with both services away.
graceful_timeout = 25
timeout = 60
# The heartbeat file of a worker must not wait for a disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
control_socket_disable = True
loglevel = "warning"

# All workers answer `/metrics` for each other, through files. Set before a worker imports prometheus_client.
if settings.prometheus_multiproc_dir is None:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="sluice-metrics-")


def post_worker_init(_worker: Any) -> None:
    # Load the function now: with wrong settings the process ends, and no caller waits for the imports.
    import functions_framework.aio

    from sluice.async_worker import create_app

    framework = functions_framework.aio.app
    framework.app, framework._app_initialized = create_app(), True
    # What was loaded stays: to look through it whenever garbage is collected would hold all calls up for 30 ms.
    gc.freeze()


def on_exit(_server: Any) -> None:
    if settings.prometheus_multiproc_dir is None:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def child_exit(_server: Any, worker: Any) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
