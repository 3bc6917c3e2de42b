"""`python -m embedded`, or `make run`: all of Sluice in one process, on one port, with no services."""

from __future__ import annotations

import logging
import signal
import sys
import threading

import waitress

from embedded.app import make_app
from embedded.stand_ins import choose_services
from functions.engine.engine import Engine
from sluice.errors import InvalidSettings
from sluice.logs import configure_logs
from sluice.services import install
from sluice.settings import Settings

log = logging.getLogger("sluice")

#: Requests that are answered at once.
THREADS = 16

#: Seconds that tasks have to finish after Ctrl+C.
GRACE_SECONDS = 10


def main() -> int:
    try:
        settings = Settings.load()
        configure_logs(settings.log_level, settings.log_format or "text")
        services = choose_services(settings)
        install(services)
        engine = Engine(services)
        server = waitress.create_server(
            make_app(engine, services), host=settings.host, port=settings.port, threads=THREADS, channel_timeout=75
        )
    except InvalidSettings as error:
        sys.stderr.write(f"Sluice can't start: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"Sluice can't listen on port {settings.port}: {error.strerror}. Choose another: PORT=8081\n")
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    engine.start()
    threading.Thread(target=server.run, name="http", daemon=True).start()
    for part, stand_in in services.stand_ins.items():
        log.info("%s: %s", part, stand_in)
    log.info("Sluice is ready on http://localhost:%s/ (stop it with Ctrl+C)", server.effective_port)
    stop.wait()
    ended = engine.drain(grace=GRACE_SECONDS)
    server.close()
    services.close()
    return 0 if ended else 1


if __name__ == "__main__":
    sys.exit(main())
