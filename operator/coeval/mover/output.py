"""The file or device that a restore fills: written around the page cache, where it lets us.

What is restored is written once and not read again. Through the cache every byte would be copied, into pages
that push out what others use, and the disk would begin when the last byte is there.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from coeval.mover.errors import TargetUnusable

AT_ONCE = 4 << 20
"""Bytes that one call writes around the cache, which waits for the disk."""

_BLOCK = 4096
"""What a write around the cache must begin and end at: no disk has larger blocks."""


class Output:
    """Writes from any thread, once begun. `file` is open at `place`; messages name `target`.

    No page is written in both ways, or one could undo the other: what does not begin and end at a block
    goes through the cache, and so does then its neighbour.
    """

    def __init__(self, file: int, place: Path, target: Path) -> None:
        self._file = file
        self._place = place
        self._target = target
        self._direct: int | None = None
        self._one = threading.Lock()
        self._own = threading.local()

    def begin(self) -> None:
        """Find out which way to write. Raises OSError."""
        try:
            self._direct = os.open(self._place, os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some filesystems keep everything in the cache
                raise

    def write(self, offset: int, parts: Sequence[bytes]) -> None:
        """Write parts one behind the other. Raises TargetUnusable."""
        try:
            if self._direct is None or offset % _BLOCK or sum(map(len, parts)) % _BLOCK:
                for part in parts:
                    self._through_cache(offset, memoryview(part))
                    offset += len(part)
            else:
                self._around_cache(self._direct, offset, parts)
        except OSError as error:
            raise TargetUnusable(f"--target {self._target}: near byte {offset}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of what was opened here."""
        if self._direct is not None:
            os.close(self._direct)

    def _through_cache(self, offset: int, view: memoryview) -> None:
        with self._one:  # the kernel lets one write a file at a time; the others would spin
            _write(self._file, offset, view)

    def _around_cache(self, direct: int, offset: int, parts: Sequence[bytes]) -> None:
        if not hasattr(self._own, "buffer"):
            self._own.buffer = memoryview(mmap.mmap(-1, AT_ONCE))  # begins at a page, as such writes ask
        buffer, filled = self._own.buffer, 0
        for part in parts:
            rest = memoryview(part)
            while rest:
                count = min(len(rest), AT_ONCE - filled)
                buffer[filled : filled + count] = rest[:count]
                filled, rest = filled + count, rest[count:]
                if filled == AT_ONCE:
                    self._flush(direct, offset, buffer)
                    offset, filled = offset + filled, 0
        self._flush(direct, offset, buffer[:filled])

    def _flush(self, direct: int, offset: int, view: memoryview) -> None:
        try:
            _write(direct, offset, view)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._through_cache(offset, view)  # it wants larger blocks, or wrote half of one


def _write(file: int, offset: int, view: memoryview) -> None:
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done
