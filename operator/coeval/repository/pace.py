"""How long a large write may take. The library bounds a request's time, whatever it moves meanwhile (its
bound on silence counts from before the body is sent): a slow uplink and a stuck server look alike.

So a large write gets as long as the ones before it needed. One that takes longer is begun again with more
time, if the server answers something small: then it was slow, not stuck.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

FACTORS = (1, 4, 16)
"""A large write's time over that of any other request, by level. Half an hour for a pack is 17 KiB/s."""


class Pace:
    """A bucket, and the same with more time for a write. Safe from any thread: a race costs an attempt."""

    def __init__(self, make: Callable[[float, bool], Bucket], seconds: float) -> None:
        """`make` opens the bucket: with how many seconds for a write, or else for a silence of the server."""
        self.seconds = seconds
        self.bucket = make(seconds, False)
        self._make = make
        self._buckets: dict[int, Bucket] = {}
        self._level = 0

    def writing(self) -> tuple[Bucket, int]:
        """Give the bucket for a large write, and its level."""
        level = self._level
        if level not in self._buckets:
            self._buckets[level] = self._make(self.seconds * FACTORS[level], True)
        return self._buckets[level], level

    def too_slow(self, level: int) -> bool:
        """A write was cut off at a level, and the server lives: is there a longer one to be had?"""
        self._level = max(self._level, min(level + 1, len(FACTORS) - 1))
        return self._level > level

    def took(self, seconds: float) -> None:
        """A write was done in this time; the next gets at least twice as much."""
        fits = (level for level, factor in enumerate(FACTORS) if 2 * seconds <= factor * self.seconds)
        self._level = next(fits, len(FACTORS) - 1)
