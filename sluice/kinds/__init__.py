"""The kinds of work: which inputs each takes and which outputs it gives. One file a kind, found by itself.

`add_task` checks requests against the inputs, the page draws its form from them, and the engine holds what a handler
returns against the outputs. The handler of the same name lives in `functions/engine/kinds/`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sluice.errors import FieldError, InvalidKind, InvalidRequest, TooLarge
from sluice.task import RESERVED_FIELDS, Document

DEFAULT_KIND = "code"

#: The text of all inputs of a task together, UTF-8 encoded.
MAX_INPUT_BYTES = 64 * 1024


#: Characters of a line at most; a kind can ask for fewer.
MAX_LINE = 200

#: What no text may hold, as parts of a class of characters: control characters (a text of many lines may have tabs and
#: ends of lines), and halves of surrogate pairs (they have no form in UTF-8). And what a text must not only be.
_CONTROLS, _CONTROLS_IN_TEXTS = r"\x00-\x1f\x7f-\x9f", r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_SURROGATES = r"\ud800-\udfff"
_BLANKS = r"\x20\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_BLANKS_AROUND_LINES, _BLANKS_IN_TEXTS = rf"\t-\r\x1c-\x1f\x85{_BLANKS}", rf"\t\n\r{_BLANKS}"

_UNPRINTABLE_IN_LINES = re.compile(f"[{_CONTROLS}{_SURROGATES}]")
_UNPRINTABLE_IN_TEXTS = re.compile(f"[{_CONTROLS_IN_TEXTS}{_SURROGATES}]")

#: Bytes of UTF-8 that are no part of such a character: a text of nothing else, as most are, needs no closer look, which
#: takes ten times as long.
_HARMLESS_IN_LINES = bytes(byte for byte in range(0x20, 0x100) if byte not in (0x7F, 0xC2, 0xED))
_HARMLESS_IN_TEXTS = b"\t\n\r" + _HARMLESS_IN_LINES

#: The same as JSON Schema says it, for callers (who have no surrogates).
_LINE = f"^([{_BLANKS_AROUND_LINES}]*[^{_CONTROLS}{_BLANKS}][^{_CONTROLS}]*[{_BLANKS_AROUND_LINES}]*)$"
_TEXT = f"^([{_BLANKS_IN_TEXTS}]*[^{_CONTROLS}{_BLANKS}][^{_CONTROLS_IN_TEXTS}]*)$"


def _check(text: str, unprintable: re.Pattern[str], harmless: bytes) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    is_suspicious = text.encode("utf-8", "surrogatepass").translate(None, harmless)
    if is_suspicious and (found := unprintable.search(text)):
        raise ValueError(f"has a control character (U+{ord(found[0]):04X}) at position {found.start()}")
    return text


def _check_line(text: str) -> str:
    if len(text) > MAX_LINE:
        raise ValueError(f"String should have at most {MAX_LINE} characters")
    return _check(text.strip(), _UNPRINTABLE_IN_LINES, _HARMLESS_IN_LINES)


def _check_text(text: str) -> str:
    return _check(text, _UNPRINTABLE_IN_TEXTS, _HARMLESS_IN_TEXTS)


def _describe_line(schema: dict[str, Any]) -> None:
    schema.update(minLength=1, maxLength=min(schema.get("maxLength", MAX_LINE), MAX_LINE), pattern=_LINE)


def _describe_text(schema: dict[str, Any]) -> None:
    schema.update(minLength=1, maxLength=schema.get("maxLength", MAX_INPUT_BYTES), pattern=_TEXT)


#: A short text on one line, and a text of any number of lines. Neither may hold control characters. A field that sets
#: `max_length` means the text as it was sent, before the blanks around a line are cut off.
Line = Annotated[str, AfterValidator(_check_line), Field(json_schema_extra=_describe_line)]
Text = Annotated[str, AfterValidator(_check_text), Field(json_schema_extra=_describe_text)]


class Inputs(BaseModel):
    """What a task of a kind is given. Fields that are not declared are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Outputs(BaseModel):
    """What a task of a kind gives. Every field needs a default: it is what the task shows until it is done."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Kind:
    """One kind of work. Raises InvalidKind when its fields collide, or an output has no default."""

    name: str
    title: str
    inputs: type[Inputs]
    outputs: type[Outputs]

    def __post_init__(self) -> None:
        names = [*self.inputs.model_fields, *self.outputs.model_fields]
        taken = RESERVED_FIELDS & set(names)
        if taken or len(set(names)) < len(names):
            twice = sorted(taken) or sorted({name for name in names if names.count(name) > 1})
            raise InvalidKind(f"Kind {self.name}: these field names are taken: {', '.join(twice)}.")
        try:
            _ = self._blank_outputs
        except ValidationError as error:
            missing = ", ".join(problem.field for problem in field_errors(error))
            raise InvalidKind(f"Kind {self.name}: every output needs a default; these have none: {missing}.") from None

    def parse(self, inputs: Document) -> Inputs:
        """Check the inputs of a request. Raises InvalidRequest, naming every bad field, or TooLarge."""
        try:
            parsed = self.inputs.model_validate(inputs)
        except ValidationError as error:
            raise InvalidRequest("The task's fields are not valid.", field_errors(error)) from None
        if (size := _size(list(vars(parsed).values()))) > MAX_INPUT_BYTES:
            limit = f"{MAX_INPUT_BYTES // 1024} KiB of text ({MAX_INPUT_BYTES} bytes in UTF-8)"
            raise TooLarge(f"A task may hold {limit}; this one holds {size}.")
        return parsed

    def inputs_of(self, document: Document) -> Inputs:
        """The inputs in a task's document. Raises InvalidRequest when they don't suit the kind."""
        return self.parse({name: document[name] for name in self.inputs.model_fields if name in document})

    def title_of(self, document: Document) -> str:
        """What a task is about, for lists: the first line of the first text among its inputs; "" if there is none."""
        values = (document.get(name) for name in self.inputs.model_fields)
        texts = (value.strip() for value in values if isinstance(value, str))
        return next((text.splitlines()[0].rstrip()[:MAX_LINE] for text in texts if text), "")

    def blank_outputs(self) -> Document:
        return self._blank_outputs.copy()

    @cached_property
    def _blank_outputs(self) -> Document:
        return self.outputs().model_dump(mode="json")

    def schema(self) -> dict[str, Any]:
        """The kind as `GET /tasks/get/kinds` shows it: inputs and outputs as JSON Schema."""
        return {
            "kind": self.name,
            "title": self.title,
            "inputs": self.inputs.model_json_schema(),
            "outputs": self.outputs.model_json_schema(mode="serialization"),
        }


def _size(value: Any) -> int:
    """Bytes of all the text in a value."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, BaseModel):
        return _size(vars(value))
    if isinstance(value, dict):
        return sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, list | tuple | set):
        return sum(map(_size, value))
    return 0


def field_errors(error: ValidationError) -> list[FieldError]:
    return [
        FieldError(field=".".join(str(part) for part in item["loc"]) or "body", message=_sentence(item["msg"]))
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _sentence(message: str) -> str:
    """pydantic's messages, in words for the caller."""
    message = message.removeprefix("Value error, ").replace("Extra inputs are not permitted", "is not a field here")
    if message.startswith("Value should have"):  # of a text, by pydantic's own mistake
        message = message.replace(" item", " character")
    return message.replace(" after validation", "")


@cache
def kinds() -> dict[str, Kind]:
    """All kinds by name, read from this folder: each module defines `TITLE`, `Inputs`, `Outputs`. Raises
    InvalidKind."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        contents = importlib.import_module(f"{__name__}.{module.name}")
        missing = [name for name in ("TITLE", "Inputs", "Outputs") if not hasattr(contents, name)]
        if missing:
            raise InvalidKind(f"Kind {module.name}: {', '.join(missing)} is not defined in its module.")
        found[module.name] = Kind(module.name, contents.TITLE, contents.Inputs, contents.Outputs)
    return found
