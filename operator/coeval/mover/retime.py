"""The one engine: move a content list from moment X to moment T1, given what differs and a source of T1.

A copy is the same with nothing to start from. A comparison is the same with everything taken for changed: the
chunk's id says what really is.
"""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from coeval.mover.content import CHUNK_SIZE, ContentList
from coeval.mover.pipeline import Extent, read_extents
from coeval.mover.progress import Progress
from coeval.mover.ranges import Ranges
from coeval.mover.sources import Source
from coeval.repository.crypto import Bytes, hash_id
from coeval.repository.pack import BlobType
from coeval.repository.writer import BlobWriter

SAMPLE_LEAST = 10
SAMPLE_PER_MILLE = 1

_PAGE = bytes(4096)


@dataclass
class Retimed:
    """What came out: T1's content, and what it took. Changed is a chunk whose id differs from the base's."""

    content: ContentList
    bytes_read: int = 0
    bytes_changed: int = 0
    chunks_changed: int = 0
    chunks_sampled: int = 0
    sample_contradicts: bool = False


@dataclass(frozen=True)
class Plan:
    """T1's chunks. Those of `dirty` are to be read; the others stand as in the base."""

    content: ContentList
    dirty: array[int]

    def extents(self) -> Iterator[Extent]:
        """Give the chunks to read, in order."""
        wanted = iter(self.dirty)
        following = next(wanted, None)
        for slot, offset, length in self.content.extents():
            if slot == following:
                yield Extent(slot, offset, length)
                following = next(wanted, None)


def make_plan(base: ContentList, changed: Ranges, size: int, chunk_size: int) -> Plan:
    """Lay out T1's chunks over the base's and mark those to read.

    The base's boundaries stay. T1's size wins: a chunk across its end is cut; what lies beyond the base is
    new and cut at `chunk_size`; a base that ended in a short chunk grows on from that chunk's beginning.
    """
    content, dirty = ContentList(), array("I")
    ranges = iter(changed.ranges)
    begin, stop = _bounds(next(ranges, None))
    offset = 0
    for slot, offset_in_base, base_length in base.extents():
        offset, length = offset_in_base, base_length
        if slot == len(base) - 1 and length < chunk_size:
            length = min(chunk_size, max(length, size - offset))
        length = min(length, size - offset)
        if length <= 0:
            break
        while stop <= offset:
            begin, stop = _bounds(next(ranges, None))
        if length != base_length or begin < offset + length:
            dirty.append(slot)
        content.append(base.id(slot), length)
        offset += length
    while offset < size:
        length = min(chunk_size - offset % chunk_size, size - offset)
        dirty.append(len(content))
        content.append(bytes(32), length)
        offset += length
    return Plan(content, dirty)


def retime(
    base: ContentList,
    changed: Ranges,
    source: Source,
    *,
    writer: BlobWriter,
    progress: Progress,
    chunk_size: int = CHUNK_SIZE,
    sample: random.Random | None = None,
) -> Retimed:
    """Give the content of `source`: read `changed` and what the base does not reach, store what is new.

    Where `sample` is given, some chunks outside the ranges are read too; one that contradicts makes
    everything be read. Raises SourceUnreadable, SourceSizeMismatch and what the repository raises.
    """
    plan = make_plan(base, changed, source.size, chunk_size)
    result = Retimed(plan.content)
    if sample:
        _take_sample(plan, source, sample, result)
        if result.sample_contradicts:
            plan = make_plan(base, Ranges.everything(source.size), source.size, chunk_size)
            result.content = plan.content
    progress.begin(source.size, source.size - sum(plan.content.lengths[slot] for slot in plan.dirty))
    zeros = _Zeros()
    guard = threading.Lock()

    def handle(extent: Extent, view: memoryview | None, read: int) -> None:
        if view is None or zeros.covers(view):
            data: Bytes = zeros.content(extent.length)
            blob_id = zeros.id(extent.length)
        else:
            data, blob_id = view, hash_id(view)
        if extent.slot >= len(base) or base.lengths[extent.slot] != extent.length:
            differs = True
        else:
            differs = base.id(extent.slot) != blob_id
        if differs:
            writer.store(BlobType.DATA, data, blob_id)
            plan.content.set_id(extent.slot, blob_id)
        with guard:
            result.bytes_read += read
            if differs:
                result.bytes_changed += extent.length
                result.chunks_changed += 1
        progress.add(done=extent.length, read=read, added=writer.bytes_added)

    read_extents(source, plan.extents(), max(plan.content.lengths, default=0), handle)
    return result


def _bounds(entry: tuple[int, int] | None) -> tuple[int, int]:
    # Past the last range comes one that nothing reaches.
    return (entry[0], entry[0] + entry[1]) if entry else (1 << 63, 1 << 63)


def _take_sample(plan: Plan, source: Source, sample: random.Random, result: Retimed) -> None:
    """Read some chunks that should not have changed, half of them from the start, where superblocks are."""
    dirty = set(plan.dirty)
    clean = array("I", (slot for slot in range(len(plan.content)) if slot not in dirty))
    count = min(len(clean), max(SAMPLE_LEAST, len(clean) * SAMPLE_PER_MILLE // 1000))
    first = list(clean[: count // 2])
    chosen = set(first + sample.sample(clean[count // 2 :], count - len(first)))
    for slot, offset, length in plan.content.extents():
        if slot not in chosen:
            continue
        view = memoryview(bytearray(length))
        result.bytes_read += source.read_into(offset, view)
        result.chunks_sampled += 1
        if hash_id(view) != plan.content.id(slot):
            result.sample_contradicts = True
            return


class _Zeros:
    """Zero chunks: recognised before they are hashed; a volume has two or three lengths of them at most."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[bytes, bytes]] = {}

    def covers(self, view: memoryview) -> bool:
        # Most chunks show within a page that they are not zero.
        head = view[: len(_PAGE)].tobytes()
        return head == _PAGE[: len(head)] and self.content(len(view)).startswith(view)

    def content(self, length: int) -> bytes:
        return self._entry(length)[0]

    def id(self, length: int) -> bytes:
        return self._entry(length)[1]

    def _entry(self, length: int) -> tuple[bytes, bytes]:
        if length not in self._known:
            zeros = bytes(length)
            self._known[length] = (zeros, hash_id(zeros))
        return self._known[length]
