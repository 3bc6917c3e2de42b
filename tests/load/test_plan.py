"""What is posted, when and for whom."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sluice.service import list_kinds
from tests.load.options import Options
from tests.load.plan import WrongUsage, inputs_for, posts

KINDS = list_kinds()["kinds"]
OPTIONS = Options("http://localhost", tasks=8, rate=4, users=3)


def made_up(inputs: dict[str, object]) -> list[dict[str, object]]:
    return [{"kind": "made-up", "title": "Made up", "inputs": inputs, "outputs": {}}]


def test_posts_are_due_at_a_steady_rate() -> None:
    assert [post.due for post in posts(OPTIONS, KINDS)] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]


def test_a_rate_of_zero_means_that_nothing_is_waited_for() -> None:
    assert {post.due for post in posts(replace(OPTIONS, rate=0), KINDS)} == {None}


def test_users_take_turns_and_every_post_has_its_own_key() -> None:
    planned = list(posts(OPTIONS, KINDS))
    assert [post.user.rpartition("-")[2] for post in planned] == list("01201201")
    assert len({post.key for post in planned}) == 8
    assert all(json.loads(post.body)["user_id"] == post.user for post in planned)


@pytest.mark.parametrize("kind", [kind["kind"] for kind in KINDS])
def test_every_kind_can_be_posted_by_its_own_examples(kind: str) -> None:
    examples = next(each["inputs"]["examples"] for each in KINDS if each["kind"] == kind)
    for post in posts(replace(OPTIONS, kind=kind), KINDS):
        body = json.loads(post.body)
        assert body.pop("kind") == kind
        del body["user_id"]
        assert body in examples


def test_the_same_seed_posts_the_same_work() -> None:
    options = replace(OPTIONS, kind="code", tasks=50)
    first, second, other = (
        [json.loads(post.body)["objective"] for post in posts(replace(options, seed=seed), KINDS)] for seed in (1, 1, 2)
    )
    assert first == second != other


def test_given_inputs_take_the_place_of_the_examples() -> None:
    given = inputs_for(replace(OPTIONS, kind="code", inputs={"objective": "Add."}), KINDS)
    assert {each["objective"] for each in given} == {"Add."}
    assert {each["language"] for each in given} == {"python", "javascript", "go"}


def test_an_input_is_read_as_its_schema_says() -> None:
    schema = {"properties": {"count": {"type": "integer"}, "text": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
    options = replace(OPTIONS, kind="made-up", inputs={"count": "3", "text": "3"})
    assert inputs_for(options, made_up(schema)) == [{"count": 3, "text": "3"}]
    with pytest.raises(WrongUsage, match="count=three: this field is no text"):
        inputs_for(replace(options, inputs={"count": "three"}), made_up(schema))


def test_what_the_server_does_not_have_is_said_before_anything_is_posted() -> None:
    with pytest.raises(WrongUsage, match="there is no kind 'massage' here; there are: code, message"):
        posts(replace(OPTIONS, kind="massage"), KINDS)
    with pytest.raises(WrongUsage, match="kind message has no input txt; it has: text"):
        posts(replace(OPTIONS, inputs={"txt": "hello"}), KINDS)
    with pytest.raises(WrongUsage, match="has no examples; it needs --input text=…"):
        posts(replace(OPTIONS, kind="made-up"), made_up({"properties": {"text": {}}, "required": ["text"]}))
