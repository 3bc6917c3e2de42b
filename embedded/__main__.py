"""`python -m embedded`, or `make run`: all of Sluice in one process, on one port, with no services."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading

import waitress

from embedded.app import make_app
from embedded.stand_ins import choose_services
from functions.engine.engine import Engine
from functions.engine.kinds import kinds_without_handler
from functions.engine.model import model
from sluice.errors import InvalidKind, InvalidSettings
from sluice.logs import configure_logs
from sluice.services import install
from sluice.settings import Settings
from sluice.signals import Signals

log = logging.getLogger("sluice")

#: Requests that are answered at once.
THREADS = 16

#: Seconds that requests have to be answered after Ctrl+C, at most.
ANSWER_SECONDS = 5

#: Seconds that tasks have to finish after Ctrl+C, at most.
GRACE_SECONDS = 10


def main() -> int:
    signals = Signals(on_second=lambda: os._exit(1))
    try:
        settings = Settings.load()
        configure_logs(settings.log_level, settings.log_format or "text")
        if without := kinds_without_handler():
            raise InvalidKind(f"There is no handler in functions/engine/kinds for: {', '.join(without)}.")
        services = choose_services(settings)
        install(services)
        engine = Engine(services)
        server = waitress.create_server(
            make_app(engine, services),
            host=settings.host or "127.0.0.1",
            port=settings.port,
            threads=THREADS,
            channel_timeout=75,
        )
    except (InvalidSettings, InvalidKind) as error:
        return _cannot_start(str(error))
    except OSError as error:
        advice = " Choose another: PORT=8081 make run" if error.errno == errno.EADDRINUSE else ""
        return _cannot_start(f"it can't listen on port {settings.port}: {error.strerror}.{advice}")
    except ValueError:  # waitress, of an address that it can't resolve
        return _cannot_start(f"HOST {settings.host} is no address of this machine.")
    engine.start()
    threading.Thread(target=server.run, name="http", daemon=True).start()
    # The first task would wait for the import of the model's package.
    threading.Thread(target=model, args=(services.settings,), name="warm-up", daemon=True).start()
    for part in ("database", "queue", "model"):
        log.info("%s: %s", part, services.stand_ins.get(part, "as set"))
    log.info("Sluice listens on http://localhost:%s/ (stop it with Ctrl+C)", server.effective_port)
    signals.wait()
    log.info("stopping (Ctrl+C again to stop at once)")
    server.task_dispatcher.shutdown(timeout=ANSWER_SECONDS)  # a thread that answers would meet a closed server
    server.close()
    ended = engine.drain(grace=min(settings.engine_grace_seconds, GRACE_SECONDS))
    if "database" in services.stand_ins and (lost := services.store.count_unfinished()):
        log.warning("%s unfinished tasks are lost: the database was in memory", lost)
    services.close()
    return 0 if ended else 1


def _cannot_start(why: str) -> int:
    sys.stderr.write(f"Sluice can't start: {why}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
