"""A work queue with the semantics of client-go's: which object needs a look, and when?

A key waits at most once, and at most one worker has it at a time: added while a worker has it, it comes back
when that worker is done. Failures wait exponentially longer per key, with jitter, and a token bucket bounds
all retries together. Everything runs in one event loop and by its clock.
"""

import asyncio
import random
from collections import deque
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)


class QueueShutDown(Exception):
    """There will be no more keys."""


class QueueMetrics(Protocol):
    """What the queue reports about itself; times in seconds."""

    def depth(self, keys: int) -> None:
        """Keys that wait for a worker."""

    def waited(self, seconds: float) -> None:
        """A key went to a worker after waiting that long."""

    def retried(self) -> None:
        """A key was put back after a failure."""


class _NoMetrics:
    def depth(self, keys: int) -> None: ...
    def waited(self, seconds: float) -> None: ...
    def retried(self) -> None: ...


class TokenBucket:
    """Says how long to wait so that no more than `rate` per second pass, after a burst."""

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._burst = burst
        self._next = float("-inf")

    def reserve(self, now: float) -> float:
        """Take the next place; the seconds until it comes."""
        self._next = max(self._next, now - self._burst * self._interval) + self._interval
        return max(0.0, self._next - now)


class WorkQueue(Generic[K]):
    """Delays in seconds. Not thread-safe: other threads come by `loop.call_soon_threadsafe`."""

    def __init__(
        self,
        *,
        first_backoff: float = 0.1,
        longest_backoff: float = 60.0,
        retries_per_second: float = 10.0,
        burst: int = 100,
        metrics: QueueMetrics | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._first = first_backoff
        self._longest = longest_backoff
        self._bucket = TokenBucket(retries_per_second, burst)
        self._metrics = metrics or _NoMetrics()
        self._rng = rng or random.Random()  # noqa: S311 (jitter, not a secret)
        self._ready: deque[K] = deque()
        self._since: dict[K, float] = {}  # keys that need a look: waiting, or added while running
        self._running: dict[K, float] = {}  # since when
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._closed = False
        self._change = asyncio.Event()

    def add(self, key: K) -> None:
        """The key needs a look now."""
        if self._closed or key in self._since:
            return
        self._since[key] = _now()
        if key not in self._running:
            self._enqueue(key)

    def add_after(self, key: K, seconds: float) -> None:
        """The key needs a look later; of several such calls the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        if self._closed:
            return
        when = _now() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(when, self._due, key)

    def add_rate_limited(self, key: K, *, at_least: float = 0.0) -> float:
        """The look failed: again later, each time later. Returns the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # Beyond 2^32 the exponent would overflow, and the cap has been reached long before.
        backoff = min(self._longest, self._first * 2.0 ** min(failures, 32))
        delay = max(backoff * self._rng.uniform(0.5, 1.0), self._bucket.reserve(_now()), at_least)
        self._metrics.retried()
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The look succeeded: the next failure starts with the shortest delay."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; call `done` with it. QueueShutDown when the queue is closed and empty."""
        while not self._ready:
            if self._closed:
                raise QueueShutDown
            self._change.clear()
            await self._change.wait()
        key = self._ready.popleft()
        self._running[key] = _now()
        self._metrics.waited(_now() - self._since.pop(key))
        self._metrics.depth(len(self._ready))
        return key

    def done(self, key: K) -> None:
        """The worker is through with the key."""
        self._running.pop(key, None)
        if key in self._since:
            self._enqueue(key)
        self._change.set()

    def shut_down(self) -> None:
        """No key is accepted any more, waiting ones are dropped; who has one finishes it (see `drain`)."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        self._since.clear()
        self._metrics.depth(0)
        self._change.set()

    async def drain(self) -> None:
        """Wait until no worker has a key. Time limits are the caller's."""
        while self._running:
            self._change.clear()
            await self._change.wait()

    def oldest_age(self) -> float:
        """Since when the oldest key has been waiting for a worker, in seconds; 0 when none waits."""
        return _now() - min((self._since[key] for key in self._ready), default=_now())

    def longest_run(self) -> float:
        """Since when a worker has had the same key, in seconds; 0 when all are idle."""
        return _now() - min(self._running.values(), default=_now())

    def __len__(self) -> int:
        return len(self._ready)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def _enqueue(self, key: K) -> None:
        self._ready.append(key)
        self._metrics.depth(len(self._ready))
        self._change.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
