"""The engine as a process of its own: `python -m functions.engine.main`. SIGTERM and SIGINT drain it."""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # what the imports make, stays: to look through it again and again while it grows is 5 % of the start

import logging
import signal
import sys
import threading
from contextlib import suppress

from functions.engine.engine import Engine
from functions.engine.health import HealthServer
from functions.engine.kinds import kinds_without_handler
from sluice.errors import InvalidKind, InvalidSettings, Unavailable
from sluice.logs import configure_logs
from sluice.services import Services, connect
from sluice.settings import Settings

log = logging.getLogger("sluice.engine")

#: Python hears a signal in its main thread only, and the kernel may give it to another one, as it does after SIGCONT: a
#: main thread that just waits would sleep on.
HEAR_SECONDS = 0.5

#: Seconds after its start at which an engine begins to say how it is: nobody asks sooner, and the first message would
#: wait for the imports. (Those of the model come with its first task: an engine at rest is without their 26 MB.)
HEALTH_SECONDS = 0.5


def main() -> int:
    try:
        settings = Settings.load(required=("mongodb_uri", "rabbitmq_url"), one_of=("openai_api_key", "openai_base_url"))
        configure_logs(settings.log_level, settings.log_format)
        services = connect(settings, role="engine")
        for kind in kinds_without_handler():
            log.error("this engine has no handler for tasks of kind %s", kind)
    except (InvalidSettings, InvalidKind) as error:
        sys.stderr.write(f"The engine can't start: {error}\n")
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    engine = Engine(services)
    try:
        health = HealthServer(engine, services, settings.host or "0.0.0.0", settings.port)  # noqa: S104 - a container serves all
    except OSError as error:
        sys.stderr.write(f"The engine can't listen on port {settings.port}: {error.strerror}\n")
        return 2
    gc.freeze()
    gc.enable()
    # Two services to connect to, at the same time: the first message needs the database as soon as it is there.
    threading.Thread(target=_reach, args=(services,), name="connect", daemon=True).start()
    engine.start()
    log.info("engine %s takes tasks from %s, health on port %s", engine.name, settings.task_queue, health.port)
    stop.wait(HEALTH_SECONDS)
    health.start()
    while not stop.wait(HEAR_SECONDS):
        pass
    ended = engine.drain()
    health.close()
    services.close()
    return 0 if ended else 1


def _reach(services: Services) -> None:
    with suppress(Unavailable):
        services.store.ping()


if __name__ == "__main__":
    sys.exit(main())
