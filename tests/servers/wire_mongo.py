"""A small server that speaks MongoDB's wire protocol, so that tests use pymongo's real network path.

`python -m tests.servers.wire_mongo --port N --journal FILE` runs it; WireMongo does that for a test. What it has
answered is in the journal: it survives SIGKILL. It is alone (no replica set): no sessions, transactions, change streams
or retryable writes. The protocol: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
"""

import argparse
import contextlib
import gc
import itertools
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import bson

from tests.servers.mongo_commands import Commands, internal_error
from tests.servers.mongo_language import Document
from tests.servers.mongo_store import Journal, Store
from tests.servers.ports import LOOPBACK, accepts_connections, free_port
from tests.servers.process import ServerProcess

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM_PRESENT, MORE_TO_COME = 1, 2
HEADER = struct.Struct("<iiii")

#: As many bytes are read from a connection at once.
RECEIVE_BYTES = 1 << 16

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


class Connection:
    """One client's connection: what has come of its next message, and what it has not taken yet of its answers."""

    def __init__(self, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = client
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._received = bytearray()
        self.unsent = bytearray()
        #: What is waited for: that it sends something, or takes something.
        self.awaited = select.EPOLLIN

    def read(self) -> Iterator[tuple[int, int, bytes]]:
        """Id, operation code and body of each message that is there. Raises EOFError where the client has hung up."""
        count = self.client.recv_into(self._buffer)
        if not count:
            raise EOFError
        received = self._received
        received += self._buffer[:count]
        while len(received) >= HEADER.size:
            length, request_id, _, code = HEADER.unpack_from(received)
            if len(received) < length:
                break
            body = bytes(received[HEADER.size : length])
            del received[:length]
            yield request_id, code, body

    def send(self) -> None:
        """Sends as much as the client takes now."""
        with contextlib.suppress(BlockingIOError):
            del self.unsent[: self.client.send(self.unsent)]


class Server:
    """Listens on loopback and answers the commands of all connections in one thread, one after the other.

    In each turn it does what has come, writes the journal once, and only then sends the answers.
    """

    def __init__(self, port: int, commands: Commands) -> None:
        self.commands = commands
        self._reply_ids = itertools.count(1)
        self._listener = socket.create_server((LOOPBACK, port), backlog=128)
        self._connections: dict[int, Connection] = {}
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._is_stopping, self._stopped = False, threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in list(self._connections.values()):
            self._close(connection)
        self._listener.close()
        self._poll.close()

    def serve_forever(self, seconds: float = TTL_SECONDS) -> None:
        """Serves until `shutdown`, for which it looks so often, as for documents whose time is over."""
        sweep_at = time.monotonic() + seconds
        while not self._is_stopping:
            self._turn(seconds)
            if time.monotonic() > sweep_at:
                self.commands.delete_expired()
                sweep_at = time.monotonic() + seconds
        self._stopped.set()

    def shutdown(self) -> None:
        """Ends a `serve_forever` in another thread."""
        self._is_stopping = True
        self._stopped.wait()

    def _turn(self, seconds: float) -> None:
        ready: list[Connection] = []
        for file, events in self._poll.poll(seconds, len(self._connections) + 1):
            if file == self._listener.fileno():
                self._accept()
            elif events == select.EPOLLOUT or self._answer(self._connections[file]):
                ready.append(self._connections[file])
        self.commands.commit()
        for connection in ready:
            self._send(connection)

    def _accept(self) -> None:
        with contextlib.suppress(ConnectionError):  # it has hung up already
            connection = Connection(self._listener.accept()[0])
            self._connections[connection.client.fileno()] = connection
            self._poll.register(connection.client, connection.awaited)

    def _answer(self, connection: Connection) -> bool:
        """Does what has come; False if there is nothing to send."""
        try:
            for request_id, code, body in connection.read():
                if (answer := ANSWERS[code](self._run, body)) is not None:
                    connection.unsent += frame(next(self._reply_ids), request_id, *answer)
        except (ConnectionError, EOFError):
            self._close(connection)
            return False
        except Exception:  # of a message that cannot be read
            traceback.print_exc()
            self._close(connection)
            return False
        return bool(connection.unsent)

    def _send(self, connection: Connection) -> None:
        """Nothing more is read from a client until it has taken its answers; the others do not wait for it."""
        try:
            connection.send()
        except OSError:
            self._close(connection)
            return
        awaited = select.EPOLLOUT if connection.unsent else select.EPOLLIN
        if awaited != connection.awaited:
            connection.awaited = awaited
            self._poll.modify(connection.client, awaited)

    def _close(self, connection: Connection) -> None:
        del self._connections[connection.client.fileno()]
        connection.client.close()  # which ends the polling, too

    def _run(self, command: Document) -> Document:
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


def frame(reply_id: int, request_id: int, code: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), reply_id & 0x7FFFFFFF, request_id, code) + body


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
    with Server(options.port, commands) as server:
        print(f"wire_mongo: ready on {LOOPBACK}:{options.port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
