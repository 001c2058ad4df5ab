"""Commit: join the parts of one moment into the one snapshot that is the backup."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from coeval import __version__
from coeval.mover import tags
from coeval.mover.errors import DifferentMoments
from coeval.mover.layout import store_manifests, store_root, volume_trees
from coeval.mover.volumes import Result
from coeval.repository.errors import InvalidArgument
from coeval.repository.keys import user_name
from coeval.repository.lock import Lock
from coeval.repository.repository import Repository
from coeval.repository.snapshot import Snapshot
from coeval.repository.tree import go_time
from coeval.repository.writer import BlobWriter


@dataclass(frozen=True)
class CommitJob:
    """What a commit is asked for."""

    parts: tuple[str, ...]
    manifests: tuple[Path, ...] = ()
    tags: tuple[str, ...] = ()
    forget_parts: bool = False


def commit(repository: Repository, lock: Lock, job: CommitJob) -> Result:
    """Join parts by the ids of their folders. Done twice, it gives the first commit again: Jobs are retried.

    Raises InterimSnapshot, DifferentMoments, InvalidArgument.
    """
    begun = datetime.now(UTC)
    damaged: list[str] = []  # of other backups, or found out when it is read as a part
    everything = repository.snapshots(damaged)
    done = _already(everything, job.parts)
    snapshot = done or _join(repository, lock, job)
    forgotten = _forget_parts(repository, everything, snapshot) if job.forget_parts else []
    return {
        "snapshot": snapshot.id,
        "as_of": tags.value(snapshot, tags.AS_OF),
        "volumes": sorted(volume_trees(repository, snapshot)),
        "already_committed": done is not None,
        "forgotten": len(forgotten),
        "passed_over": damaged,
        "bytes_total": snapshot.summary.get("total_bytes_processed", 0),
        "bytes_added": 0 if done else snapshot.summary.get("data_added_packed", 0),
        "seconds": round((datetime.now(UTC) - begun).total_seconds(), 3),
    }


def _join(repository: Repository, lock: Lock, job: CommitJob) -> Snapshot:
    begun = datetime.now(UTC)
    parts = [repository.snapshot(prefix) for prefix in job.parts]
    _refuse(parts)
    volumes: dict[str, bytes] = {}
    for part in parts:
        for name, tree in volume_trees(repository, part).items():
            if name in volumes:
                raise InvalidArgument(f"--snapshot {part.id[:8]}: volume {name} is in another part already")
            volumes[name] = tree
    moment = tags.as_of(parts[0])
    backup = tags.value(parts[0], tags.BACKUP)
    extra = list(job.tags)
    if backup and not any(tag.startswith(f"{tags.BACKUP}=") for tag in extra):
        extra.insert(0, f"{tags.BACKUP}={backup}")
    all_tags = tags.own_tags(moment, None, None, extra)
    with BlobWriter(repository, lock) as writer:
        manifests = store_manifests(writer, list(job.manifests))
        tree = store_root(writer, volumes, manifests, moment)
        writer.flush()
        added = writer.bytes_added
    total = sum(int(part.summary.get("total_bytes_processed", 0)) for part in parts)
    snapshot = Snapshot(
        tree=tree,
        time=moment,
        paths=("/disks", "/vm") if manifests else ("/disks",),
        tags=all_tags,
        hostname=socket.gethostname(),
        username=user_name(),
        program_version=f"coeval {__version__}",
        joined=tuple(part.id for part in parts),
        summary={
            "backup_start": go_time(begun),
            "backup_end": go_time(datetime.now(UTC)),
            "data_added_packed": added,
            "total_files_processed": len(volumes) + len(manifests),
            "total_bytes_processed": total + sum(node.size for node in manifests.values()),
        },
    )
    return replace(snapshot, id=repository.save_snapshot(snapshot))


def _refuse(parts: list[Snapshot]) -> None:
    """Refuse what may not be joined: interim copies, what is no part, different moments or backups."""
    for part in parts:
        tags.refuse_interim(part)
        if tags.MARK not in part.tags or tags.PART not in part.tags:
            raise InvalidArgument(f"--snapshot {part.id[:8]} is not a part: `coeval volume copy` makes one")
        for key in (tags.AS_OF, tags.BACKUP):
            first, this = tags.value(parts[0], key), tags.value(part, key)
            if first != this:
                raise DifferentMoments(
                    f"--snapshot {part.id[:8]} has {key}={this}, but {parts[0].id[:8]} has {key}={first}; "
                    "a backup joins volumes of one moment only"
                )


def _already(everything: list[Snapshot], parts: tuple[str, ...]) -> Snapshot | None:
    """Give the snapshot that joined just these parts, if there is one."""
    for snapshot in everything:
        joined = snapshot.joined
        if len(joined) == len(parts) and all(any(name.startswith(part) for name in joined) for part in parts):
            return snapshot
    return None


def _forget_parts(repository: Repository, everything: list[Snapshot], committed: Snapshot) -> list[str]:
    """Remove the joined parts, and what else was made for the same backup and is not a commit."""
    backup = tags.value(committed, tags.BACKUP)
    doomed = [
        snapshot.id
        for snapshot in everything
        if snapshot.id in committed.joined
        or (
            backup
            and tags.MARK in snapshot.tags
            and tags.value(snapshot, tags.BACKUP) == backup
            and (tags.INTERIM in snapshot.tags or tags.PART in snapshot.tags)
        )
    ]
    for snapshot_id in doomed:
        repository.forget(snapshot_id)
    return doomed


def forget(
    repository: Repository, ids: tuple[str, ...], wanted: tuple[str, ...], *, parts_only: bool
) -> Result:
    """Remove snapshot objects by id, or all that bear every wanted tag. Raises SnapshotNotFound for an id."""
    if bool(ids) == bool(wanted):
        raise InvalidArgument("give either --snapshot or --tag")
    damaged: list[str] = []
    if ids:
        doomed = [repository.snapshot(prefix) for prefix in ids]
    else:
        for tag in wanted:
            tags.check_tag(tag)
        doomed = [snapshot for snapshot in repository.snapshots(damaged) if set(wanted) <= set(snapshot.tags)]
    if parts_only:
        doomed = [s for s in doomed if tags.INTERIM in s.tags or tags.PART in s.tags]
    for snapshot in doomed:
        repository.forget(snapshot.id)
    return {"forgotten": [snapshot.id for snapshot in doomed], "passed_over": damaged}
