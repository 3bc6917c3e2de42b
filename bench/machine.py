"""What the machine itself costs, whatever runs on it: to read the other figures by."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time

#: Answers each byte, after it has slept until it came.
ECHO = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while byte := connection.recv(1):
        connection.sendall(byte)
"""

#: Round trips, and the seconds between them: long enough for both sides to sleep.
TRIPS, PAUSE_SECONDS = 200, 0.003


def round_trip_ms() -> float:
    """Milliseconds for a byte to a sleeping process and back over loopback, the median: two wake-ups, and nothing else.
    Every way through a queue or a database is made of these."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with subprocess.Popen([sys.executable, "-c", ECHO, str(port)]) as echo:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(10)
                times = []
                for _ in range(TRIPS):
                    time.sleep(PAUSE_SECONDS)
                    started = time.perf_counter()
                    connection.sendall(b"x")
                    connection.recv(1)
                    times.append(time.perf_counter() - started)
            echo.wait(10)
    return statistics.median(times) * 1000


def bare_python_ms() -> float:
    """Milliseconds for Python to start and end, without a module of anybody's; the median of nine."""
    times = []
    for _ in range(9):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000
