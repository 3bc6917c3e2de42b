"""Who called how often, what is open now, and who hung up before the end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from offline_model.wire import ClientLeft

#: Ids remembered at most; beyond it the oldest are forgotten, so a server that runs for months stays small.
IDS_AT_MOST = 100_000


class Calls:
    """Counts, safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._open = 0
        self._closed_early = 0
        self._era = 0

    @contextmanager
    def counted(self, request_id: str) -> Iterator[None]:
        """Count one call for as long as the block runs. A `ClientLeft` that passes through is counted too."""
        with self._lock:
            self._counts[request_id] = self._counts.get(request_id, 0) + 1
            if len(self._counts) > IDS_AT_MOST:
                del self._counts[next(iter(self._counts))]
            self._open += 1
            era = self._era
        left = 0
        try:
            yield
        except ClientLeft:
            left = 1
            raise
        finally:
            # Both under one lock: who sees `open` fall to 0 must also see why.
            with self._lock:
                self._open -= 1
                # A call left over from before a `clear` must not spoil the counts of the next test.
                if era == self._era:
                    self._closed_early += left

    def by_id(self) -> dict[str, int]:
        """Calls so far per `X-Client-Request-Id`; calls without that header are under ""."""
        with self._lock:
            return dict(self._counts)

    def open(self) -> int:
        """Calls being answered right now."""
        with self._lock:
            return self._open

    def closed_early(self) -> int:
        """Answers whose client hung up before their end."""
        with self._lock:
            return self._closed_early

    def clear(self) -> None:
        """Forget all counts. Calls that are open stay open."""
        with self._lock:
            self._counts.clear()
            self._closed_early = 0
            self._era += 1
