"""One round of the sweep, for a CronJob: `python -m functions.engine.sweep`. With the engine at zero nobody else looks
for tasks whose message was lost; what this sends wakes it."""

from __future__ import annotations

import logging
import sys

from sluice.errors import InvalidSettings, Unavailable
from sluice.logs import configure_logs
from sluice.services import connect
from sluice.settings import Settings
from sluice.sweep import sweep

log = logging.getLogger("sluice.sweep")


def main() -> int:
    try:
        settings = Settings.load(required=("mongodb_uri", "rabbitmq_url"))
        configure_logs(settings.log_level, settings.log_format)
        services = connect(settings, role="sweep")
    except InvalidSettings as error:
        sys.stderr.write(f"The sweep can't start: {error}\n")
        return 2
    try:
        sweep(services.store, services.broker, settings.publish_timeout_seconds)
        services.store.create_indexes()
    except Unavailable as error:
        log.error("the sweep could not finish: %s", error)
        return 1
    finally:
        services.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
