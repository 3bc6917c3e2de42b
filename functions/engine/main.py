"""The engine as a process of its own: `python -m functions.engine.main`. SIGTERM and SIGINT drain it."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from functions.engine.engine import Engine
from functions.engine.health import HealthServer
from sluice.errors import InvalidSettings
from sluice.logs import configure_logs
from sluice.services import connect
from sluice.settings import Settings

log = logging.getLogger("sluice.engine")


def main() -> int:
    try:
        settings = Settings.load(required=("mongodb_uri", "rabbitmq_url"))
        if not settings.has_model:
            raise InvalidSettings("OPENAI_API_KEY is not set (nor OPENAI_BASE_URL, for a server that needs no key)")
        configure_logs(settings.log_level, settings.log_format)
        services = connect(settings, role="engine")
    except InvalidSettings as error:
        sys.stderr.write(f"The engine can't start: {error}\n")
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    engine = Engine(services)
    try:
        health = HealthServer(engine, services, settings.host, settings.port)
    except OSError as error:
        sys.stderr.write(f"The engine can't listen on port {settings.port}: {error.strerror}\n")
        return 2
    engine.start()
    log.info("engine %s takes tasks from %s, health on port %s", engine.name, settings.task_queue, health.port)
    stop.wait()
    ended = engine.drain()
    health.close()
    services.close()
    return 0 if ended else 1


if __name__ == "__main__":
    sys.exit(main())
