"""Stretches of bytes, ascending and apart, as two arrays: 16 bytes each, however many a driver reports."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from coeval.mover.ranges import Ranges


class Blocks:
    """Stretches (begin, end) in bytes; neighbours are joined as they come."""

    def __init__(self) -> None:
        self._begins = array("Q")
        self._ends = array("Q")

    def __len__(self) -> int:
        return len(self._begins)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._begins, self._ends, strict=True)

    @property
    def end(self) -> int:
        """Where the last stretch ends; 0 if there is none."""
        return self._ends[-1] if self._ends else 0

    @property
    def total(self) -> int:
        """Bytes in all stretches."""
        return sum(self._ends) - sum(self._begins)

    def add(self, begin: int, end: int) -> None:
        """Put a stretch at the end; an empty one is nothing. It must not begin before the last one ends."""
        if begin >= end:
            return
        if begin < self.end:
            raise ValueError(f"a stretch from {begin} on begins before {self.end}")
        if self._ends and self._ends[-1] == begin:
            self._ends[-1] = end
        else:
            self._begins.append(begin)
            self._ends.append(end)

    def within(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Give what of the stretches lies in [begin, end)."""
        at = bisect_right(self._ends, begin)
        while at < len(self._begins) and self._begins[at] < end:
            yield max(begin, self._begins[at]), min(end, self._ends[at])
            at += 1

    def ranges(self, size: int, unit: int) -> Ranges:
        """Give them as ranges of a volume of `size` bytes, rounded out to `unit`, in which retime reads."""
        rounded = Blocks()
        for begin, end in self.within(0, size):
            rounded.add(max(begin // unit * unit, rounded.end), min(-(-end // unit) * unit, size))
        return Ranges(size, tuple((begin, end - begin) for begin, end in rounded))
