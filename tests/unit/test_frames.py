"""The bytes of a message, held against pika's own."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.frame import Body, Header, Method
from pika.spec import Basic, BasicProperties

from sluice.broker import Message
from sluice.rabbit.frames import acknowledgement, publication


def frames_of_pika(channel: int, message: Message, queue: str, most: int) -> bytes:
    method = Basic.Publish(exchange="", routing_key=queue, mandatory=True)
    properties = BasicProperties(
        content_type="application/json", delivery_mode=2, message_id=message.id, headers=message.headers
    )
    bodies = [message.body[number * most :][:most] for number in range(math.ceil(len(message.body) / most))]
    frames = [
        Method(channel, method),
        Header(channel, len(message.body), properties),
        *(Body(channel, body) for body in bodies),
    ]
    return b"".join(frame.marshal() for frame in frames)


short = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
values = st.recursive(
    st.none()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.just(datetime(2026, 7, 14, tzinfo=UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short, inner, max_size=3),
    max_leaves=8,
)
texts = st.dictionaries(short, st.text(st.characters(exclude_categories=["Cs"])), max_size=4)


@given(
    message=st.builds(Message, short, st.binary(max_size=100), texts | st.dictionaries(short, values, max_size=4)),
    queue=short,
    channel=st.integers(1, 65535),
    most=st.integers(1, 120),
)
def test_a_message_has_the_bytes_that_pika_would_give_it(message: Message, queue: str, channel: int, most: int) -> None:
    assert publication(channel, message, queue, most) == frames_of_pika(channel, message, queue, most)


@given(channel=st.integers(1, 65535), tag=st.integers(1, 2**63), multiple=st.booleans())
def test_an_acknowledgement_has_the_bytes_that_pika_would_give_it(channel: int, tag: int, multiple: bool) -> None:
    assert acknowledgement(channel, tag, multiple=multiple) == Method(channel, Basic.Ack(tag, multiple)).marshal()


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("x" * 256, {}),
        ("\ud800", {}),
        ("x", {"n" * 256: "too long a name"}),
        ("x", {"text": "\ud800"}),
        ("x", {"no form": object()}),
    ],
)
def test_what_has_no_form_is_an_error(name: str, headers: dict[str, Any]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - Python's or one of pika's
        publication(1, Message(name, b"", headers), "tasks")
