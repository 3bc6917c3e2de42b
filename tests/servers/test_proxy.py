"""The proxy's faults, seen from both sides of a connection."""

import contextlib
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.servers.ports import LOOPBACK, accepts_connections
from tests.servers.proxy import WINDOW, Direction, Proxy
from tests.waiting import eventually

#: How long a test looks at a line before it says that nothing comes.
SILENCE_SECONDS = 0.05

#: What the kernel's buffers of the four sockets hold at most, roughly.
KERNEL_BYTES = 16 << 20

NOISE = random.Random(1).randbytes(WINDOW + KERNEL_BYTES)


class Line:
    """A proxy, the test as its target, and the sockets of both sides."""

    def __init__(self, proxy: Proxy, target: socket.socket, sockets: contextlib.ExitStack) -> None:
        self.proxy = proxy
        self.target = target
        self._sockets = sockets

    def dial(self) -> socket.socket:
        client = self._sockets.enter_context(socket.create_connection((LOOPBACK, self.proxy.port), 5))
        client.settimeout(5)
        return client

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """The client's and the server's end of a new connection."""
        made = self.proxy.connections_made
        client = self.dial()
        server = self._sockets.enter_context(self.target.accept()[0])
        server.settimeout(5)
        eventually(lambda: self.proxy.connections_made > made, 5)
        return client, server


@pytest.fixture
def line() -> Iterator[Line]:
    with contextlib.ExitStack() as sockets, socket.create_server((LOOPBACK, 0)) as target:
        target.settimeout(5)
        with Proxy(target.getsockname()[1]) as proxy:
            yield Line(proxy, target, sockets)


def receive(sock: socket.socket, count: int) -> bytes:
    """So many bytes; fewer only if the stream ends with FIN."""
    data = bytearray()
    while len(data) < count and (some := sock.recv(min(count - len(data), 1 << 16))):
        data += some
    return bytes(data)


def is_silent(*sockets: socket.socket, seconds: float = SILENCE_SECONDS) -> bool:
    """Whether neither bytes, nor FIN, nor RST come for a while."""
    return not select.select(sockets, [], [], seconds)[0]


def is_reset(sock: socket.socket) -> bool:
    """Whether RST is the next thing to come."""
    try:
        sock.recv(1)
    except ConnectionResetError:
        return True
    return False


def receive_until_reset(sock: socket.socket) -> bytes:
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while True:
            data += sock.recv(1 << 16) or pytest.fail("FIN instead of RST")
    return bytes(data)


def send_until_stuck(sock: socket.socket) -> bytes:
    """All that can be sent before nobody takes any more."""
    sent = 0
    sock.setblocking(False)
    while select.select([], [sock], [], SILENCE_SECONDS)[1]:
        sent += sock.send(memoryview(NOISE)[sent:])
        assert sent < len(NOISE), "somebody buffers without bound"
    sock.settimeout(5)
    return NOISE[:sent]


def in_thread(work: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments)
    thread.start()
    return thread


# -- no fault ---------------------------------------------------------------------------------------------------------


def test_carries_both_ways_and_counts(line: Line) -> None:
    client, server = line.connect()
    client.sendall(b"request")
    assert receive(server, 7) == b"request"
    server.sendall(b"an answer")
    assert receive(client, 9) == b"an answer"
    proxy = line.proxy
    assert (proxy.connections_made, proxy.connections_open, proxy.bytes_up, proxy.bytes_down) == (1, 1, 7, 9)


def test_carries_megabytes_unchanged(line: Line) -> None:
    client, server = line.connect()
    sender = in_thread(client.sendall, NOISE)
    assert receive(server, len(NOISE)) == NOISE
    sender.join()


@pytest.mark.parametrize("client_first", [True, False])
def test_passes_a_half_close_on(line: Line, client_first: bool) -> None:
    first, second = line.connect() if client_first else reversed(line.connect())
    first.sendall(b"last words")
    first.shutdown(socket.SHUT_WR)
    assert receive(second, 100) == b"last words"
    second.sendall(b"long answer")
    assert receive(first, 11) == b"long answer"
    assert line.proxy.connections_open == 1
    second.close()
    assert first.recv(1) == b""
    eventually(lambda: line.proxy.connections_open == 0)
    assert line.proxy.resets == 0


def test_passes_a_reset_on(line: Line) -> None:
    client, server = line.connect()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    assert is_reset(client)


def test_a_target_that_refuses_resets_the_client(line: Line) -> None:
    line.target.close()
    with pytest.raises(ConnectionResetError):
        line.dial().recv(1)
    assert line.proxy.connections_made == line.proxy.connections_open == 0


def test_a_stopped_proxy_leaves_nothing_and_comes_back_on_its_port(line: Line) -> None:
    client, server = line.connect()
    proxy, port = line.proxy, line.proxy.port
    line.dial()  # perhaps on its way to the target still
    proxy.stall()
    proxy.stop()
    proxy.stop()
    assert is_reset(client)
    assert is_reset(server)
    assert not accepts_connections(port)
    assert proxy.connections_open == 0
    assert f"proxy-{port}" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(RuntimeError, match="not running"):
        proxy.stall()
    proxy.start()
    assert proxy.port == port
    assert accepts_connections(port)


# -- slow -------------------------------------------------------------------------------------------------------------


def test_delay_holds_back_without_slowing_the_stream(line: Line) -> None:
    client, server = line.connect()
    line.proxy.delay(0.3)
    start = time.monotonic()
    for number in range(4):  # in chunks of their own
        client.sendall(bytes([number]))
        assert is_silent(server, seconds=0.01)
    assert receive(server, 1) == b"\0"
    assert time.monotonic() - start >= 0.3
    assert receive(server, 3) == bytes([1, 2, 3])
    assert time.monotonic() - start < 3 * 0.3
    start = time.monotonic()
    server.sendall(b"back")
    assert receive(client, 4) == b"back"
    assert time.monotonic() - start >= 0.3


def test_jitter_keeps_the_order(line: Line) -> None:
    client, server = line.connect()
    line.proxy.delay(0.01, jitter=0.05)
    numbers = [struct.pack(">I", number) for number in range(2000)]

    def send() -> None:
        for number in numbers:
            client.sendall(number)

    sender = in_thread(send)
    assert receive(server, 8000) == b"".join(numbers)
    sender.join()


def test_throttle_slows_and_none_ends_it(line: Line) -> None:
    client, server = line.connect()
    line.proxy.throttle(100_000)
    start = time.monotonic()
    client.sendall(b"x" * 30_000)
    assert len(receive(server, 30_000)) == 30_000
    assert 0.2 < time.monotonic() - start < 2
    line.proxy.throttle(10)
    client.sendall(b"y" * 100_000)
    assert receive(server, 1) == b"y"
    line.proxy.throttle(None)
    assert len(receive(server, 99_999)) == 99_999


def test_heal_lets_at_once_what_a_long_delay_held(line: Line) -> None:
    client, server = line.connect()
    line.proxy.delay(3600)
    client.sendall(b"late")
    client.shutdown(socket.SHUT_WR)
    assert is_silent(server)
    line.proxy.heal()
    assert receive(server, 100) == b"late"


def test_a_stall_keeps_data_and_ends(line: Line) -> None:
    client, server = line.connect()
    line.proxy.stall()
    late_client = line.dial()
    late_client.sendall(b"new")
    client.sendall(b"up")
    client.shutdown(socket.SHUT_WR)
    server.sendall(b"down")
    assert is_silent(client, server)
    line.proxy.heal()
    assert receive(server, 100) == b"up"
    assert receive(client, 4) == b"down"
    with line.target.accept()[0] as late_server:
        assert receive(late_server, 3) == b"new"
    assert line.proxy.resets == 0


def test_a_side_that_dies_in_a_stall_is_missed_after_it(line: Line) -> None:
    client, server = line.connect()
    line.proxy.stall()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert is_silent(server)
    line.proxy.heal()
    assert is_reset(server)
    assert line.proxy.connections_open == 0


@pytest.mark.parametrize(
    "fault",
    [Proxy.stall, lambda proxy: proxy.throttle(1), lambda proxy: proxy.delay(9), Proxy.heal],
    ids=["stall", "throttle", "delay", "a peer that does not read"],
)
def test_buffers_no_more_than_a_window(line: Line, fault: Callable[[Proxy], None]) -> None:
    client, server = line.connect()
    fault(line.proxy)
    sent = send_until_stuck(client)
    assert len(sent) >= WINDOW
    line.proxy.heal()
    client.shutdown(socket.SHUT_WR)
    assert receive(server, len(sent) + 1) == sent


# -- broken -----------------------------------------------------------------------------------------------------------


def test_what_drop_took_is_missed_by_a_reset(line: Line) -> None:
    client, server = line.connect()
    idle_client, idle_server = line.connect()
    line.proxy.drop()
    client.sendall(b"lost")
    new_client, new_server = line.connect()
    new_client.shutdown(socket.SHUT_WR)  # a FIN can be lost, too
    assert is_silent(client, server, new_server)
    assert line.proxy.connections_open == 3
    line.proxy.heal()
    assert all(map(is_reset, (client, server, new_client, new_server)))
    idle_client.sendall(b"alive")
    assert receive(idle_server, 5) == b"alive"
    assert (line.proxy.resets, line.proxy.connections_open, line.proxy.bytes_up) == (2, 1, 5)


def test_a_side_that_dies_in_a_drop_is_missed_after_it(line: Line) -> None:
    client, server = line.connect()
    line.proxy.drop()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert is_silent(server)
    server.sendall(b"are you there?")
    assert is_silent(server)
    line.proxy.heal()
    assert is_reset(server)


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_half_open_passes_one_way(line: Line, direction: Direction) -> None:
    client, server = line.connect()
    sender, receiver = (client, server) if direction == "to_server" else (server, client)
    line.proxy.half_open(direction)
    receiver.sendall(b"lost")
    assert is_silent(sender)
    sender.sendall(b"passes")
    assert receive(receiver, 6) == b"passes"
    line.proxy.heal()
    assert is_reset(sender)
    assert is_reset(receiver)


def test_a_hole_is_never_passed_by_another_fault_either(line: Line) -> None:
    client, server = line.connect()
    line.proxy.drop()
    client.sendall(b"lost")
    assert is_silent(server)
    line.proxy.half_open("to_client")
    client.sendall(b"lost as well")
    server.sendall(b"passes")
    assert receive(client, 6) == b"passes"
    line.proxy.half_open("to_server")
    assert is_reset(client)
    assert is_reset(server)


def test_half_open_knows_its_directions(line: Line) -> None:
    with pytest.raises(ValueError, match="sideways"):
        line.proxy.half_open("sideways")  # type: ignore[arg-type]


def test_refuse_leaves_open_connections_alone(line: Line) -> None:
    client, server = line.connect()
    line.proxy.refuse()
    line.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        line.dial()
    client.sendall(b"still here")
    assert receive(server, 10) == b"still here"
    line.proxy.heal()
    line.connect()
    assert line.proxy.connections_open == 2


def test_reset_all_resets_both_sides_now_and_serves_the_next(line: Line) -> None:
    ends = [end for _ in range(3) for end in line.connect()]
    line.proxy.reset_all()
    assert line.proxy.connections_open == 0
    assert line.proxy.resets == 3
    assert all(map(is_reset, ends))
    client, server = line.connect()
    client.sendall(b"next")
    assert receive(server, 4) == b"next"


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
@pytest.mark.parametrize("after_bytes", [0, 1, 7, 99])
def test_cuts_at_the_byte(line: Line, direction: Direction, after_bytes: int) -> None:
    client, server = line.connect()
    sender, receiver = (client, server) if direction == "to_server" else (server, client)
    line.proxy.cut_mid_frame(after_bytes, direction)
    receiver.sendall(b"the other way" * 10)
    assert receive(sender, 130) == b"the other way" * 10
    whole = bytes(range(after_bytes))  # not more than so many bytes: passes
    sender.sendall(whole)
    assert receive(receiver, after_bytes) == whole
    sender.sendall(bytes(range(100)))
    assert receive(receiver, after_bytes) == bytes(range(after_bytes))
    assert is_reset(receiver)
    assert is_reset(sender)
    client, server = line.connect()  # only one is cut
    client.sendall(b"x" * 100)
    assert receive(server, 100) == b"x" * 100


def test_a_cut_waits_for_what_went_before(line: Line) -> None:
    client, server = line.connect()
    sent = send_until_stuck(client)
    line.proxy.cut_mid_frame(5)  # the next chunk, behind megabytes that the server has not read
    got = receive_until_reset(server)
    assert sent.startswith(got)
    assert len(got) == line.proxy.bytes_up < len(sent)


# -- all at once ------------------------------------------------------------------------------------------------------


class Chatter:
    """A client and an echo in a thread each, one word at a time, until told to stop; connects again after a reset."""

    def __init__(self, line: Line, stop: threading.Event) -> None:
        self.words = self.resets = 0
        self.wrong: list[bytes] = []
        self._port = line.proxy.port
        self._stop = stop
        self._thread = in_thread(self._talk)

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _talk(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(ConnectionError), socket.create_connection((LOOPBACK, self._port), 5) as client:
                client.settimeout(5)
                while not self._stop.is_set():
                    self._say(client, os.urandom(random.randint(1, 500)))
            self.resets += not self._stop.is_set()

    def _say(self, client: socket.socket, word: bytes) -> None:
        client.sendall(word)
        answer = receive(client, len(word))
        if answer != word:
            self.wrong.append(answer)
        self.words += 1


def echo(target: socket.socket) -> None:
    """Answers every connection with its own bytes until the listener is shut down."""

    def answer(server: socket.socket) -> None:
        with server, contextlib.suppress(ConnectionError):
            while data := server.recv(1 << 16):
                server.sendall(data)

    threads = []
    with contextlib.suppress(OSError):
        while True:
            threads.append(in_thread(answer, target.accept()[0]))
    for thread in threads:
        thread.join()


def test_faults_switched_from_many_threads_while_twenty_connections_talk(line: Line) -> None:
    proxy, stop = line.proxy, threading.Event()
    line.target.settimeout(None)  # nobody may call for a while
    echoing = in_thread(echo, line.target)
    chatters = [Chatter(line, stop) for _ in range(20)]
    faults: list[Callable[[], None]] = [
        lambda: proxy.delay(0.002, jitter=0.005),
        lambda: proxy.throttle(50_000),
        proxy.stall,
        proxy.drop,
        lambda: proxy.half_open("to_server"),
        proxy.refuse,
        proxy.reset_all,
        lambda: proxy.cut_mid_frame(10),
    ]

    def switch(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(25):
            dice.choice(faults)()
            stop.wait(0.005)
            proxy.heal()
            stop.wait(0.005)

    try:
        switches = [in_thread(switch, seed) for seed in range(4)]
        for thread in switches:
            thread.join()
        proxy.heal()
        before = [chatter.words for chatter in chatters]
        eventually(lambda: all(now.words > then for now, then in zip(chatters, before, strict=True)), 5)
        assert proxy.connections_open <= 20
        assert sum(chatter.resets for chatter in chatters) > 0
    finally:
        stop.set()
        for chatter in chatters:
            chatter.join()
        line.target.shutdown(socket.SHUT_RDWR)
        echoing.join()
    assert not any(chatter.wrong for chatter in chatters)
    eventually(lambda: proxy.connections_open == 0)
