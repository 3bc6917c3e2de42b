"""Messages, and acknowledgements, as the bytes that go to RabbitMQ, made in one go.

pika makes the same bytes from an object for every method, header and body, and writes each of the three to the socket
by itself; a test holds these against pika's own. The format: AMQP 0-9-1, sections 2.3.5 (frames), 4.2.5 (tables) and
4.2.6 (contents), https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from pika.data import encode_table
from pika.frame import Method
from pika.spec import (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_METHOD,
    PERSISTENT_DELIVERY_MODE,
    Basic,
    BasicProperties,
)

from sluice.broker import Message

#: Bytes of a body that fit into one frame of any broker (AMQP: `frame-max` is 4,096 at least).
LEAST_BODY_FRAME = 4096 - 8

_HEAD = struct.Struct(">BHI")
_LENGTH = struct.Struct(">I")
_ACKNOWLEDGEMENT = struct.Struct(">BHIIQBB")
_CONTENT = struct.Struct(">BHIHHQH")
_CONTENT_TYPE = b"application/json"
_FLAGS = (
    BasicProperties.FLAG_CONTENT_TYPE
    | BasicProperties.FLAG_HEADERS
    | BasicProperties.FLAG_DELIVERY_MODE
    | BasicProperties.FLAG_MESSAGE_ID
)
_CONTENT_TYPE_FIELD = bytes([len(_CONTENT_TYPE)]) + _CONTENT_TYPE
_DELIVERY_MODE_FIELD = bytes([PERSISTENT_DELIVERY_MODE])
_END = bytes([FRAME_END])


def publication(channel: int, message: Message, queue: str, most: int = LEAST_BODY_FRAME) -> bytes:
    """The frames of a mandatory, persistent message for a queue: method, header, and bodies of `most` bytes at most.
    Raises ValueError or pika's errors for an id or headers that have no form."""
    identity, body = message.id.encode(), message.body
    fields = b"".join(
        (_CONTENT_TYPE_FIELD, _table(message.headers), _DELIVERY_MODE_FIELD, bytes((len(identity),)), identity)
    )
    # After the frame's head: class, weight, size of the body, and which properties follow.
    header = _CONTENT.pack(FRAME_HEADER, channel, 14 + len(fields), BasicProperties.INDEX, 0, len(body), _FLAGS)
    parts = [_method(channel, queue), header, fields, _END]
    for start in range(0, len(body), most):
        part = body if len(body) <= most else body[start : start + most]
        parts += (_HEAD.pack(FRAME_BODY, channel, len(part)), part, _END)
    return b"".join(parts)


def acknowledgement(channel: int, tag: int, *, multiple: bool) -> bytes:
    """The frame that says that a delivery (with `multiple`: and all before it) has done its work."""
    return _ACKNOWLEDGEMENT.pack(FRAME_METHOD, channel, 13, Basic.Ack.INDEX, tag, multiple, FRAME_END)


def _table(headers: dict[str, Any]) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for name, value in headers.items():
        if type(value) is not str:
            pieces.clear()
            encode_table(pieces, headers)
            return b"".join(pieces)
        text, key = value.encode(), _name_of_text(name)
        size += len(key) + 4 + len(text)
        pieces += (key, _LENGTH.pack(len(text)), text)
    return _LENGTH.pack(size) + b"".join(pieces)


@lru_cache(maxsize=64)
def _name_of_text(name: str) -> bytes:
    encoded = name.encode()
    return bytes((len(encoded),)) + encoded + b"S"


@lru_cache(maxsize=64)
def _method(channel: int, queue: str) -> bytes:
    """All that a message's queue says about it."""
    method = Basic.Publish(exchange="", routing_key=queue, mandatory=True)
    encoded: bytes = Method(channel, method).marshal()
    return encoded
