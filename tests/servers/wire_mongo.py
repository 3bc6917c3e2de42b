"""A small server that speaks MongoDB's wire protocol, so that tests use pymongo's real network path.

`python -m tests.servers.wire_mongo --port N --journal FILE` runs it; WireMongo does that for a test. What it has
answered is in the journal: it survives SIGKILL. It is alone (no replica set): no sessions, transactions, change streams
or retryable writes. The protocol: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
"""

import argparse
import contextlib
import gc
import itertools
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import bson

from tests.servers.mongo_commands import Commands, internal_error
from tests.servers.mongo_language import Document
from tests.servers.mongo_store import Journal, Store
from tests.servers.ports import LOOPBACK, accepts_connections, free_port
from tests.servers.process import ServerProcess

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM_PRESENT, MORE_TO_COME = 1, 2
HEADER = struct.Struct("<iiii")

#: Seconds between two rounds of the TTL monitor; a real server's is 60.
TTL_SECONDS = 1.0

#: The folder that `tests` is in.
ROOT = Path(__file__).resolve().parents[2]


class WireMongo(ServerProcess):
    """The server as a child process; its port and its data stay over `restart`, and over `kill` and `start`."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.journal = Path(directory).resolve() / "journal.bson"
        super().__init__(
            "wire-mongo",
            [
                *(sys.executable, "-m", "tests.servers.wire_mongo"),
                *("--port", str(self.port), "--journal", str(self.journal)),
            ],
            directory,
            ready=lambda: accepts_connections(self.port),
            working_directory=ROOT,
        )

    @property
    def uri(self) -> str:
        return f"mongodb://{LOOPBACK}:{self.port}/?directConnection=true"


class Connection(socketserver.BaseRequestHandler):
    """One client's connection, in a thread of its own."""

    server: "Server"

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.request.makefile("rb", 1 << 16) as stream, contextlib.suppress(ConnectionError, EOFError):
            while True:
                request_id, code, body = read_message(stream)
                answer = ANSWERS[code](self.server.run, body)
                if answer is not None:
                    self.request.sendall(frame(next(self.server.reply_ids), request_id, *answer))


class Server(socketserver.ThreadingTCPServer):
    """Listens on loopback and hands the commands of all connections to one Commands."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, commands: Commands) -> None:
        self.commands = commands
        self.reply_ids = itertools.count(1)
        super().__init__((LOOPBACK, port), Connection)

    def run(self, command: Document) -> Document:
        try:
            return self.commands.run(command)
        except Exception as error:  # the client gets an answer, the log gets the trace
            traceback.print_exc()
            return internal_error(error)


Run = Callable[[Document], Document]


def answer_message(run: Run, body: bytes) -> tuple[int, bytes] | None:
    """OP_MSG; None where the client wants no answer, as for unacknowledged writes."""
    (flags,) = struct.unpack_from("<I", body)
    reply = run(parse_message(body, flags))
    if flags & MORE_TO_COME:
        return None
    return OP_MSG, struct.pack("<IB", 0, 0) + bson.encode(reply)


def answer_query(run: Run, body: bytes) -> tuple[int, bytes]:
    """OP_QUERY, in which drivers still send their first hello."""
    name_end = body.index(b"\0", 4)
    database = body[4:name_end].decode().partition(".")[0]
    (length,) = struct.unpack_from("<i", body, name_end + 9)
    command = bson.decode(body[name_end + 9 : name_end + 9 + length])
    return OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(run({**command, "$db": database}))


ANSWERS = {OP_MSG: answer_message, OP_QUERY: answer_query}


def parse_message(body: bytes, flags: int) -> Document:
    """The command in an OP_MSG, with the documents of its sections of kind 1 put where they belong."""
    end = len(body) - 4 if flags & CHECKSUM_PRESENT else len(body)
    command: Document = {}
    sequences: Document = {}
    position = 4
    while position < end:
        kind = body[position]
        (size,) = struct.unpack_from("<i", body, position + 1)
        section = body[position + 1 : position + 1 + size]
        if kind == 0:
            command = bson.decode(section)
        else:
            name_end = section.index(b"\0", 4)
            sequences[section[4:name_end].decode()] = bson.decode_all(section[name_end + 1 :])
        position += 1 + size
    return command | sequences


def read_message(stream: BinaryIO) -> tuple[int, int, bytes]:
    """The next message's id, operation code and body. Raises EOFError where the client has hung up."""
    length, request_id, _, code = HEADER.unpack(read_exactly(stream, HEADER.size))
    return request_id, code, read_exactly(stream, length - HEADER.size)


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def frame(reply_id: int, request_id: int, code: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), reply_id & 0x7FFFFFFF, request_id, code) + body


def sweep(commands: Commands) -> None:
    while True:
        time.sleep(TTL_SECONDS)
        commands.delete_expired()


def main() -> None:
    parser = argparse.ArgumentParser(description="A small MongoDB server for tests.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    gc.disable()
    commands = Commands(Store(Journal(options.journal)))
    gc.freeze()  # what a long journal has left is not gone through again and again
    gc.enable()
    threading.Thread(target=sweep, args=[commands], daemon=True).start()
    with Server(options.port, commands) as server:
        print(f"wire_mongo: ready on {LOOPBACK}:{options.port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
