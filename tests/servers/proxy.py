"""A TCP proxy between our processes and a server they use, for tests that make the network misbehave."""

import asyncio
import contextlib
import enum
import fcntl
import random
import socket
import struct
import termios
import threading
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from tests.servers.ports import LOOPBACK, free_port

T = TypeVar("T")
Direction = Literal["to_server", "to_client"]
BOTH_WAYS: frozenset[Direction] = frozenset({"to_server", "to_client"})

#: Bytes of one direction of one connection that wait in the proxy before it stops reading: a link's window. A delayed
#: connection carries at most so much per delay.
WINDOW = 1 << 20

#: A throttled link passes bytes on in bits this long, in seconds.
THROTTLE_TICK = 0.02

#: Seconds between two looks at whether a peer has got the half of a frame that it is to see.
FLUSH_POLL_SECONDS = 0.002

#: Seconds for the proxy's thread to do what it is told. It takes milliseconds; more is a bug.
CONTROL_SECONDS = 10.0

#: SO_LINGER's value that makes `close` send RST.
LINGER_NOT = struct.pack("ii", 1, 0)


class Farewell(enum.Enum):
    """How a side ends its stream; it waits its turn behind the bytes."""

    FIN = enum.auto()
    RST = enum.auto()


@dataclass(frozen=True)
class Weather:
    """All faults of a moment."""

    delay: float = 0.0
    jitter: float = 0.0
    bytes_per_second: float | None = None
    stalled: bool = False
    vanishing: frozenset[Direction] = frozenset()
    refusing: bool = False
    cuts: Mapping[Direction, int] = field(default_factory=dict)


class Proxy:
    """Carries TCP connections from its `port` to the target, and does to them what it is told.

    Every method may be called from any thread, applies to open and new connections alike and holds when it returns.
    Faults add up until `heal`. The port is known before `start` and stays the same over `refuse`, and over `stop` and
    `start`.

    TCP never delivers a stream with a hole. So a connection that lost bytes (or its FIN, or its RST) to `drop` or
    `half_open` never continues in that direction: it is reset when the fault ends, as connections die in a real
    partition. Those that were idle meanwhile live on.
    """

    def __init__(self, target_port: int, target_host: str = LOOPBACK) -> None:
        self.port = free_port()
        self.target = (target_host, target_port)
        self.weather = Weather()
        self.connections_made = 0  # those that reached the target
        self.resets = 0  # connections that the proxy ended with RST, for a fault, for the other side or at its stop
        self.passed: dict[Direction, int] = {"to_server": 0, "to_client": 0}
        self.links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when it listens. The weather is clear."""
        if self._loop is not None:
            raise RuntimeError(f"the proxy is running already, on port {self.port}")
        self.weather = Weather()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        try:
            self._tell(self._listen())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Resets what is open and returns when nothing is left. Nothing happens if it is not running."""
        if self._loop is None or self._thread is None:
            return
        self._tell(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    # -- faults -------------------------------------------------------------------------------------------------------

    def delay(self, seconds: float, jitter: float = 0.0) -> None:
        """Holds every byte back, each way, by `seconds` and up to `jitter` more; the order stays. 0 ends it."""
        self._change(delay=seconds, jitter=jitter)

    def throttle(self, bytes_per_second: float | None) -> None:
        """A slow link: the rate is that of each connection, each way. None ends it."""
        self._change(bytes_per_second=bytes_per_second)

    def stall(self) -> None:
        """A partition that TCP survives: nothing passes for now, all of it does after `heal`."""
        self._change(stalled=True)

    def drop(self) -> None:
        """A black hole: connections stay open, can even be made, and what they carry vanishes."""
        self._change(vanishing=BOTH_WAYS)

    def half_open(self, direction: Direction) -> None:
        """Only what goes in `direction` passes; what goes the other way vanishes."""
        if direction not in BOTH_WAYS:
            raise ValueError(f"no direction: {direction!r}")
        self._change(vanishing=BOTH_WAYS - {direction})

    def refuse(self) -> None:
        """Nobody listens any more: new connections are refused. Open ones are left alone."""
        self._change(refusing=True)

    def cut_mid_frame(self, after_bytes: int, direction: Direction | None = None) -> None:
        """Breaks one connection off within a frame: the next one to pass more than so many bytes at once.

        Its peer gets exactly `after_bytes` of those, then both sides get RST. Either way, or only in `direction`.
        """
        self._change(cuts=dict.fromkeys(BOTH_WAYS if direction is None else [direction], after_bytes))

    def reset_all(self) -> None:
        """RST to both sides of every open connection. New ones are served."""
        self._tell(self._reset_all())

    def heal(self) -> None:
        """Ends all faults. What `stall` and `delay` hold passes at once; connections with a hole are reset."""
        self._change(**vars(Weather()))

    # -- what a test may ask ------------------------------------------------------------------------------------------

    @property
    def connections_open(self) -> int:
        """Those that neither both sides have closed nor anybody has reset, as far as the proxy can see."""
        return len(self.links)

    @property
    def bytes_up(self) -> int:
        """Passed on to the server."""
        return self.passed["to_server"]

    @property
    def bytes_down(self) -> int:
        """Passed on to the client."""
        return self.passed["to_client"]

    # -- in the proxy's thread ----------------------------------------------------------------------------------------

    def _tell(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("the proxy is not running")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CONTROL_SECONDS)

    def _change(self, **faults: Any) -> None:
        self._tell(self._apply(faults))

    async def _apply(self, faults: Mapping[str, Any]) -> None:
        self.weather = replace(self.weather, **faults)
        for link in list(self.links):
            link.feel_weather()
        if self.weather.refusing:
            self._listen_no_more()
        else:
            await self._listen()

    async def _reset_all(self) -> None:
        for link in list(self.links):
            link.reset()

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((LOOPBACK, self.port), backlog=128)
            self._listener.setblocking(False)
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _listen_no_more(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            task = asyncio.get_running_loop().create_task(self._carry(listener.accept()[0]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, client: socket.socket) -> None:
        """One connection, from its accept to its end. A target that refuses it resets it."""
        loop, link = asyncio.get_running_loop(), Link(self)
        try:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(lambda: link.client, client)
                await loop.create_connection(lambda: link.server, *self.target)
                await link.ended.wait()
        finally:
            link.reset()

    async def _close(self) -> None:
        self._listen_no_more()
        await asyncio.sleep(0)  # a task that has not begun would not close its socket
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Link:
    """One connection: its two ends, and what concerns both."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = End(self, "to_server")
        self.server = End(self, "to_client")
        self.client.other, self.server.other = self.server, self.client
        self.ends = (self.client, self.server)
        self.ended = asyncio.Event()

    def begin(self) -> None:
        """The target has taken it."""
        self.proxy.connections_made += 1
        self.proxy.links.add(self)
        self.feel_weather()

    def feel_weather(self) -> None:
        """Lets pass what may pass now. A stream that has a hole and would go on is reset."""
        if any(end.torn and end.direction not in self.proxy.weather.vanishing for end in self.ends):
            self.reset()
        for end in self.ends:
            end.pump()

    def finish(self) -> None:
        """Both sides have said FIN and were told the other's."""
        for end in self.ends:
            end.close()

    def reset(self) -> None:
        """RST to both sides, unless it is over."""
        if not self.ended.is_set():
            self.proxy.resets += 1
            self.end()
            for end in self.ends:
                end.reset()

    def reset_after_flush(self, end: "End") -> None:
        """RST to both sides, once all that was written to `end` is with its peer: RST overtakes what is not."""
        if end.has_unsent() and not self.ended.is_set():
            asyncio.get_running_loop().call_later(FLUSH_POLL_SECONDS, self.reset_after_flush, end)
        else:
            self.reset()

    def end(self) -> None:
        self.proxy.links.discard(self)
        self.ended.set()


class End(asyncio.Protocol):
    """One of a connection's two sockets, and what was read from it and is yet to be written to the other one."""

    other: "End"

    def __init__(self, link: Link, direction: Direction) -> None:
        self.link = link
        self.direction = direction
        self.torn = False  # something that was read here has not been passed on, and never will be
        self._transport: asyncio.Transport | None = None
        self._writable = False
        self._waiting: deque[tuple[float, bytes | memoryview | Farewell]] = deque()  # each with its time to go
        self._waiting_bytes = 0
        self._free_at = 0.0  # when a throttled link takes the next bit
        self._timer: asyncio.TimerHandle | None = None
        self._finished = False
        self._lost = False

    # -- called by asyncio --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._writable = True
        if self is self.link.server:
            self.link.begin()

    def data_received(self, data: bytes) -> None:
        self._waiting_bytes += len(data)
        self._take(data)
        if self._waiting_bytes >= WINDOW and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._take(Farewell.FIN)
        return True  # stay open for what comes back

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        if error is not None:
            self._take(Farewell.RST)
        if self.other._lost:
            self.link.end()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.other.pump()

    # -- from here to the other ---------------------------------------------------------------------------------------

    def _take(self, item: bytes | Farewell) -> None:
        weather = self.link.proxy.weather
        due = 0.0
        if weather.delay or weather.jitter:
            due = asyncio.get_running_loop().time() + weather.delay + random.uniform(0, weather.jitter)
        self._waiting.append((due, item))
        self.pump()

    def pump(self) -> None:
        """Passes on what may pass now, and comes back for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self.other._writable and not self.link.proxy.weather.stalled:
            when = self._next_time()
            if when > asyncio.get_running_loop().time():
                self._timer = asyncio.get_running_loop().call_at(when, self.pump)
                break
            self._pass_on(self._next())
        if self._transport is not None and self._waiting_bytes < WINDOW:
            self._transport.resume_reading()

    def _next_time(self) -> float:
        """When the first that waits may pass. What an ended fault has held may at once."""
        weather = self.link.proxy.weather
        due = self._waiting[0][0] if weather.delay or weather.jitter else 0.0
        return max(due, self._free_at) if weather.bytes_per_second else due

    def _next(self) -> bytes | memoryview | Farewell:
        """Takes the first that waits; of a chunk that a throttled link takes longer for, the first bit."""
        due, item = self._waiting.popleft()
        if isinstance(item, Farewell):
            return item
        rate = self.link.proxy.weather.bytes_per_second
        if rate:
            size = max(1, int(rate * THROTTLE_TICK))
            if len(item) > size:
                self._waiting.appendleft((due, memoryview(item)[size:]))
                item = memoryview(item)[:size]
            now = asyncio.get_running_loop().time()
            self._free_at = max(self._free_at, now - THROTTLE_TICK) + len(item) / rate
        self._waiting_bytes -= len(item)
        return item

    def _pass_on(self, item: bytes | memoryview | Farewell) -> None:
        if self.torn or self.direction in self.link.proxy.weather.vanishing:
            self.torn = True
        elif item is Farewell.RST:
            self.link.reset()
        elif item is Farewell.FIN:
            self.other.write_eof()
            self._finished = True
            if self.other._finished:
                self.link.finish()
        else:
            self._write(item)

    def _write(self, data: bytes | memoryview) -> None:
        proxy = self.link.proxy
        cut = proxy.weather.cuts.get(self.direction)
        if cut is not None and len(data) > cut:
            proxy.weather = replace(proxy.weather, cuts={})
            data = data[:cut]
            self.torn = True
        proxy.passed[self.direction] += len(data)
        self.other.write(data)
        if self.torn:
            self.link.reset_after_flush(self.other)

    # -- to this one's peer -------------------------------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> None:
        if self._transport is not None and not self._lost:
            self._transport.write(data)

    def write_eof(self) -> None:
        with contextlib.suppress(OSError):  # the peer has reset it, which is not yet read here
            if self._transport is not None:
                self._transport.write_eof()

    def has_unsent(self) -> bool:
        """Whether its peer's machine has yet to confirm bytes."""
        if self._transport is None or self._transport.is_closing():
            return False
        descriptor = self._transport.get_extra_info("socket").fileno()
        return self._transport.get_write_buffer_size() > 0 or any(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        self._waiting.clear()
        if self._transport is not None:
            with contextlib.suppress(OSError):  # it is closed already
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            self._transport.abort()
