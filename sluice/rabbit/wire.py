"""What pika has no public way for, in one place: pika is pinned, and a test of the contract says when one of these
stops to work.

pika writes a message as three pieces, each with a call of the system, when its loop comes round again, and reads until
there is nothing more, so that each read is followed by one in vain.
"""

from __future__ import annotations

from contextlib import suppress

import pika
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.channel import Channel
from pika.exceptions import ChannelWrongStateError

#: Bytes that are handed to the system in one call (about what a socket takes), and that are taken from it in one.
PIECE_BYTES, READ_BYTES = 128 * 1024, 16 * 1024


def most_of_a_body(connection: pika.SelectConnection) -> int:
    """Bytes of a body that go into one frame, as agreed with the broker."""
    return int(connection._body_max_length)


def read_once_a_turn(connection: pika.SelectConnection) -> None:
    """Read once when there is something to read: the loop says so again while there is more. Not with TLS, which may
    hold back what it has read."""
    transport = connection._transport
    if isinstance(transport, _AsyncPlaintextTransport):
        transport._MAX_RECV_BYTES, transport._MAX_CONSUME_BYTES = READ_BYTES, 1


def write(channel: Channel, frames: list[bytes]) -> None:
    """Write whole frames, in order, in as few pieces as can be. On the connection's thread only. Raises pika's errors
    for a channel or connection that is not open; what breaks later closes the connection."""
    connection = channel.connection
    if not channel.is_open or not connection.is_open:
        raise ChannelWrongStateError("the channel is not open")
    piece: list[bytes] = []
    size = 0
    for frame in frames:
        piece.append(frame)
        size += len(frame)
        if size >= PIECE_BYTES:
            _write_piece(connection, b"".join(piece))
            piece, size = [], 0
    if piece:
        _write_piece(connection, b"".join(piece))


def _write_piece(connection: pika.SelectConnection, piece: bytes) -> None:
    connection.bytes_sent += len(piece)
    transport = connection._transport
    if isinstance(transport, _AsyncPlaintextTransport) and not transport._tx_buffers:
        with suppress(OSError):  # full, or broken: the loop finds that out
            piece = piece[transport._sock.send(piece) :]
    if piece:
        connection._adapter_emit_data(piece)
