"""The one engine: move a content list from moment X to moment T1, given what differs and a source of T1.

A copy is the same with nothing to start from. A comparison is the same with everything taken for changed: the
chunk's id says what really is.
"""

from __future__ import annotations

import random
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, takewhile

from coeval.mover.content import CHUNK_SIZE, ContentList
from coeval.mover.pipeline import Extent, read_extents
from coeval.mover.progress import Progress
from coeval.mover.ranges import Ranges
from coeval.mover.sources import Source
from coeval.repository.crypto import hash_id
from coeval.repository.pack import BlobType
from coeval.repository.writer import BlobWriter

SAMPLE_LEAST = 10
SAMPLE_PER_MILLE = 1

_HOLES_AT_A_TIME = 1 << 16
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
    """T1's chunks. Those of `dirty` are to be read; the others stand as in the base.

    A volume of many TiB has millions of chunks, few of them dirty: no step here takes them one by one.
    """

    content: ContentList
    offsets: array[int]
    dirty: array[int]

    def extents(self) -> Iterator[Extent]:
        """Give the chunks to read, in order."""
        return (self.extent(slot) for slot in self.dirty)

    def extent(self, slot: int) -> Extent:
        """Give a chunk's place."""
        return Extent(slot, self.offsets[slot], self.content.lengths[slot])

    @property
    def clean(self) -> int:
        """How many chunks stand as in the base."""
        return len(self.content) - len(self.dirty)

    def clean_slot(self, number: int) -> int:
        """Give the slot of a clean chunk by its number among them."""
        # dirty[i] - i clean ones come before the dirty chunk i.
        return number + bisect_right(range(len(self.dirty)), number, key=lambda at: self.dirty[at] - at)

    def runs(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Give the stretches (first, behind the last) of adjoining slots among dirty[begin:end]."""
        dirty = self.dirty
        while begin < end:
            first = dirty[begin]
            # Slots adjoin for as long as they grow by one a place.
            behind = begin + bisect_right(range(begin, end), first - begin, key=lambda at: dirty[at] - at)
            yield first, first + behind - begin
            begin = behind


def make_plan(base: ContentList, changed: Ranges, size: int, chunk_size: int) -> Plan:
    """Lay out T1's chunks over the base's and mark those to read.

    The base's boundaries stay. T1's size wins: a chunk across its end is cut; what lies beyond the base is
    new and cut at `chunk_size`; a base that ended in a short chunk grows on from that chunk's beginning.
    """
    content, kept = _lay_out(base, size, chunk_size)
    offsets = content.offsets()
    dirty, end = array("I"), 0
    for offset, length in changed.ranges:
        begin = max(end, bisect_right(offsets, offset) - 1)
        end = max(end, min(kept, bisect_left(offsets, offset + length)))
        dirty.extend(range(begin, end))
    dirty.extend(range(kept, len(content)))
    return Plan(content, offsets, dirty)


def _lay_out(base: ContentList, size: int, chunk_size: int) -> tuple[ContentList, int]:
    """Give T1's chunks, and how many of them stand as in the base; the ids of the others are not known."""
    offsets = base.offsets()
    kept = bisect_right(offsets, size) - 1
    if kept and kept == len(base) and size > offsets[kept] and base.lengths[-1] < chunk_size:
        kept -= 1
    content = ContentList(base.ids[: 32 * kept], base.lengths[:kept])
    at = offsets[kept]
    if kept < len(base) and at < size:
        longest = max(base.lengths[kept], chunk_size if kept == len(base) - 1 else 0)
        content.extend(min(longest, size - at))
        at += content.lengths[-1]
    if at % chunk_size and at < size:
        content.extend(min(chunk_size - at % chunk_size, size - at))
        at += content.lengths[-1]
    content.extend(chunk_size, (size - at) // chunk_size)
    if rest := (size - at) % chunk_size:
        content.extend(rest)
    return content, kept


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
    lengths = plan.content.lengths
    progress.begin(source.size, source.size - sum(map(lengths.__getitem__, plan.dirty)))
    settle = _Settle(plan.content, writer, progress, result)

    def handle(extent: Extent, view: memoryview | None, read: int) -> None:
        if view is None or settle.zeros.covers(view):
            settle.holes(extent.slot, extent.slot + 1, read)
        else:
            settle.data(extent.slot, view, read)

    read_extents(source, _past_holes(plan, source, settle.holes), max(lengths, default=0), handle)
    return result


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


@dataclass
class _Settle:
    """Puts what was found in a chunk into the content list, and what is new into the repository."""

    content: ContentList
    writer: BlobWriter
    progress: Progress
    result: Retimed
    zeros: _Zeros = field(default_factory=_Zeros)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def data(self, slot: int, view: memoryview, read: int) -> None:
        """Settle a chunk by its bytes."""
        blob_id = hash_id(view)
        differs = self.content.id(slot) != blob_id
        if differs:
            self.writer.store(BlobType.DATA, view, blob_id)
            self.content.set_id(slot, blob_id)
        self._count(self.content.lengths[slot], 1, int(differs), read)

    def holes(self, first: int, stop: int, read: int = 0) -> None:
        """Settle chunks that are zero."""
        for length, group in groupby(range(first, stop), key=self.content.lengths.__getitem__):
            slots = list(group)
            ids = slice(32 * slots[0], 32 * slots[-1] + 32)
            before, zero_id = self.content.ids[ids], self.zeros.id(length)
            differing = 0
            if before != zero_id * len(slots):
                differing = sum(before[at : at + 32] != zero_id for at in range(0, len(before), 32))
                self.writer.store(BlobType.DATA, self.zeros.content(length), zero_id)
                self.content.ids[ids] = zero_id * len(slots)
            self._count(length, len(slots), differing, read)

    def _count(self, length: int, chunks: int, differing: int, read: int) -> None:
        with self.guard:
            self.result.bytes_read += read
            self.result.bytes_changed += length * differing
            self.result.chunks_changed += differing
        self.progress.add(done=length * chunks, read=read, added=self.writer.bytes_added)


def _past_holes(plan: Plan, source: Source, settle_holes: Callable[[int, int], None]) -> Iterator[Extent]:
    """Give the chunks to read where there may be data; stretches of whole chunks without are settled here."""
    at, dirty = 0, plan.dirty
    while at < len(dirty):
        slot = dirty[at]
        data = source.data_from(plan.offsets[slot])
        clear = bisect_right(plan.offsets, data, lo=slot) - 1  # the first chunk that does not end before
        if clear <= slot:
            yield plan.extent(slot)
            at += 1
            continue
        # A stretch is settled a piece at a time, to bound the memory and to show progress.
        after = bisect_left(dirty, clear, lo=at, hi=min(len(dirty), at + _HOLES_AT_A_TIME))
        for first, stop in plan.runs(at, after):
            settle_holes(first, stop)
        at = after


def _take_sample(plan: Plan, source: Source, sample: random.Random, result: Retimed) -> None:
    """Read some chunks that should not have changed, half of them from the start, where superblocks are."""
    count = min(plan.clean, max(SAMPLE_LEAST, plan.clean * SAMPLE_PER_MILLE // 1000))
    first = count // 2
    numbers = [*range(first), *sorted(sample.sample(range(first, plan.clean), count - first))]
    zeros, guard = _Zeros(), threading.Lock()

    def handle(extent: Extent, view: memoryview | None, read: int) -> None:
        blob_id = zeros.id(extent.length) if view is None else hash_id(view)
        with guard:
            result.bytes_read += read
            result.chunks_sampled += 1
            result.sample_contradicts |= blob_id != plan.content.id(extent.slot)

    chosen = (plan.extent(plan.clean_slot(number)) for number in numbers)
    wanted = takewhile(lambda _: not result.sample_contradicts, chosen)
    read_extents(source, wanted, max(plan.content.lengths, default=0), handle)
