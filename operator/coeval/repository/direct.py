"""Writing around the page cache: for what is written once, waited for, and not read again soon.

Through the cache every byte would be copied, into pages that push out what others use. Here it is copied as
well, but into one small buffer that stays in the processor's caches.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Iterable, Iterator

from coeval.repository.crypto import Bytes

AT_ONCE = 4 << 20
"""Bytes of one such write, which waits for the disk."""

BLOCK = 4096
"""What such a write must begin and end at: no disk has larger blocks."""


_own = threading.local()


def buffer() -> memoryview:
    """Give this thread's buffer for one write. It begins at a page, as such writes ask."""
    if not hasattr(_own, "buffer"):
        _own.buffer = memoryview(mmap.mmap(-1, AT_ONCE))
    found: memoryview = _own.buffer
    return found


def fill(into: memoryview, parts: Iterable[Bytes]) -> Iterator[int]:
    """Put parts one behind the other into a buffer; give its filling when it is full, and at the end."""
    filled = 0
    for part in parts:
        rest = memoryview(part)
        while rest:
            count = min(len(rest), len(into) - filled)
            into[filled : filled + count] = rest[:count]
            filled, rest = filled + count, rest[count:]
            if filled == len(into):
                yield filled
                filled = 0
    if filled:
        yield filled


def write_at(file: int, offset: int, view: memoryview) -> None:
    """Write all of a buffer."""
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done


def refused(error: OSError) -> bool:
    """Tell whether it is not the file that is at fault but this way of writing it."""
    return error.errno == errno.EINVAL
