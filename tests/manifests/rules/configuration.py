"""The environment of each part of ours is one that it starts with, and every setting has been thought of."""

from __future__ import annotations

from collections.abc import Iterator

from sluice.errors import InvalidSettings
from sluice.settings import Settings
from tests.manifests.rules import rule
from tests.manifests.rules.references import secrets_of
from tests.manifests.system import System, Workload

#: What each part must be given, and by a Secret.
NEEDS = {
    "add-task": ["mongodb_uri", "rabbitmq_url"],
    "retry-task": ["mongodb_uri", "rabbitmq_url"],
    "engine": ["mongodb_uri", "rabbitmq_url"],
    "sweep": ["mongodb_uri", "rabbitmq_url"],
    "get-tasks": ["mongodb_uri"],
    "cancel-task": ["mongodb_uri"],
}

#: Settings whose default is right in a cluster too, and why.
DEFAULT_IS_RIGHT = {
    "MONGODB_DATABASE": "the users' rights are on that database",
    "TASK_QUEUE": "the queue's name stands in keda/ and in RabbitMQ's definitions",
    "TASK_TTL_SECONDS": "and so does its TTL",
    "STORE_TIMEOUT_SECONDS": "measured for any network",
    "PUBLISH_TIMEOUT_SECONDS": "measured for any network",
    "ENGINE_CONCURRENCY": "it stands in keda/",
    "ENGINE_GRACE_SECONDS": "the grace period of the pod is made for it",
    "LEASE_SECONDS": "measured",
    "ATTEMPT_TIMEOUT_SECONDS": "the grace period of the pod is made for it",
    "CRASH_LIMIT": "a property of the tasks, not of the cluster",
    "SWEEP_SECONDS": "measured",
    "OPENAI_BASE_URL": "the openai package knows where its makers are",
    "OPENAI_TIMEOUT_SECONDS": "less than an attempt may take",
    "HOST": "a container listens on all addresses",
    "PORT": "the port of the image",
    "LOG_LEVEL": "INFO is what an operator wants to read",
    "LOG_FORMAT": "json, where there is no terminal",
    "WORKERS": "two for one core",
    "THREADS": "measured",
    "PROMETHEUS_MULTIPROC_DIR": "gunicorn's settings choose it, in /tmp",
}

#: Variables that are no settings of ours, and whose they are.
FOREIGN = {"FUNCTION_SOURCE", "FUNCTION_TARGET", "SSL_CERT_FILE", "TZ"}


@rule
def every_part_starts_with_what_it_is_given(system: System) -> Iterator[str]:
    for name, needed in NEEDS.items():
        workload = system.workload(name)
        if workload is None:
            continue
        given = _given(system, workload)
        try:
            Settings.load(
                required=needed,
                one_of=("openai_api_key", "openai_base_url") if name == "engine" else (),
                environment=given,
            )
        except InvalidSettings as error:
            yield f"{workload} does not start: {error}"
        secret = {key for _, key, _ in secrets_of(workload)}
        for setting in needed:
            if setting.upper() not in secret:
                yield f"{workload} does not take {setting.upper()} from a Secret"
        for variable in ("MONGODB_URI", "RABBITMQ_URL", "OPENAI_API_KEY"):
            if (
                variable in given
                and variable.lower() not in needed
                and (name, variable) != ("engine", "OPENAI_API_KEY")
            ):
                yield f"{workload} is given {variable}, which it does not need"


@rule
def every_variable_is_a_setting(system: System) -> Iterator[str]:
    known = {name.upper() for name in Settings.model_fields} | FOREIGN
    for workload in system.workloads:
        if not workload.is_ours:
            continue
        for name in _given(system, workload):
            if name not in known:
                yield f"{workload} is given {name}, which is no setting"
        for container in workload.all_containers:
            names = [variable["name"] for variable in container.get("env", [])]
            for name in {name for name in names if names.count(name) > 1}:
                yield f"{workload} is given {name} twice"


@rule
def every_setting_has_been_thought_of(system: System) -> Iterator[str]:
    given = {name for workload in system.workloads if workload.is_ours for name in _given(system, workload)}
    for name in {field.upper() for field in Settings.model_fields} - given - DEFAULT_IS_RIGHT.keys():
        yield f"{name} is set nowhere, and nobody said that its default is right"


@rule
def the_times_fit_into_each_other(system: System) -> Iterator[str]:
    """A call to the model ends before its attempt does, an attempt before its engine, an engine before its pod."""
    workload = system.workload("engine")
    if workload is None:
        return
    settings = system.settings("engine")
    if not settings.openai_timeout_seconds < settings.attempt_timeout_seconds < settings.engine_grace_seconds:
        yield "OPENAI_TIMEOUT_SECONDS < ATTEMPT_TIMEOUT_SECONDS < ENGINE_GRACE_SECONDS does not hold"


def _given(system: System, workload: Workload) -> dict[str, str]:
    """Everything that a workload's first container finds in its environment, with the values of the Secrets."""
    container = workload.containers[0]
    given = system.environment(container)
    for source in container.get("envFrom", []):
        given |= system.secrets.get(source.get("secretRef", {}).get("name", ""), {})
    for variable in container.get("env", []):
        if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
            value = system.secrets.get(reference["name"], {}).get(reference["key"])
            if value is not None:
                given[variable["name"]] = value
    return given
