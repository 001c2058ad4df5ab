"""Copying a volume into the repository and moving a copy to T1: the engine, then one snapshot object."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from coeval import __version__
from coeval.mover import tags
from coeval.mover.content import CHUNK_SIZE, ContentList, load_content
from coeval.mover.errors import SourceSizeMismatch
from coeval.mover.layout import check_volume_name, image_path, store_volume, volume_image
from coeval.mover.progress import Progress
from coeval.mover.ranges import Ranges
from coeval.mover.retime import Retimed, retime
from coeval.mover.sources import Source
from coeval.repository.errors import RepositoryDamaged
from coeval.repository.keys import user_name
from coeval.repository.lock import Lock
from coeval.repository.repository import Repository
from coeval.repository.snapshot import Snapshot
from coeval.repository.tree import go_time
from coeval.repository.writer import BlobWriter

Result = dict[str, Any]
"""What a command says at its end: one JSON object."""


@dataclass(frozen=True)
class VolumeJob:
    """What a copy or a retime is asked for. `chunk_size` in bytes, for volumes that are new."""

    name: str
    moment: datetime
    tags: tuple[str, ...] = ()
    interim: bool = False
    changed: Ranges | None = None
    chunk_size: int = CHUNK_SIZE


def copy_volume(
    repository: Repository,
    lock: Lock,
    source: Source,
    job: VolumeJob,
    *,
    progress: Progress,
    parent: str | None = None,
) -> Result:
    """Copy a volume; with a parent and changed ranges, read only those. It becomes a part, or interim."""
    base = _Base(ContentList())
    if parent is not None:
        snapshot = repository.snapshot(parent)
        tags.refuse_interim(snapshot, "--parent")
        base = _base(repository, snapshot, job.name)
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
    base = _base(repository, snapshot, job.name)
    backup = tags.value(snapshot, tags.BACKUP)
    named = any(tag.startswith(f"{tags.BACKUP}=") for tag in job.tags)
    if tags.INTERIM in snapshot.tags and backup and not named:
        job = replace(job, tags=(*job.tags, f"{tags.BACKUP}={backup}"))
    return _move(repository, lock, source, job, progress=progress, base=base)


@dataclass(frozen=True)
class _Base:
    """What a volume is moved on from. Of a damaged one nothing is used, and `damage` says why."""

    content: ContentList
    damage: str | None = None


def _base(repository: Repository, snapshot: Snapshot, volume: str) -> _Base:
    """Load the base. The source has everything: where the base lacks something, all is read, and it heals."""
    try:
        node = volume_image(repository, snapshot, volume)
        return _Base(load_content(repository, node, f"snapshot {snapshot.id}: {image_path(volume)}"))
    except RepositoryDamaged as error:
        return _Base(ContentList(), str(error))


def _move(
    repository: Repository,
    lock: Lock,
    source: Source,
    job: VolumeJob,
    *,
    progress: Progress,
    base: _Base,
) -> Result:
    check_volume_name(job.name)
    all_tags = tags.own_tags(job.moment, tags.INTERIM if job.interim else tags.PART, job.name, job.tags)
    if job.changed and job.changed.size != source.size:
        raise SourceSizeMismatch(
            f"--changed is for a volume of {job.changed.size} bytes, but --source has {source.size}"
        )
    changed = None if base.damage else job.changed
    begun = datetime.now(UTC)
    with BlobWriter(repository, lock) as writer:
        done = retime(
            base.content,
            changed or Ranges.everything(source.size),
            source,
            writer=writer,
            progress=progress,
            chunk_size=job.chunk_size,
            sample=random.SystemRandom() if changed else None,
        )
        tree = store_volume(writer, job.name, done.content, job.moment)
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
        "differences": "Ranges" if changed and not done.sample_contradicts else "Compare",
        "sample_contradicts": done.sample_contradicts,
        "base_damage": base.damage,
        "bytes_total": source.size,
        "bytes_read": done.bytes_read,
        "bytes_changed": done.bytes_changed,
        "bytes_added": added,
        "chunks": len(done.content),
        "chunks_changed": done.chunks_changed,
        "chunks_sampled": done.chunks_sampled,
        "seconds": round((datetime.now(UTC) - begun).total_seconds(), 3),
    }


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
