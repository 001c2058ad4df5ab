"""A bounded pipeline: several threads, each of which reads an extent, then hashes, packs and seals it."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from coeval.mover.sources import Source

CORES = min(8, len(os.sched_getaffinity(0)))
WORKERS = CORES + 1
"""One more than cores, so that these stay busy while a thread waits for the source."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A chunk's place: its number, and its bytes in the volume."""

    slot: int
    offset: int
    length: int


Handle = Callable[[Extent, memoryview | None, int], None]
"""Called with an extent, its bytes (None: a hole) and how many of them were read; the bytes are lent."""


def read_extents(source: Source, extents: Iterable[Extent], longest: int, handle: Handle) -> None:
    """Read extents in order and handle them, several at a time and in any order.

    `longest` is the longest extent's length. Who reads an extent also handles it, while its bytes are still
    in that core's cache. Raises the first error, once all threads ended.
    """
    waiting = iter(extents)
    turn = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        # Anonymous memory begins at a page, as direct reads ask.
        buffer = memoryview(mmap.mmap(-1, max(longest, mmap.PAGESIZE)))
        try:
            while True:
                with turn:
                    extent = None if failures else next(waiting, None)
                    if extent is None:
                        return
                    view = buffer[: extent.length]
                    read = source.read_into(extent.offset, view)
                handle(extent, view if read else None, read)
        except BaseException as error:  # raised again by the calling thread
            failures.append(error)

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="chunk") as workers:
        for _ in range(WORKERS):
            workers.submit(work)
    if failures:
        raise failures[0]
