"""Free TCP ports of 127.0.0.1."""

import fcntl
import os
import random
import socket
import tempfile
import threading
from pathlib import Path

LOOPBACK = "127.0.0.1"

#: Below Linux's range for outgoing connections (32768 and up), so that nobody takes a server's port as the near end of
#: a connection while the server is down between two starts.
PORTS = range(15000, 30000)

_given: set[int] = set()
_lock = threading.Lock()


def free_port() -> int:
    """A port nobody listens on now. It is not given again while this process lives, to whatever process of these tests:
    a server that is down for a while gets its port back."""
    with _lock:
        for _ in range(1000):
            port = random.choice(PORTS)
            if port not in _given and _reserve(port) and _can_listen(port):
                _given.add(port)
                return port
    raise RuntimeError(f"no free port between {PORTS.start} and {PORTS.stop - 1}")


def accepts_connections(port: int, timeout_seconds: float = 1.0) -> bool:
    """Whether something listens on `port` and takes a connection within the timeout."""
    try:
        socket.create_connection((LOOPBACK, port), timeout_seconds).close()
    except OSError:
        return False
    return True


def _reserve(port: int) -> bool:
    """Whether nobody else has this port; held by a lock that ends with this process."""
    folder = Path(tempfile.gettempdir()) / f"sluice-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    file = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return False
    return True


def _can_listen(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
