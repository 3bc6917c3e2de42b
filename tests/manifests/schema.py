"""What an API server checks of one object before it takes it, as far as that can be known without one.

Kubernetes' own kinds are held against the models of the `kubernetes` package (which refuse unknown fields, wrong types
and missing fields), the others against the schemas of their definitions. What those leave out is added here: names,
labels, quantities, words of a closed list. An empty field (`requests:` with nothing after it) is refused, because a
server drops it without a word.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
from kubernetes import client
from pydantic import BaseModel, ValidationError

from tests.manifests.fetch_schemas import DEFINITIONS, path_of

Path = tuple[str | int, ...]

#: Words that the models take for any text, by the field's name and, where a name has several meanings, its parent's.
WORDS: dict[str, set[str]] = {
    "clusterIP": {"None"},
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "externalTrafficPolicy": {"Cluster", "Local"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "nodeAffinityPolicy": {"Honor", "Ignore"},
    "nodeTaintsPolicy": {"Honor", "Ignore"},
    "pathType": {"Exact", "Prefix", "ImplementationSpecific"},
    "podManagementPolicy": {"OrderedReady", "Parallel"},
    "ports/protocol": {"TCP", "UDP", "SCTP"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "scheme": {"HTTP", "HTTPS"},
    "seccompProfile/type": {"RuntimeDefault", "Localhost", "Unconfined"},
    "strategy/type": {"Recreate", "RollingUpdate"},
    "terminationMessagePolicy": {"File", "FallbackToLogsOnError"},
    "unhealthyPodEvictionPolicy": {"IfHealthyBudget", "AlwaysAllow"},
    "updateStrategy/type": {"RollingUpdate", "OnDelete"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
}
LISTED_WORDS: dict[str, set[str]] = {
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "policyTypes": {"Ingress", "Egress"},
}

#: The least that a number may be; everywhere else it is nothing below 0.
LEAST = {
    "containerPort": 1,
    "failureThreshold": 1,
    "maxSkew": 1,
    "periodSeconds": 1,
    "port": 1,
    "successThreshold": 1,
    "timeoutSeconds": 1,
}

#: Groups of Kubernetes' own that are older than the rule that they end in .k8s.io.
SHORT_GROUPS = {"", "apps", "autoscaling", "batch", "policy"}

QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")
PERCENTAGE = re.compile(r"\d+%")
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]*[a-z0-9])?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SCHEDULE = re.compile(r"(@(hourly|daily|weekly|monthly|yearly))|([\d*/,-]+ ){4}[\d*/,-]+")


def problems_of(found: dict[str, Any]) -> Iterator[str]:
    """Why an API server would refuse this object, or silently take less than is written; each names the field."""
    api_version, kind = str(found.get("apiVersion")), str(found.get("kind"))
    name = f"{kind}/{(found.get('metadata') or {}).get('name')}"
    for problem in _problems(found, api_version, kind):
        yield f"{name} {problem}"


def _problems(found: dict[str, Any], api_version: str, kind: str) -> Iterator[str]:
    if f"{api_version} {kind}" in DEFINITIONS:
        for error in _schema(api_version, kind).iter_errors(found):
            yield f"{_text(tuple(error.instance_path))}: {error.message}"
    else:
        model = _model(api_version, kind)
        if model is None:
            yield f"is of a kind that is not known: {api_version} {kind}"
            return
        try:
            model.model_validate(found)
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                yield f"{_text(item['loc'])}: {item['msg']}"
        yield from _misspelt(found, model, ())
    yield from _metadata(found.get("metadata") or {})
    for path, value in _walk(found, ()):
        yield from (f"{_text(path)}: {problem}" for problem in _values(path, value))


@functools.cache
def _schema(api_version: str, kind: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(json.loads(path_of(api_version, kind).read_text()))


def _model(api_version: str, kind: str) -> type[BaseModel] | None:
    """The model of a kind that a server has: V1Deployment, if AppsV1Api can make a Deployment."""
    group, _, version = api_version.rpartition("/")
    if not group.endswith(".k8s.io") and group not in SHORT_GROUPS:
        return None
    words = (group or "core").removesuffix(".k8s.io").split(".")
    api = getattr(client, "".join(word.capitalize() for word in [*words, version]) + "Api", None)
    verb = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
    if not hasattr(api, f"create_namespaced_{verb}") and not hasattr(api, f"create_{verb}"):
        return None
    return getattr(client, version.capitalize() + kind)  # type: ignore[no-any-return]


def _misspelt(value: Any, model: type[BaseModel], path: Path) -> Iterator[str]:
    """The models take a field's name in Python too (`run_as_user`), which a server does not know."""
    names: dict[str, str] = model.attribute_map  # type: ignore[attr-defined]
    types: dict[str, str] = model.openapi_types  # type: ignore[attr-defined]
    if not isinstance(value, dict):
        return
    by_name = {names[attribute]: kind for attribute, kind in types.items()}
    for name, each in value.items():
        if name not in by_name:
            yield f"{_text((*path, name))}: there is no such field"
            continue
        inner = re.fullmatch(r"(?:List\[)?(V\w+)\]?", by_name[name])
        if inner is None:
            continue
        found = getattr(client, inner[1])
        if isinstance(each, list):
            for index, item in enumerate(each):
                yield from _misspelt(item, found, (*path, name, index))
        else:
            yield from _misspelt(each, found, (*path, name))


def _metadata(metadata: dict[str, Any]) -> Iterator[str]:
    if not SUBDOMAIN.fullmatch(str(metadata.get("name"))):
        yield f"metadata.name: {metadata.get('name')!r} is no name"


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    yield path, value
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _walk(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _walk(each, (*path, index))


def _values(path: Path, value: Any) -> Iterator[str]:
    names = [part for part in path if isinstance(part, str)]
    name, parent = (names[-1] if names else ""), (names[-2] if len(names) > 1 else "")
    if value is None:
        yield "is empty"
        return
    allowed = LISTED_WORDS.get(name) if path and isinstance(path[-1], int) else None
    allowed = allowed or WORDS.get(f"{parent}/{name}") or WORDS.get(name)
    if allowed and isinstance(value, str) and value not in allowed:
        yield f"{value!r} is none of {', '.join(sorted(allowed))}"
    if parent in ("labels", "matchLabels", "nodeSelector"):
        yield from _label(name, value)
    if parent == "annotations":
        yield from _key(name)
    if (parent in ("requests", "limits", "capacity") or name == "sizeLimit") and not isinstance(value, dict):
        yield from [] if QUANTITY.fullmatch(str(value)) else [f"{value!r} is no quantity"]
    if name in ("maxUnavailable", "minAvailable", "maxSurge") and isinstance(value, str):
        yield from [] if PERCENTAGE.fullmatch(value) else [f"{value!r} is neither a number nor a percentage"]
    if isinstance(value, int) and not isinstance(value, bool):
        if value < LEAST.get(name, 0) and name not in ("priority", "value"):
            yield f"{value} is less than {LEAST.get(name, 0)}"
        if name in ("port", "targetPort", "containerPort", "nodePort", "endPort") and value > 65535:
            yield f"{value} is no port"
    if parent == "ports" and name == "name" and not PORT_NAME.fullmatch(str(value)):
        yield f"{value!r} is no name of a port"
    if name == "name" and parent in ("containers", "initContainers", "volumes") and not DNS_LABEL.fullmatch(str(value)):
        yield f"{value!r} is no name"
    if name == "name" and parent == "env" and not VARIABLE.fullmatch(str(value)):
        yield f"{value!r} is no variable"
    if name == "schedule" and not SCHEDULE.fullmatch(str(value)):
        yield f"{value!r} is no schedule"


def _label(key: str, value: Any) -> Iterator[str]:
    yield from _key(key)
    if not isinstance(value, str) or not LABEL.fullmatch(value):
        yield f"{value!r} is no value of a label"


def _key(key: str) -> Iterator[str]:
    prefix, _, name = key.rpartition("/")
    if (prefix and not SUBDOMAIN.fullmatch(prefix)) or not name or not LABEL.fullmatch(name):
        yield f"{key!r} is no key"


def _text(path: Path | list[str | int]) -> str:
    return ".".join(str(part) for part in path) or "it"
