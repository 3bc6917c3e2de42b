"""The engine as a process of its own: `python -m functions.engine.main`. SIGTERM and SIGINT drain it."""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # what the imports make, stays: to look through it again and again while it grows is 5 % of the start

import logging
import sys
import threading
from contextlib import suppress

from sluice.errors import InvalidKind, InvalidSettings, Unavailable
from sluice.logs import configure_logs
from sluice.services import Services, connect
from sluice.settings import Settings
from sluice.signals import Signals

log = logging.getLogger("sluice.engine")

#: Seconds after its start at which an engine begins to say how it is: nobody asks sooner, and the first message would
#: wait for the imports. (Those of the model come with its first task: an engine at rest is without their 13 MB.)
HEALTH_SECONDS = 0.5


def main() -> int:
    signals = Signals()  # before all that takes time: the first process of a container has no default for them
    try:
        settings = Settings.load(required=("mongodb_uri", "rabbitmq_url"), one_of=("openai_api_key", "openai_base_url"))
        configure_logs(settings.log_level, settings.log_format)
        services = connect(settings, role="engine", consumes=True)
    except InvalidSettings as error:
        return _complain(f"start: {error}")
    try:
        return _run(services, signals)
    except InvalidKind as error:
        return _complain(f"start: {error}")
    finally:
        services.close()


def _run(services: Services, signals: Signals) -> int:
    # The first message needs the database as soon as it is there. Both services answer while the rest is imported: to
    # connect to them after it took 30 of 310 ms.
    threading.Thread(target=_reach, args=(services,), name="connect", daemon=True).start()
    from functions.engine.engine import Engine
    from functions.engine.health import HealthServer
    from functions.engine.kinds import kinds_without_handler

    for kind in kinds_without_handler():
        log.error("this engine has no handler for tasks of kind %s", kind)
    settings = services.settings
    engine = Engine(services)
    try:
        health = HealthServer(engine, services, settings.host or "0.0.0.0", settings.port)  # noqa: S104 - a container serves all
    except OSError as error:
        return _complain(f"listen on port {settings.port}: {error.strerror}")
    gc.freeze()
    gc.enable()
    engine.start()
    log.info("engine %s takes tasks from %s, health on port %s", engine.name, settings.task_queue, health.port)
    signals.wait(HEALTH_SECONDS)
    health.start()
    signals.wait()
    ended = engine.drain()
    health.close()
    return 0 if ended else 1


def _complain(of_what: str) -> int:
    sys.stderr.write(f"The engine can't {of_what}\n")
    return 2


def _reach(services: Services) -> None:
    with suppress(Unavailable):
        services.store.ping()


if __name__ == "__main__":
    sys.exit(main())
