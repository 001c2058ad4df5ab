"""Small images for property tests: files with holes, compared as a driver does, read back by a restore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coeval.mover.progress import Progress
from coeval.mover.ranges import Ranges
from coeval.mover.restore import restore_volume
from coeval.mover.sources import Source, open_source
from coeval.mover.targets import FileTarget
from coeval.repository.repository import Repository

CHUNK = 4096

# Writes (offset, length, byte; 0 punches a hole) from which an image is made.
Writes = list[tuple[int, int, int]]


def change(image: bytearray, changes: Writes) -> None:
    """Write into an image; what lies beyond its end is dropped."""
    size = len(image)
    for offset, length, byte in changes:
        image[offset : min(size, offset + length)] = bytes([byte]) * max(0, min(length, size - offset))


def write_image(path: Path, image: bytes) -> None:
    """Write a file with a hole wherever a page is zero."""
    with path.open("wb") as file:
        file.truncate(len(image))
        for at in range(0, len(image), CHUNK):
            piece = image[at : at + CHUNK]
            if piece.strip(b"\0"):
                file.seek(at)
                file.write(piece)


def differences(t1: bytes, t2: bytes, unit: int) -> Ranges:
    """Report as a driver does: units that differ, but none beyond T2's end: growth speaks for itself."""
    ranges: list[tuple[int, int]] = []
    for at in range(0, min(len(t1), len(t2)), unit):
        if t1[at : at + unit] != t2[at : at + unit]:
            end = min(at + unit, len(t1))
            if ranges and sum(ranges[-1]) == at:
                ranges[-1] = (ranges[-1][0], end - ranges[-1][0])
            else:
                ranges.append((at, end - at))
    return Ranges(len(t1), tuple(ranges))


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a source for a while."""
    source = open_source(path)
    try:
        yield source
    finally:
        source.close()


def restored(repository: Repository, snapshot: str, folder: Path, volume: str = "root") -> bytes:
    """Restore a volume to a file and read that."""
    path = folder / "out"
    target = FileTarget(path, sparse=True, overwrite=True)
    try:
        restore_volume(repository, snapshot, volume, target, progress=Progress())
    finally:
        target.close()
    return path.read_bytes()
