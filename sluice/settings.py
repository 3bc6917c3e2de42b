"""All settings, read once from the environment: typed, complete, and loud when they are wrong.

This is the only module that reads the environment. An empty variable counts as not set.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from sluice.errors import InvalidSettings

# pydantic looks for plugins among all that is installed before it builds its first model; there are none here.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _url(*schemes: str) -> AfterValidator:
    def check(given: SecretStr) -> SecretStr:
        if not given.get_secret_value().startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return given

    return AfterValidator(check)


class Settings(BaseModel):
    """Each field is the environment variable of the same name in capitals. `repr` hides the secrets."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    mongodb_uri: Annotated[SecretStr, _url("mongodb", "mongodb+srv")] | None = Field(
        None, description="Where MongoDB is: `mongodb://user:password@host/…`."
    )
    mongodb_database: str = Field("sluice", description="The database in MongoDB.", min_length=1)
    rabbitmq_url: Annotated[SecretStr, _url("amqp", "amqps")] | None = Field(
        None, description="Where RabbitMQ is: `amqp://user:password@host/vhost`."
    )
    task_queue: str = Field(
        "tasks", description="The queue; the others are named after it.", pattern=r"^[a-z0-9][a-z0-9.-]*$"
    )
    declare_queues: bool = Field(
        True, description="Whether to declare the queues. `false` where they are made otherwise, and nobody else may."
    )
    task_ttl_seconds: int = Field(300, description="How long after its acceptance a task may still be started.", ge=1)
    store_timeout_seconds: float = Field(2.0, description="How long one database operation may take.", gt=0)
    publish_timeout_seconds: float = Field(2.0, description="How long the queue may take to confirm a task.", gt=0)

    engine_concurrency: int = Field(10, description="Tasks that one engine holds and runs at once.", ge=1, le=1000)
    engine_grace_seconds: float = Field(
        140.0,
        description="How long a stopping engine finishes what it has; keep it below the pod's grace period.",
        gt=0,
    )
    lease_seconds: float = Field(
        10.0, description="After how long without a sign of life another engine takes a running task over.", ge=1
    )
    attempt_timeout_seconds: float = Field(
        130.0, description="After how long an engine stops an attempt; keep it below the grace period.", gt=0
    )
    crash_limit: int = Field(3, description="Attempts after which a task that kills its engine is given up.", ge=1)
    sweep_seconds: float = Field(15.0, description="How often an engine looks for tasks whose message was lost.", gt=0)

    openai_api_key: SecretStr | None = Field(None, description="The key for the model.")
    openai_base_url: str | None = Field(
        None, description="An OpenAI-compatible server, with its `/v1`.", pattern="^https?://"
    )
    openai_model: str = Field("gpt-5.4-mini", description="The model that writes code.", min_length=1)
    openai_timeout_seconds: float = Field(120.0, description="How long one answer of the model may take in all.", gt=0)

    host: str | None = Field(None, description="The address to listen on: all, but only this machine for `make run`.")
    port: int = Field(8080, description="The port to listen on.", ge=0, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="The least that is logged.")
    log_format: Literal["json", "text"] | None = Field(
        None, description="`json`, or `text` for people (what `make run` takes)."
    )
    workers: int = Field(2, description="Processes that serve one function.", ge=1)
    threads: int = Field(16, description="Threads of each of these processes, for calls that block.", ge=1)

    prometheus_multiproc_dir: str | None = Field(
        None, description="Where worker processes share their metrics; the gunicorn settings choose it."
    )

    @classmethod
    def load(
        cls,
        *,
        required: Iterable[str] = (),
        one_of: Collection[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read the settings. `required` must be given, and `one_of` these. Raises InvalidSettings that names everything
        missing or wrong at once."""
        environment = os.environ if environment is None else environment
        given = {name: value for name in cls.model_fields if (value := environment.get(name.upper(), "").strip())}
        problems = [f"{name.upper()} is not set" for name in required if name not in given]
        if one_of and not given.keys() & set(one_of):
            problems.append(f"{' or '.join(name.upper() for name in one_of)} is not set")
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)
            problems += [
                f"{str(item['loc'][0]).upper()}: {item['msg'].removeprefix('Value error, ')}" for item in wrong
            ]
        if problems:
            raise InvalidSettings("; ".join(problems))
        return settings

    @property
    def has_model(self) -> bool:
        """Whether a language model is configured, by its key or by its address."""
        return self.openai_api_key is not None or self.openai_base_url is not None


def reveal(secret: SecretStr | None) -> str:
    """The secret's text. Call it only where the secret is handed to the library that needs it."""
    if secret is None:
        raise InvalidSettings("a setting that is needed is not set")
    return secret.get_secret_value()


def shares_metrics() -> bool:
    """Whether the worker processes of a function share their metrics: asked before the settings are read."""
    return bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
