"""How this process asks the system for memory."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h of the GNU C library
_MIB = 1 << 20


def keep_freed_memory() -> None:
    """Let the C library keep what was freed for the next chunk, instead of giving it back to the kernel.

    Chunks of a MiB come and go by the thousand. Fetched anew each time, page by page, they cost a restore
    half of its CPU time. The buffers under way bound what is kept. Other C libraries are left as they are.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        for parameter, size in ((_MMAP_THRESHOLD, 8), (_TRIM_THRESHOLD, 64), (_TOP_PAD, 4)):
            library.mallopt(parameter, size * _MIB)
