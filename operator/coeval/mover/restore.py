"""Restore: a volume of a snapshot, written to a file or a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from coeval.mover import tags
from coeval.mover.content import ContentList, load_content
from coeval.mover.fan_out import fan_out
from coeval.mover.layout import image_path, volume_image
from coeval.mover.progress import Progress
from coeval.mover.targets import Target
from coeval.mover.volumes import Result
from coeval.repository.crypto import hash_id
from coeval.repository.pack import BlobType, Place
from coeval.repository.repository import Repository
from coeval.repository.tree import go_time

READ_AT_ONCE = 4 << 20
"""Bytes of a pack that one request reads at most: a distant store answers one large request much sooner than
many small ones."""


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

    def write(batch: list[_Piece]) -> None:
        blobs = [(piece.blob_id, piece.place) for piece in batch]
        for piece, data in zip(batch, repository.load_near(BlobType.DATA, blobs), strict=True):
            for offset in piece.offsets:
                target.write(offset, data)
            progress.add(done=len(piece.offsets) * len(data), read=len(data))

    fan_out(_batches(repository, content, zero_ids, target, progress), write)
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


def _batches(
    repository: Repository, content: ContentList, zero_ids: set[bytes], target: Target, progress: Progress
) -> Iterator[list[_Piece]]:
    """Give what to write, as pieces that one request reads; zero stretches are dealt with on the way."""
    batch: list[_Piece] = []
    offset = hole = 0
    for slot, count in content.stretches():
        blob_id, length = content.id(slot), content.lengths[slot]
        begin, offset = offset, offset + count * length
        if blob_id in zero_ids:
            progress.add(done=count * length)
            continue
        target.zero(hole, begin - hole)
        hole = offset
        piece = _Piece(
            blob_id, repository.index.find(BlobType.DATA, blob_id)[0], range(begin, offset, length)
        )
        if batch and not _near(batch, piece.place):
            yield batch
            batch = []
        batch.append(piece)
    target.zero(hole, offset - hole)
    if batch:
        yield batch


def _near(batch: list[_Piece], place: Place) -> bool:
    """Tell whether a batch's request may as well read this place: most neighbours are stored as such."""
    places = [*(piece.place for piece in batch), place]
    span = max(each.offset + each.length for each in places) - min(each.offset for each in places)
    wasted = span - sum(each.length for each in places)
    return places[0].pack == place.pack and span <= READ_AT_ONCE and wasted <= span // 8
