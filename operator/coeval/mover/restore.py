"""Restore: a volume of a snapshot, written to a file or a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from coeval.mover import tags
from coeval.mover.content import ContentList, load_content
from coeval.mover.fan_out import fan_out
from coeval.mover.layout import image_path, volume_image
from coeval.mover.pipeline import CORES
from coeval.mover.progress import Progress
from coeval.mover.targets import Target
from coeval.mover.volumes import Result
from coeval.repository.crypto import hash_id
from coeval.repository.direct import AT_ONCE
from coeval.repository.pack import BlobType, Place
from coeval.repository.repository import Repository
from coeval.repository.tree import go_time

WINDOW = 8 << 20
"""Bytes of a volume that one thread restores at a time. Several threads stored them: neighbours lie near each
other in a pack, but in any order."""

READ_AT_ONCE = 4 << 20
"""Bytes of a pack that one request reads at most: a distant store answers one large request much sooner than
many small ones."""

WASTE = 128 << 10
"""Bytes between two blobs that are rather read in vain than asked around."""


def restore_volume(
    repository: Repository, prefix: str, volume: str, target: Target, *, progress: Progress
) -> Result:
    """Write a volume's bytes to the target.

    Raises InterimSnapshot, VolumeNotFound, TargetUnusable, RepositoryDamaged.
    """
    begun = datetime.now(UTC)
    repository.lenient = True
    snapshot = repository.snapshot(prefix)
    tags.refuse_interim(snapshot)
    label = f"snapshot {snapshot.id}: {image_path(volume)}"
    content = load_content(repository, volume_image(repository, snapshot, volume), label)
    zero_ids = {hash_id(bytes(length)) for length in set(content.lengths)}
    zero = sum(
        count * content.lengths[slot] for slot, count in content.stretches() if content.id(slot) in zero_ids
    )
    target.prepare(content.size, content.size - zero)
    progress.begin(content.size)

    def write(window: list[_Piece]) -> None:
        loaded: dict[bytes, bytes] = {}
        for near in _near(window):
            blobs = [(piece.blob_id, piece.place) for piece in near]
            for piece, data in zip(near, repository.load_near(BlobType.DATA, blobs), strict=True):
                loaded[piece.blob_id] = data
        for offset, run in _runs(window, loaded):
            target.write(offset, run)
            progress.add(done=sum(map(len, run)))
        progress.add(done=0, read=sum(map(len, loaded.values())))

    windows = _windows(repository, content, zero_ids, target, progress)
    fan_out(windows, write, CORES + 2)  # one waits for the repository, one for the target
    target.finish()
    return {
        "snapshot": snapshot.id,
        "volume": volume,
        "as_of": go_time(tags.as_of(snapshot)),
        "bytes_total": content.size,
        "bytes_read": content.size - zero,
        "chunks": len(content),
        "passed_over": repository.passed_over,
        "seconds": round((datetime.now(UTC) - begun).total_seconds(), 3),
    }


@dataclass(frozen=True)
class _Piece:
    """A blob to read, and the offsets in the volume where it goes."""

    blob_id: bytes
    place: Place
    offsets: range


def _windows(
    repository: Repository, content: ContentList, zero_ids: set[bytes], target: Target, progress: Progress
) -> Iterator[list[_Piece]]:
    """Give what to write, a window at a time; zero stretches are dealt with on the way."""
    window: list[_Piece] = []
    offset = hole = held = 0
    for slot, count in content.stretches():
        blob_id, length = content.id(slot), content.lengths[slot]
        begin, offset = offset, offset + count * length
        if blob_id in zero_ids:
            progress.add(done=count * length)
            continue
        target.zero(hole, begin - hole)
        hole = offset
        place = repository.index.find(BlobType.DATA, blob_id)[0]
        window.append(_Piece(blob_id, place, range(begin, offset, length)))
        held += length
        if held >= WINDOW:
            yield window
            window, held = [], 0
    target.zero(hole, offset - hole)
    if window:
        yield window


def _near(window: list[_Piece]) -> Iterator[list[_Piece]]:
    """Give the pieces by groups that one request may as well read."""
    group: list[_Piece] = []
    for piece in sorted(window, key=lambda piece: (piece.place.pack, piece.place.offset)):
        place = piece.place
        if group:
            first, last = group[0].place, group[-1].place
            gap = place.offset - last.offset - last.length
            span = place.offset + place.length - first.offset
            if place.pack != first.pack or gap > WASTE or span > READ_AT_ONCE:
                yield group
                group = []
        group.append(piece)
    if group:
        yield group


def _runs(window: list[_Piece], loaded: dict[bytes, bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Give offsets in the volume, and what is to be written there at once: neighbours' bytes."""
    run: list[bytes] = []
    begin = end = 0
    for piece in window:
        data = loaded[piece.blob_id]
        for offset in piece.offsets:
            if run and (offset != end or end - begin >= AT_ONCE):
                yield begin, run
                run = []
            if not run:
                begin = end = offset
            run.append(data)
            end += len(data)
    if run:
        yield begin, run
