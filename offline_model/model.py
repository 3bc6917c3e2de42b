"""The offline model as an object: start it, script it, count its calls, stop it."""

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from offline_model.server import Server

#: How long `stop` waits for the threads that serve open connections, in seconds.
STOP_SECONDS = 2.0


class OfflineModel:
    """A server in this process, on its own threads.

    host, port: where to listen; port 0 takes a free one. After a `stop`, `start` takes the same port again, so a test
        can let the model go away and come back; counts and script begin anew.
    scriptable: whether /script and /calls are served over HTTP. `script` and `calls` work in any case.
    seconds_per_answer: how long an answer takes, spread over the stream.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, scriptable: bool = False, seconds_per_answer: float = 1.5
    ) -> None:
        self._host = host
        self._port = port
        self._scriptable = scriptable
        self._seconds_per_answer = seconds_per_answer
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen and serve. Raises OSError if the port is taken, RuntimeError if it runs already."""
        if self._server is not None:
            raise RuntimeError("the offline model runs already")
        self._server = Server((self._host, self._port), self._scriptable, self._seconds_per_answer)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve, name="offline-model", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Hang up on everyone and free the port. Does nothing if it does not run."""
        if self._server is None or self._thread is None:
            return
        server, self._server = self._server, None
        # First no new connections, then end the open ones: in the other order one could slip in between.
        server.stop()
        self._thread.join()
        server.server_close()
        server.end_connections(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """What OpenAI's clients call base_url, for example http://127.0.0.1:41234/v1."""
        self._running()
        return f"http://{self._host}:{self._port}/v1"

    def script(self, rules: Sequence[Mapping[str, object]]) -> None:
        """Replace the script (`script.py` says what a rule is). Raises `BadRule`, and then the old script stays."""
        self._running().script.replace(rules)

    def clear(self) -> None:
        """Forget the script and the counts, as DELETE /script does."""
        self._running().script.replace([])
        self._running().calls.clear()

    def calls(self) -> dict[str, int]:
        """Calls so far per `X-Client-Request-Id`; calls without that header are under ""."""
        return self._running().calls.by_id()

    def open_calls(self) -> int:
        """Calls being answered right now."""
        return self._running().calls.open()

    def closed_early(self) -> int:
        """Answers whose client hung up before their end."""
        return self._running().calls.closed_early()

    def _running(self) -> Server:
        if self._server is None:
            raise RuntimeError("the offline model does not run; call start()")
        return self._server
