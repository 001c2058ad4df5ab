"""CSI SnapshotMetadata: which blocks of a snapshot hold data, or differ from those of another one.

The truth is in the files: what two images share by reflink is equal, what they do not share is compared byte
by byte. Offsets are those of the device, for Block and Filesystem volumes alike. The base's volume may be
gone; the base may not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from coeval.mover.changes.blocks import Blocks
from coeval.mover.changes.extents import HOLE, MOUNTINFO, read_extents
from coeval.mover.changes.through_extents import changed_blocks

from tests.cluster.csi.catalog import Shelf, Snapshot
from tests.cluster.csi.faults import Fault
from tests.cluster.csi.protos import load
from tests.cluster.csi.rpc import CsiError, need

pb: Any = load("csi")

BLOCK: Final = 4096
WINDOW: Final = 1 << 20
"""Bytes compared at a time."""
RESULTS: Final = 256
"""Tuples of a message, unless fewer are asked for."""


class SnapshotMetadata:
    """With `fixed`, every block is told by itself; else neighbours are joined."""

    def __init__(self, snapshots: Shelf[Snapshot], *, fixed: bool = False) -> None:
        self._snapshots = snapshots
        self._fixed = fixed

    def GetMetadataAllocated(self, request: Any, fault: Fault) -> Iterator[Any]:
        need(request, "snapshot_id")
        snapshot = self._snapshot(request.snapshot_id)
        _check(request, snapshot)
        blocks = allocated(self._snapshots.image(snapshot.handle))
        yield from self._messages(pb.GetMetadataAllocatedResponse, request, fault, snapshot, blocks)

    def GetMetadataDelta(self, request: Any, fault: Fault) -> Iterator[Any]:
        need(request, "base_snapshot_id", "target_snapshot_id")
        base, target = self._snapshot(request.base_snapshot_id), self._snapshot(request.target_snapshot_id)
        if base.volume != target.volume:
            raise CsiError("InvalidArgument", f"{base.handle} and {target.handle} are of different volumes")
        _check(request, target)
        blocks = delta(self._snapshots.image(base.handle), self._snapshots.image(target.handle))
        yield from self._messages(pb.GetMetadataDeltaResponse, request, fault, target, blocks)

    def _snapshot(self, handle: str) -> Snapshot:
        snapshot = self._snapshots.get(handle)
        if snapshot is None:
            raise CsiError("NotFound", f"snapshot {handle} does not exist")
        return snapshot

    def _messages(
        self, kind: Any, request: Any, fault: Fault, snapshot: Snapshot, blocks: Blocks
    ) -> Iterator[Any]:
        """The stream; none of it if there is nothing to tell, as real drivers do."""
        most = min(request.max_results or RESULTS, RESULTS)
        metadata_type = "FIXED_LENGTH" if self._fixed else "VARIABLE_LENGTH"
        told = kind(block_metadata_type=metadata_type, volume_capacity_bytes=snapshot.size_bytes)
        sent = 0
        for begin, end in self._tuples(blocks, request.starting_offset, fault):
            told.block_metadata.add(byte_offset=begin, size_bytes=end - begin)
            if len(told.block_metadata) == most:
                yield told
                sent += 1
                if fault.cut_after and sent >= fault.cut_after:
                    raise CsiError("Unavailable", f"cut after {sent} messages because faults.json says so")
                del told.block_metadata[:]
        if told.block_metadata:
            yield told

    def _tuples(self, blocks: Blocks, start: int, fault: Fault) -> Iterator[tuple[int, int]]:
        lie_begin, lie_end = (fault.lies[0], sum(fault.lies)) if fault.lies else (0, 0)
        for begin, end in blocks.within(start // BLOCK * BLOCK, 1 << 62):
            pieces = [(begin, end)]
            if begin < lie_end and lie_begin < end:
                pieces = [(begin, lie_begin), (lie_end, end)]
            for piece in pieces:
                if piece[0] < piece[1]:
                    yield from _split(*piece) if self._fixed else [piece]


def allocated(image: Path) -> Blocks:
    """What an image holds, as its filesystem has it: at least everything that was ever written."""
    found = read_extents(image)
    blocks = Blocks()
    for begin, end, place in found.pieces(found.size):
        if place != HOLE:
            blocks.add(begin, end)
    return blocks


def delta(base: Path, target: Path, mountinfo: Path = MOUNTINFO) -> Blocks:
    """Where two images differ, in whole blocks. What lies beyond the end of the base counts as zero there."""
    # One device at one moment: nothing changed on it, so blocks at the same place are the same blocks.
    maybe = changed_blocks(read_extents(base, mountinfo), read_extents(target, mountinfo), Blocks())
    blocks = Blocks()
    with base.open("rb") as old, target.open("rb") as new:
        for begin, end in maybe:
            for at in range(begin, end, WINDOW):
                length = min(WINDOW, end - at)
                ours = os.pread(new.fileno(), length, at)
                theirs = os.pread(old.fileno(), length, at).ljust(length, b"\0")
                if ours == theirs:
                    continue
                for place in range(0, length, BLOCK):
                    if ours[place : place + BLOCK] != theirs[place : place + BLOCK]:
                        blocks.add(at + place, at + min(place + BLOCK, length))
    return blocks


def _check(request: Any, snapshot: Snapshot) -> None:
    if request.max_results < 0:
        raise CsiError("InvalidArgument", "max_results is negative")
    if not 0 <= request.starting_offset <= snapshot.size_bytes:
        raise CsiError(
            "OutOfRange",
            f"starting_offset {request.starting_offset} is not within {snapshot.size_bytes} bytes",
        )


def _split(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(begin // BLOCK * BLOCK, end, BLOCK):
        yield at, at + BLOCK
