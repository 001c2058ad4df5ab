"""What tests of changed blocks share: to write, to ask the driver what changed, to join its answer."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from tests.e2e.csi_rig import MIB, Rig, pb

BLOCK = 4096
Stretches = list[tuple[int, int]]


def ask(rig: Rig, base: str, target: str, *, start: int = 0, most: int = 0) -> list[Any]:
    """The messages of a delta."""
    request = pb.GetMetadataDeltaRequest(
        base_snapshot_id=base, target_snapshot_id=target, starting_offset=start, max_results=most
    )
    return list(rig.call("SnapshotMetadata", "GetMetadataDelta", request))


def ask_allocated(rig: Rig, snapshot: str, start: int = 0) -> list[Any]:
    request = pb.GetMetadataAllocatedRequest(snapshot_id=snapshot, starting_offset=start)
    return list(rig.call("SnapshotMetadata", "GetMetadataAllocated", request))


def stretches(told: list[Any]) -> Stretches:
    """Blocks of messages, checked against CSI's rules, neighbours joined."""
    joined: Stretches = []
    for message in told:
        for block in message.block_metadata:
            begin, end = block.byte_offset, block.byte_offset + block.size_bytes
            assert begin < end
            assert not joined or joined[-1][1] <= begin
            if joined and joined[-1][1] == begin:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((begin, end))
    return joined


def differing(old: bytes, new: bytes) -> Stretches:
    """Compared byte by byte, in blocks."""
    found: Stretches = []
    for at in range(0, len(new), BLOCK):
        if old[at : at + BLOCK].ljust(BLOCK, b"\0") != new[at : at + BLOCK].ljust(BLOCK, b"\0"):
            if found and found[-1][1] == at:
                found[-1] = (found[-1][0], at + BLOCK)
            else:
                found.append((at, at + BLOCK))
    return found


def scatter(place: Path, seed: int, size: int = 16 * MIB, count: int = 40) -> None:
    """Direct and other writes all over."""
    chosen = random.Random(seed)  # noqa: S311
    with place.open("r+b", buffering=0) as file:
        for _ in range(count):
            length = chosen.choice([512, BLOCK, 5 * BLOCK, 100_000])
            os.pwrite(file.fileno(), chosen.randbytes(length), chosen.randrange(0, size - length))
        os.fsync(file.fileno())


def fill(device: Path, offset: int) -> None:
    with device.open("r+b") as file:
        file.seek(offset)
        file.write(b"x" * BLOCK)
        os.fsync(file.fileno())
