"""What is posted, when, and for whom: decided before the first post, from the options and the server's kinds."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.load.options import Options


class WrongUsage(Exception):
    """The options don't suit the server; the message says what would."""


@dataclass(frozen=True, slots=True)
class Post:
    """One task to post."""

    number: int
    user: str
    key: str
    body: bytes
    #: Seconds after the start; None means as soon as a connection is free.
    due: float | None


def posts(options: Options, kinds: list[dict[str, Any]]) -> Iterator[Post]:
    """The tasks, in their order. `kinds` is what `GET /tasks/get/kinds` lists. Raises WrongUsage, at once."""
    inputs = inputs_for(options, kinds)
    return _posts(options, inputs)


def _posts(options: Options, inputs: list[dict[str, Any]]) -> Iterator[Post]:
    dice = random.Random(options.seed)
    for number in range(options.tasks):
        user = user_name(options, number)
        body = {"user_id": user, "kind": options.kind, **dice.choice(inputs)}
        due = number / options.rate if options.rate else None
        yield Post(number, user, f"{options.run}-{number}", json.dumps(body).encode(), due)


def user_name(options: Options, number: int) -> str:
    """The users take turns."""
    return f"load-{options.run}-{number % options.users}"


def inputs_for(options: Options, kinds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The inputs to choose from: the given ones, or the kind's whole examples. Raises WrongUsage."""
    schemas = {kind["kind"]: kind["inputs"] for kind in kinds}
    if options.kind not in schemas:
        raise WrongUsage(f"there is no kind {options.kind!r} here; there are: {', '.join(sorted(schemas))}")
    schema = schemas[options.kind]
    fields = schema.get("properties", {})
    examples: list[dict[str, Any]] = schema.get("examples", [])
    if unknown := sorted(set(options.inputs) - set(fields)):
        raise WrongUsage(f"kind {options.kind} has no input {', '.join(unknown)}; it has: {', '.join(fields)}")
    given = {name: _typed(name, text, fields[name]) for name, text in options.inputs.items()}
    choices = [{**example, **given} for example in examples] or [given]
    if missing := sorted(set(schema.get("required", [])) - set(choices[0])):
        needed = " ".join(f"--input {name}=…" for name in missing)
        raise WrongUsage(f"kind {options.kind} has no examples; it needs {needed}")
    return choices


def _typed(name: str, text: str, schema: dict[str, Any]) -> Any:
    """The value as the field's JSON Schema wants it: text as it stands, all else as JSON."""
    types = [schema.get("type"), *(choice.get("type") for choice in schema.get("anyOf", []))]
    if "string" in types or not any(types):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise WrongUsage(f"--input {name}={text}: this field is no text, and {text!r} is not valid JSON") from None
