"""Chooses for each service the real one, where a setting names it, or a stand-in in this process."""

from __future__ import annotations

from pydantic import SecretStr

from sluice.broker import TaskBroker
from sluice.memory import InMemoryTaskBroker
from sluice.services import Services, open_broker, open_store, topology
from sluice.settings import Settings
from sluice.store import MongoTaskStore


def choose_services(settings: Settings) -> Services:
    """The services for one process; `stand_ins` says which of them are not real. Starts the offline model if there is
    no other. Raises InvalidSettings."""
    stand_ins = {}
    if settings.mongodb_uri is None:
        store = _store_in_memory(settings)
        stand_ins["database"] = "in memory (set MONGODB_URI for a real one)"
    else:
        store = open_store(settings, "embedded")
    if settings.rabbitmq_url is None:
        broker: TaskBroker = InMemoryTaskBroker(topology(settings))
        stand_ins["queue"] = "in memory (set RABBITMQ_URL for a real one)"
    else:
        broker = open_broker(settings, lambda: store, "embedded")
    if not settings.has_model:
        settings = _with_offline_model(settings)
        stand_ins["model"] = "offline model (set OPENAI_API_KEY for a real one)"
    return Services(settings, store, broker, stand_ins)


def _store_in_memory(settings: Settings) -> MongoTaskStore:
    import mongomock

    return MongoTaskStore(mongomock.MongoClient(tz_aware=True), settings.mongodb_database, one_at_a_time=True)


def _with_offline_model(settings: Settings) -> Settings:
    from offline_model import OfflineModel

    model = OfflineModel()
    model.start()
    return settings.model_copy(
        update={
            "openai_base_url": model.base_url,
            "openai_api_key": SecretStr("offline"),
            "openai_model": "offline-model",
        }
    )
