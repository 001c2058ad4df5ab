"""Copying a volume into the repository and moving a copy to T1: the engine, then one snapshot object."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from coeval import __version__
from coeval.mover import tags
from coeval.mover.changes.extents import ExtentMap, read_extents
from coeval.mover.changes.sources import Changes, ChangeSource, Fallback, SourceName, compare, find_changes
from coeval.mover.changes.unknown import ChangesUnknown, Reason
from coeval.mover.content import ContentList, chunk_size, load_content, zero_content
from coeval.mover.errors import VolumeNotFound
from coeval.mover.layout import check_volume_name, image_path, store_volume, volume_extents, volume_image
from coeval.mover.progress import Progress
from coeval.mover.ranges import Ranges
from coeval.mover.retime import Retimed, retime
from coeval.mover.sources import Source
from coeval.repository.errors import RepositoryDamaged, SnapshotNotFound
from coeval.repository.keys import user_name
from coeval.repository.lock import Lock
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.snapshot import Snapshot
from coeval.repository.tree import go_time
from coeval.repository.writer import BlobWriter

_LEAST_CHUNK = 64 << 10

Result = dict[str, Any]
"""What a command says at its end: one JSON object."""


@dataclass(frozen=True)
class VolumeJob:
    """What a copy or a retime is asked for. `chunk_size` in bytes, of what is new, if not the usual one."""

    name: str
    moment: datetime
    tags: tuple[str, ...] = ()
    interim: bool = False
    changes: ChangeSource | None = None
    chunk_size: int | None = None
    extents_of: Path | None = None
    """The image file of which the extent map is to be recorded beside the copy."""


def copy_volume(
    repository: Repository,
    lock: Lock,
    source: Source,
    job: VolumeJob,
    *,
    progress: Progress,
    parent: str | None = None,
) -> Result:
    """Copy a volume; with a parent and changed ranges, read only those. It becomes a part, or interim.

    A parent that is gone is no failure: nobody needs it to copy everything.
    """
    base = _parent(repository, parent, job.name) if parent is not None else None
    return _move(repository, lock, source, job, progress=progress, base=base)


def retime_volume(
    repository: Repository,
    lock: Lock,
    source: Source,
    job: VolumeJob,
    *,
    progress: Progress,
    snapshot_id: str,
) -> Result:
    """Move the copy in a snapshot to the moment of `source`. It becomes a part; the copy stays as it is."""
    snapshot = repository.snapshot(snapshot_id)
    backup = tags.value(snapshot, tags.BACKUP)
    named = any(tag.startswith(f"{tags.BACKUP}=") for tag in job.tags)
    if tags.INTERIM in snapshot.tags and backup and not named:
        job = replace(job, tags=(*job.tags, f"{tags.BACKUP}={backup}"))
    return _move(repository, lock, source, job, progress=progress, base=snapshot)


def _content(repository: Repository, snapshot: Snapshot, volume: str) -> ContentList:
    node = volume_image(repository, snapshot, volume)
    return load_content(repository, node, f"snapshot {snapshot.id}: {image_path(volume)}")


def _parent(repository: Repository, parent: str, volume: str) -> Snapshot | Fallback:
    """Give the snapshot to start from, or why there is none. Raises InterimSnapshot."""
    try:
        snapshot = tags.find(repository, parent)
        tags.refuse_interim(snapshot, "--parent")
        volume_image(repository, snapshot, volume)
    except (SnapshotNotFound, VolumeNotFound) as error:
        return Fallback(Reason.BASE_MISSING, f"--parent {parent}: {error}")
    except RepositoryDamaged as error:
        return Fallback(Reason.BASE_DAMAGED, str(error))
    return snapshot


def _start(
    repository: Repository, source: Source, job: VolumeJob, base: Snapshot | Fallback | None
) -> tuple[ContentList, Changes | None]:
    """Give what is started from, and what may differ from it if a change source was asked."""
    if isinstance(base, Fallback):
        if job.changes is None or not job.changes.from_zeros:
            return ContentList(), compare(source, base.reason, base.message)
        base = None  # what is allocated counts from zeros: nobody needs the parent for it
    try:
        content = _content(repository, base, job.name) if base else ContentList()
    except RepositoryDamaged as error:
        # The source has everything: where the base lacks something, all is read, and it heals.
        return ContentList(), compare(source, Reason.BASE_DAMAGED, str(error))
    if job.changes is None:
        return content, None
    changes = find_changes(job.changes, source, partial(_recorded_extents, repository, base, job.name))
    if job.changes.from_zeros and not changes.fallback:
        cut = _cut_by(content) or job.chunk_size or chunk_size(source.size)
        content = zero_content(source.size, cut)
    return content, changes


def _cut_by(base: ContentList) -> int | None:
    """Give the size by which a base of ours was cut: with other boundaries all would be stored again."""
    length = base.lengths[0] if len(base) else 0
    return length if length >= _LEAST_CHUNK and length.bit_count() == 1 else None


def _recorded_extents(repository: Repository, snapshot: Snapshot | None, volume: str) -> ExtentMap:
    try:
        text = volume_extents(repository, snapshot, volume) if snapshot else None
    except RepositoryDamaged as error:
        raise ChangesUnknown(Reason.BASE_DAMAGED, str(error)) from error
    if text is None:
        raise ChangesUnknown(Reason.NO_EXTENT_MAP, "no extent map was recorded with the base")
    return ExtentMap.decode(text)


def _extents_to_record(path: Path) -> tuple[bytes | None, Result]:
    """Give the encoded map, and what the result says of it; without one, later moves compare."""
    try:
        found = read_extents(path)
    except ChangesUnknown as unknown:
        return None, {"recorded": False, "reason": unknown.reason, "message": str(unknown)}
    return found.encode(), {"recorded": True, "count": len(found.logical)}


def _move(
    repository: Repository,
    lock: Lock,
    source: Source,
    job: VolumeJob,
    *,
    progress: Progress,
    base: Snapshot | Fallback | None,
) -> Result:
    check_volume_name(job.name)
    all_tags = tags.own_tags(job.moment, tags.INTERIM if job.interim else tags.PART, job.name, job.tags)
    begun = datetime.now(UTC)
    content, changes = _start(repository, source, job, base)
    extents, extents_result = _extents_to_record(job.extents_of) if job.extents_of else (None, None)
    with BlobWriter(repository, lock) as writer:
        if job.changes and job.changes.from_zeros and changes and not changes.fallback:
            for length in set(content.lengths):  # what stays zero is not stored by retime
                writer.store(BlobType.DATA, bytes(length))
        done = retime(
            content,
            changes.ranges if changes else Ranges.everything(source.size),
            source,
            writer=writer,
            progress=progress,
            chunk_size=job.chunk_size or chunk_size(source.size),
            sample=random.SystemRandom() if changes and changes.source is not SourceName.COMPARE else None,
        )
        del content  # two lists of a volume of many TiB, and the tree beside them, are too much
        tree = store_volume(writer, job.name, done.content, job.moment, extents)
        writer.flush()
        added = writer.bytes_added
    snapshot = Snapshot(
        tree=tree,
        time=job.moment,
        paths=(image_path(job.name),),
        tags=all_tags,
        hostname=socket.gethostname(),
        username=user_name(),
        program_version=f"coeval {__version__}",
        summary=_summary(begun, done, added),
    )
    snapshot_id = repository.save_snapshot(snapshot)
    return {
        "snapshot": snapshot_id,
        "volume": job.name,
        "as_of": go_time(job.moment),
        "interim": job.interim,
        **_how(changes, done, source, compared=base is not None),
        **({"extents": extents_result} if extents_result else {}),
        "bytes_total": source.size,
        "bytes_read": done.bytes_read,
        "bytes_changed": done.bytes_changed,
        "bytes_added": added,
        "chunks": len(done.content),
        "chunks_changed": done.chunks_changed,
        "chunks_sampled": done.chunks_sampled,
        "seconds": round((datetime.now(UTC) - begun).total_seconds(), 3),
    }


def _how(changes: Changes | None, done: Retimed, source: Source, *, compared: bool) -> Result:
    """Say how it is known what differs; nothing is asked of a first full copy."""
    if changes is None:
        return {"change_source": SourceName.COMPARE if compared else None}
    reported = changes.reported
    if done.sample_contradicts:
        message = f"{changes.source} left out blocks that differ; everything was read and compared"
        changes = compare(source, Reason.SAMPLE_CONTRADICTS, message)
    result: Result = {"change_source": changes.source}
    if reported is not None:
        result["bytes_reported"] = reported
    if changes.fallback:
        result["fallback"] = {"reason": changes.fallback.reason, "message": changes.fallback.message}
    return result


def _summary(begun: datetime, done: Retimed, added: int) -> dict[str, Any]:
    # `restic snapshots` shows the size from here.
    return {
        "backup_start": go_time(begun),
        "backup_end": go_time(datetime.now(UTC)),
        "files_new": 0,
        "files_changed": 1,
        "files_unmodified": 0,
        "dirs_new": 0,
        "dirs_changed": 3,
        "dirs_unmodified": 0,
        "data_blobs": done.chunks_changed,
        "tree_blobs": 4,
        "data_added": done.bytes_changed,
        "data_added_packed": added,
        "total_files_processed": 1,
        "total_bytes_processed": done.content.size,
    }
