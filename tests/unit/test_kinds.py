"""Kinds: what their inputs may be, how refusals read, and which kinds can't exist."""

from __future__ import annotations

import json
import sys

import pytest
from pydantic import Field, create_model

from sluice import kinds
from sluice.errors import FieldError, InvalidKind, InvalidRequest, TooLarge
from sluice.kinds import DEFAULT_KIND, MAX_INPUT_BYTES, Kind
from sluice.task import RESERVED_FIELDS

ALL = kinds.kinds()


class Inputs(kinds.Inputs):
    text: kinds.Text
    name: kinds.Line = "somebody"
    count: int = Field(1, ge=1)


class Outputs(kinds.Outputs):
    result: str = ""


SAMPLE = Kind("sample", "Sample", Inputs, Outputs)


def refusals(kind: Kind, **inputs: object) -> list[FieldError]:
    with pytest.raises(InvalidRequest) as caught:
        kind.parse(inputs)
    return caught.value.errors


def refusal(kind: Kind, **inputs: object) -> FieldError:
    [error] = refusals(kind, **inputs)
    return error


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x08", "\x0b", "\x0c", "\x1b", "\x7f", "\x80", "\x9f"])
@pytest.mark.parametrize("field", ["text", "name"])
def test_a_control_character_is_refused_by_its_name_and_place(field: str, character: str) -> None:
    error = refusal(SAMPLE, **{"text": "fine", field: f"ab{character}c"})
    assert error.field == field
    assert f"U+{ord(character):04X}" in error.message
    assert "position 2" in error.message


def test_a_text_may_have_lines_and_tabs() -> None:
    assert SAMPLE.parse({"text": "one\n\ttwo\r\n"}).model_dump()["text"] == "one\n\ttwo\r\n"


@pytest.mark.parametrize("character", ["\n", "\r", "\t"])
def test_a_line_is_one_line(character: str) -> None:
    error = refusal(SAMPLE, text="fine", name=f"two{character}lines")
    assert error.field == "name"
    assert f"U+{ord(character):04X}" in error.message


@pytest.mark.parametrize("text", ["\ud800", "half a pair \udfff"])
@pytest.mark.parametrize("field", ["text", "name"])
def test_a_surrogate_that_is_no_character_is_refused_by_name(field: str, text: str) -> None:
    assert refusal(SAMPLE, **{"text": "fine", field: text}).field == field


def test_every_other_character_is_welcome() -> None:
    text = "grüße, 日本語, 🦦, \u202e, \xa0, \U0010ffff"
    assert SAMPLE.parse({"text": text}).model_dump()["text"] == text


@pytest.mark.parametrize("blank", ["", " ", "\n\t ", "\u2003"])
@pytest.mark.parametrize("field", ["text", "name"])
def test_a_blank_text_is_refused_by_name(field: str, blank: str) -> None:
    assert refusal(SAMPLE, **{"text": "fine", field: blank}).field == field


def test_blanks_around_a_line_are_not_part_of_it() -> None:
    assert SAMPLE.parse({"text": " fine ", "name": "  Ada "}).model_dump() == {
        "text": " fine ",
        "name": "Ada",
        "count": 1,
    }


def test_a_line_that_is_too_long_is_refused_by_name() -> None:
    error = refusal(SAMPLE, text="fine", name="x" * 201)
    assert error.field == "name"
    assert "200" in error.message
    assert SAMPLE.parse({"text": "fine", "name": "x" * 200})


@pytest.mark.parametrize("value", [None, 7, 1.5, True, [], {}, ["a"]])
def test_what_is_no_text_is_refused_by_name(value: object) -> None:
    assert refusal(SAMPLE, text=value).field == "text"


def test_a_missing_field_is_named() -> None:
    assert refusal(SAMPLE).field == "text"


def test_a_field_that_the_kind_does_not_have_is_named() -> None:
    assert refusal(SAMPLE, text="fine", colour="red") == FieldError("colour", "is not a field here")


def test_every_bad_field_is_named_at_once() -> None:
    errors = refusals(SAMPLE, text="\x00", name="", count=0, colour="red", size=3)
    assert sorted(error.field for error in errors) == ["colour", "count", "name", "size", "text"]
    assert all(error.message for error in errors)


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    assert "open-sesame" not in str(refusals(SAMPLE, text=["open-sesame"], name="open-sesame\x00", count="open-sesame"))


# --- 64 KiB ----------------------------------------------------------------------------------------------------------


def test_a_text_of_64_kib_is_accepted() -> None:
    assert ALL["message"].parse({"text": "x" * MAX_INPUT_BYTES})
    assert MAX_INPUT_BYTES == 65536


def test_lines_count_as_the_bytes_that_they_are() -> None:
    text = "x\n" * (MAX_INPUT_BYTES // 2)
    assert ALL["message"].parse({"text": text}).model_dump()["text"] == text


@pytest.mark.parametrize("text", ["x" * 65537, "x" * 70_000, "é" * 32_769, "🦦" * 16_385])
def test_a_text_over_64_kib_is_too_large_in_whatever_alphabet(text: str) -> None:
    assert len(text.encode()) > MAX_INPUT_BYTES
    with pytest.raises(TooLarge, match="64 KiB"):
        ALL["message"].parse({"text": text})


def test_all_texts_together_may_hold_64_kib() -> None:
    halves = create_model("Halves", __base__=kinds.Inputs, left=(kinds.Text, ...), right=(kinds.Text, ...))
    kind = Kind("halves", "Halves", halves, Outputs)
    assert kind.parse({"left": "x" * 32_768, "right": "x" * 32_768})
    with pytest.raises(TooLarge):
        kind.parse({"left": "x" * 32_768, "right": "x" * 32_769})


def test_texts_in_models_in_lists_count_too() -> None:
    page = create_model("Page", text=(str, ...))
    book = Kind("book", "Book", create_model("Book", __base__=kinds.Inputs, pages=(list[page], ...)), Outputs)  # type: ignore[valid-type]
    of_names = 2 * len("text")
    assert book.parse({"pages": [{"text": "x" * 32_768}, {"text": "x" * (32_768 - of_names)}]})
    with pytest.raises(TooLarge):
        book.parse({"pages": [{"text": "x" * 32_768}, {"text": "x" * (32_769 - of_names)}]})


# --- kinds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(name for name in RESERVED_FIELDS if not name.startswith("_")))
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_kind_can_not_use_a_name_that_every_task_has(name: str, side: str) -> None:
    base = kinds.Inputs if side == "inputs" else kinds.Outputs
    model = create_model("Model", __base__=base, **{name: (str, "")})  # type: ignore[call-overload]
    sides = {"inputs": Inputs, "outputs": Outputs} | {side: model}
    with pytest.raises(InvalidKind, match=name):
        Kind("broken", "Broken", **sides)


def test_a_kind_can_not_use_a_name_for_an_input_and_an_output() -> None:
    echo = create_model("Echo", __base__=kinds.Outputs, text=(str, ""))
    with pytest.raises(InvalidKind, match="text"):
        Kind("echo", "Echo", Inputs, echo)


def test_the_default_kind_exists() -> None:
    assert DEFAULT_KIND == "code"
    assert {"code", "message"} <= ALL.keys()


@pytest.mark.parametrize("kind", ALL.values(), ids=ALL)
def test_every_kind_has_a_title_and_goes_by_the_name_of_its_file(kind: Kind) -> None:
    assert kind.title
    assert ALL[kind.name] is kind


@pytest.mark.parametrize("kind", ALL.values(), ids=ALL)
def test_every_output_has_a_default_that_fits_into_a_message(kind: Kind) -> None:
    blank = kind.blank_outputs()
    assert blank.keys() == kind.outputs.model_fields.keys()
    assert json.loads(json.dumps(blank)) == blank


def test_blank_outputs_that_are_filled_in_leave_the_next_ones_blank() -> None:
    SAMPLE.blank_outputs()["result"] = "mine"
    assert SAMPLE.blank_outputs() == {"result": ""}


@pytest.mark.parametrize("kind", ALL.values(), ids=ALL)
def test_the_schema_of_a_kind_is_json_that_names_its_fields(kind: Kind) -> None:
    schema = json.loads(json.dumps(kind.schema()))
    assert (schema["kind"], schema["title"]) == (kind.name, kind.title)
    assert schema["inputs"]["type"] == schema["outputs"]["type"] == "object"
    assert schema["inputs"]["properties"].keys() == kind.inputs.model_fields.keys()
    assert schema["outputs"]["properties"].keys() == kind.outputs.model_fields.keys()
    assert schema["inputs"]["additionalProperties"] is False


def test_a_code_task_needs_an_objective_and_is_python_if_nothing_else_is_said() -> None:
    assert ALL["code"].parse({"objective": "Add."}).model_dump() == {"objective": "Add.", "language": "python"}
    assert refusal(ALL["code"]).field == "objective"
    assert ALL["code"].blank_outputs()["code"] == ""


def test_a_language_has_at_most_40_characters_and_its_schema_says_so() -> None:
    assert refusal(ALL["code"], objective="Add.", language="x" * 41).field == "language"
    assert ALL["code"].schema()["inputs"]["properties"]["language"]["maxLength"] == 40


def test_a_line_is_measured_as_it_was_sent() -> None:
    assert SAMPLE.parse({"text": "fine", "name": " " * 190 + "x" * 10})
    assert refusal(SAMPLE, text="fine", name=" " * 191 + "x" * 10).field == "name"


def test_the_inputs_are_found_again_in_a_tasks_document() -> None:
    document = {"_id": "0" * 32, "status": "pending", "objective": "Add.", "language": "go", "code": ""}
    assert ALL["code"].inputs_of(document).model_dump() == {"objective": "Add.", "language": "go"}


def test_a_document_whose_inputs_do_not_suit_the_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        ALL["code"].inputs_of({"_id": "0" * 32, "objective": 7})


# --- how a kind is shown ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "title"),
    [
        ({"text": "Sum up."}, "Sum up."),
        ({"text": "\n \n\t Sum up. \r\nThree numbers.\n"}, "Sum up."),
        ({"text": "one\u2028two"}, "one"),
        ({"text": "x" * 300}, "x" * 200),
        ({"text": " ", "name": "Ada", "count": 1}, "Ada"),
        ({"text": 7, "name": "Ada"}, "Ada"),
        ({"name": "Ada"}, "Ada"),
        ({"text": None, "count": 1, "result": "done"}, ""),
        ({}, ""),
    ],
)
def test_the_title_of_a_task_is_the_first_line_of_its_first_text(document: dict[str, object], title: str) -> None:
    assert SAMPLE.title_of(document) == title


@pytest.mark.parametrize("kind", ALL.values(), ids=ALL)
def test_every_kind_has_examples_that_it_takes(kind: Kind) -> None:
    examples = kind.schema()["inputs"]["examples"]
    assert examples
    for example in examples:
        assert kind.parse(example).model_dump(exclude_unset=True) == example


@pytest.mark.parametrize("kind", ALL.values(), ids=ALL)
def test_the_language_of_an_output_is_in_an_input_of_its_kind(kind: Kind) -> None:
    outputs = kind.schema()["outputs"]["properties"].values()
    named = {output["x-language-field"] for output in outputs if "x-language-field" in output}
    assert named <= kind.inputs.model_fields.keys()


def test_code_is_in_the_language_that_was_asked_for() -> None:
    assert ALL["code"].schema()["outputs"]["properties"]["code"]["x-language-field"] == "language"


@pytest.mark.parametrize("where", ["LINES", "TEXTS"])
def test_a_quick_look_at_a_text_overlooks_no_character_that_it_may_not_hold(where: str) -> None:
    unprintable, harmless = getattr(kinds, f"_UNPRINTABLE_IN_{where}"), getattr(kinds, f"_HARMLESS_IN_{where}")
    found = unprintable.findall("".join(map(chr, range(sys.maxunicode + 1))))
    assert len(found) > 2048
    assert [each for each in found if not each.encode("utf-8", "surrogatepass").translate(None, harmless)] == []
    assert not "Hello, Grüße, 𝄞".encode().translate(None, harmless), "it is quick for most"
