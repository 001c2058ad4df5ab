"""A bound on the rate at which a store is written: a token bucket before `save` and `create`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from coeval.repository.crypto import Bytes
from coeval.repository.store import Kind, Store


class TokenBucket:
    """Who asks for bytes is told how long to wait first. A debt is paid back at `rate` bytes a second.

    Nothing is saved up: after idleness one object goes at once, whatever its size, and is paid back before
    the next. So what begins within any t seconds is at most rate · t bytes and one object.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = float("-inf")
        self._guard = threading.Lock()

    def reserve(self, size: int, now: float) -> float:
        """Take `size` bytes at time `now` (seconds); give the seconds to wait before sending them."""
        with self._guard:
            start = max(now, self._free_at)
            self._free_at = start + size / self._rate
            return start - now


class LimitedStore:
    """Any store, with its writes held to a rate in bytes a second."""

    def __init__(
        self,
        store: Store,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._bucket = TokenBucket(rate)
        self._clock = clock
        self._sleep = sleep

    def save(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> None:
        """See Store."""
        self._wait(parts)
        self._store.save(kind, name, parts)

    def create(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> bool:
        """See Store."""
        self._wait(parts)
        return self._store.create(kind, name, parts)

    def load(self, kind: Kind, name: str) -> bytes:
        """See Store."""
        return self._store.load(kind, name)

    def load_range(self, kind: Kind, name: str, offset: int, length: int) -> bytes:
        """See Store."""
        return self._store.load_range(kind, name, offset, length)

    def entries(self, kind: Kind) -> Iterator[tuple[str, int]]:
        """See Store."""
        return self._store.entries(kind)

    def remove(self, kind: Kind, name: str) -> None:
        """See Store."""
        self._store.remove(kind, name)

    def sweep(self) -> int:
        """See Store."""
        return self._store.sweep()

    def _wait(self, parts: Sequence[Bytes]) -> None:
        wait = self._bucket.reserve(sum(memoryview(part).nbytes for part in parts), self._clock())
        if wait > 0:
            self._sleep(wait)
