"""A bounded pipeline: one thread reads, several hash, compress and encrypt. Buffers are pooled."""

from __future__ import annotations

import mmap
import os
import queue
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from coeval.mover.sources import Source

WORKERS = min(8, max(2, len(os.sched_getaffinity(0))))
BUFFERS_PER_WORKER = 2


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

    `longest` is the longest extent's length. Raises the first error, once all threads ended.
    """
    buffers: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    for _ in range(WORKERS * BUFFERS_PER_WORKER):
        # Anonymous memory begins at a page, as direct reads ask.
        buffers.put(memoryview(mmap.mmap(-1, max(longest, mmap.PAGESIZE))))
    failures: list[BaseException] = []

    def work(extent: Extent, buffer: memoryview, read: int) -> None:
        try:
            if not failures:
                handle(extent, buffer[: extent.length], read)
        except BaseException as error:  # raised again by the reading thread
            failures.append(error)
        finally:
            buffers.put(buffer)

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="chunk") as workers:
        try:
            for extent in extents:
                if failures:
                    break
                buffer = buffers.get()
                read = source.read_into(extent.offset, buffer[: extent.length])
                if read:
                    workers.submit(work, extent, buffer, read)
                else:
                    buffers.put(buffer)
                    handle(extent, None, 0)
        except BaseException as error:
            failures.append(error)
    if failures:
        raise failures[0]
