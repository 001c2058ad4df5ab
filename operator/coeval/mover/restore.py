"""Restore: a volume of a snapshot, written to a file or a device."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from coeval.mover import tags
from coeval.mover.content import load_content
from coeval.mover.fan_out import fan_out
from coeval.mover.layout import image_path, volume_image
from coeval.mover.progress import Progress
from coeval.mover.targets import Target
from coeval.mover.volumes import Result
from coeval.repository.crypto import hash_id
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.tree import go_time


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
    zero_ids = {length: hash_id(bytes(length)) for length in set(content.lengths)}
    zero = sum(length for slot, _, length in content.extents() if content.id(slot) == zero_ids[length])
    target.prepare(content.size, content.size - zero)
    progress.begin(content.size)

    def chunks() -> Iterator[tuple[int, int, int]]:
        """Give the chunks to write; zero stretches are joined and dealt with on the way."""
        begin = end = 0
        for slot, offset, length in content.extents():
            if content.id(slot) != zero_ids[length]:
                yield slot, offset, length
                continue
            if offset != end:
                target.zero(begin, end - begin)
                begin = offset
            end = offset + length
            progress.add(done=length)
        target.zero(begin, end - begin)

    def write(chunk: tuple[int, int, int]) -> None:
        slot, offset, length = chunk
        target.write(offset, repository.load_blob(BlobType.DATA, content.id(slot)))
        progress.add(done=length, read=length)

    fan_out(chunks(), write)
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
