"""What is in the Secrets, and how a password gets into all the places where it has to be. Knows no cluster."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

#: A Secret's name, its keys, their values.
Secrets = dict[str, dict[str, str]]

#: The parts that speak to the database; the first of them speak to the queue too.
COMPONENTS = ("add-task", "retry-task", "engine", "sweep", "get-tasks", "cancel-task")
WITH_QUEUE = COMPONENTS[:4]

#: RabbitMQ's users and their tags. With less than `management` KEDA can't read a queue's length over HTTP.
TAGS: dict[str, list[str]] = {
    **{name: [] for name in WITH_QUEUE},
    "keda": ["management"],
    "operator": ["monitoring", "policymaker"],
}

#: The Secrets of the databases, where these run in the same cluster.
OF_DATABASES = ("rabbitmq", "mongodb")

#: The keys of every Secret but `model`.
KEYS: dict[str, tuple[str, ...]] = {
    **{name: ("MONGODB_URI", "RABBITMQ_URL") if name in WITH_QUEUE else ("MONGODB_URI",) for name in COMPONENTS},
    "keda": ("amqp", "http", "username", "password"),
    "rabbitmq": ("users.json", "erlang-cookie", "operator"),
    "mongodb": ("keyfile", "root", *COMPONENTS),
}

#: What can be made anew alone. MongoDB's root has its password in its own data; the key file and Erlang's cookie open
#: doors between several nodes, of which there is one.
ROTATABLE = (*COMPONENTS, "keda", "operator", "model")


@dataclass(frozen=True)
class Addresses:
    """Where the databases are, with {name} and {password} for the user's."""

    mongodb: str = "mongodb://{name}:{password}@mongodb-0.mongodb:27017/?replicaSet=rs0&authSource=sluice"
    rabbitmq: str = "amqp://{name}:{password}@rabbitmq:5672/sluice"
    #: KEDA lives in another namespace, and is told user and password apart from the address.
    keda_amqp: str = "amqp://rabbitmq.sluice.svc:5672/sluice"
    keda_http: str = "http://rabbitmq.sluice.svc:15672/sluice"


def complete(existing: Mapping[str, Mapping[str, str]], addresses: Addresses, own_databases: bool) -> Secrets:
    """All Secrets but `model`: what exists stays, what is missing is made, and the databases know their users."""
    every: Secrets = {name: dict(existing.get(name, {})) for name in needed(own_databases)}
    for name in COMPONENTS:
        every[name].setdefault("MONGODB_URI", _filled(addresses.mongodb, name))
        if name in WITH_QUEUE:
            every[name].setdefault("RABBITMQ_URL", _filled(addresses.rabbitmq, name))
    keda = every["keda"]
    keda.setdefault("amqp", addresses.keda_amqp)
    keda.setdefault("http", addresses.keda_http)
    keda.setdefault("username", "keda")
    keda.setdefault("password", _new_password())
    if own_databases:
        _complete_databases(every)
    return every


def needed(own_databases: bool) -> list[str]:
    return [name for name in KEYS if own_databases or name not in OF_DATABASES]


def rotated(existing: Mapping[str, Mapping[str, str]], name: str) -> Secrets:
    """What exists, with new passwords for one of ROTATABLE; addresses stay. The model's key is not ours to make: it
    goes."""
    every = {secret: dict(values) for secret, values in existing.items()}
    if name == "operator":
        every.get("rabbitmq", {}).pop("operator", None)
    elif name == "keda":
        every.setdefault("keda", {})["password"] = _new_password()
    elif name == "model":
        every.pop("model", None)
    else:
        every[name] = {key: _with_password(url, _new_password()) for key, url in every.get(name, {}).items()}
    return every


def hashed(password: str, salt: bytes) -> str:
    """As RabbitMQ keeps a password: https://www.rabbitmq.com/docs/passwords#computing-password-hash"""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _complete_databases(every: Secrets) -> None:
    rabbitmq, mongodb = every["rabbitmq"], every["mongodb"]
    rabbitmq.setdefault("erlang-cookie", _new_password())
    rabbitmq.setdefault("operator", _new_password())
    passwords = {name: _password_in(every[name]["RABBITMQ_URL"]) for name in WITH_QUEUE}
    passwords |= {"keda": every["keda"]["password"], "operator": rabbitmq["operator"]}
    rabbitmq["users.json"] = _users(passwords, rabbitmq.get("users.json", "{}"))
    # MongoDB takes 6 to 1024 characters of base64.
    mongodb.setdefault("keyfile", base64.b64encode(secrets.token_bytes(756)).decode())
    mongodb.setdefault("root", _new_password())
    mongodb |= {name: _password_in(every[name]["MONGODB_URI"]) for name in COMPONENTS}


def _users(passwords: Mapping[str, str], before: str) -> str:
    """RabbitMQ's users for it to import. With the same passwords as before it is the same text."""
    salts = {user["name"]: base64.b64decode(user["password_hash"])[:4] for user in json.loads(before).get("users", [])}
    users = [
        {
            "name": name,
            "password_hash": hashed(passwords[name], salts.get(name) or secrets.token_bytes(4)),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": tags,
        }
        for name, tags in TAGS.items()
    ]
    return json.dumps({"users": users})


def _new_password() -> str:
    """192 bits, in digits and letters that stand in a URL as they are."""
    return secrets.token_hex(24)


def _filled(template: str, name: str) -> str:
    return template.replace("{name}", name).replace("{password}", _new_password())


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:{password}@{hosts}").geturl()


def _password_in(url: str) -> str:
    return unquote(urlsplit(url).password or "")
