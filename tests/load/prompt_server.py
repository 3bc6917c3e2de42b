"""Accepts tasks and says at once that they are done: a server that costs next to nothing, to find out what the client
costs. `python prompt_server.py PORT SECONDS`; each answer takes SECONDS."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from datetime import UTC, datetime

KINDS = {"kinds": [{"kind": "message", "inputs": {"properties": {"text": {}}, "examples": [{"text": "Hello."}]}}]}


def respond(path: str, body: bytes) -> tuple[str, object]:
    if path != "/tasks/add":
        return "200 OK", KINDS
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    times = dict.fromkeys(("created_at", "started_at", "completed_at"), now)
    return "202 ACCEPTED", {"_id": uuid.uuid4().hex, **times, "status": "completed", "attempts": 1, "error": None}


class Connection(asyncio.Protocol):
    """Its client sends one request after the other."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if not end or len(body) < sum(map(int, lengths)):
            return
        self._received = b""
        status, content = respond(head.split(b" ")[1].decode(), body)
        text = json.dumps(content).encode()
        answer = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        asyncio.get_running_loop().call_later(self._seconds, self._transport.write, answer.encode() + text)


async def main(port: int, seconds: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(seconds), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
