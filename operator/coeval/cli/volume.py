"""`coeval volume`: copy a volume in, move the copy to another moment, restore it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coeval.cli import options as o
from coeval.cli.session import Access, Output, Result, with_repository
from coeval.mover.progress import Progress
from coeval.repository.errors import InvalidArgument
from coeval.repository.lock import Lock
from coeval.repository.repository import Repository

app = typer.Typer(no_args_is_help=True, help="Copy, retime and restore volumes.")


@app.command()
def copy(
    *,
    repository: o.Url,
    password_file: o.PasswordFile,
    name: o.Name,
    source: o.SourcePath,
    as_of: o.AsOf = None,
    interim: Annotated[
        bool, typer.Option("--interim", help="To be retimed: shows no moment to keep.")
    ] = False,
    parent: Annotated[
        str | None,
        typer.Option(
            "--parent", help="Snapshot to start from, or `latest`; without changes named, compare all."
        ),
    ] = None,
    changed: o.Changed = None,
    changed_from: o.From = None,
    metadata_address: o.MetadataAddress = None,
    metadata_ca: o.MetadataCa = None,
    metadata_token_file: o.MetadataToken = None,
    snapshot_namespace: o.SnapshotNamespace = None,
    snapshot_name: o.SnapshotName = None,
    base_handle: o.BaseHandle = None,
    record_extents: o.RecordExtents = False,
    init: Annotated[bool, typer.Option("--init", help="Make the repository if there is none.")] = False,
    tag: o.Tags = None,
    limit_upload: o.LimitUpload = None,
    progress: o.ProgressOption = None,
    result: o.ResultFile = None,
) -> None:
    """Copy a volume into the repository."""
    from coeval.cli.changes import Asked  # noqa: PLC0415  (help must be fast)
    from coeval.mover import tags, volumes  # noqa: PLC0415
    from coeval.mover.sources import open_source  # noqa: PLC0415

    def work(opened: Repository, lock: Lock, shown: Progress) -> Result:
        if parent is None and (changed is not None or base_handle is not None):
            raise InvalidArgument("--changed and --base-handle need --parent, from which the changes count")
        moment = tags.parse_moment("--as-of", as_of)
        asked = Asked(
            changed,
            changed_from,
            metadata_address,
            metadata_ca,
            metadata_token_file,
            snapshot_namespace,
            snapshot_name,
            base_handle,
        )
        job = volumes.VolumeJob(
            name,
            moment,
            tuple(tag or ()),
            interim=interim,
            changes=asked.source(source, delta=False),
            extents_of=source if record_extents else None,
        )
        volume = open_source(source)
        try:
            return volumes.copy_volume(opened, lock, volume, job, progress=shown, parent=parent)
        finally:
            volume.close()

    access = Access(repository, password_file, limit_upload)
    with_repository(access, Output(result, progress), f"copy {name}", work, init=init)


@app.command()
def retime(
    *,
    repository: o.Url,
    password_file: o.PasswordFile,
    name: o.Name,
    snapshot: o.Snapshot,
    source: o.SourcePath,
    as_of: Annotated[str, typer.Option("--as-of", help="T1: the moment that the source shows (RFC 3339).")],
    changed: o.Changed = None,
    changed_from: o.From = None,
    metadata_address: o.MetadataAddress = None,
    metadata_ca: o.MetadataCa = None,
    metadata_token_file: o.MetadataToken = None,
    snapshot_namespace: o.SnapshotNamespace = None,
    snapshot_name: o.SnapshotName = None,
    base_handle: o.BaseHandle = None,
    record_extents: o.RecordExtents = False,
    compare: Annotated[bool, typer.Option("--compare", help="Read all and compare (the default).")] = False,
    tag: o.Tags = None,
    limit_upload: o.LimitUpload = None,
    progress: o.ProgressOption = None,
    result: o.ResultFile = None,
) -> None:
    """Move the copy in a snapshot to T1, by the changed ranges or by comparing."""
    from coeval.cli.changes import Asked  # noqa: PLC0415  (help must be fast)
    from coeval.mover import tags, volumes  # noqa: PLC0415
    from coeval.mover.sources import open_source  # noqa: PLC0415

    def work(opened: Repository, lock: Lock, shown: Progress) -> Result:
        if (changed or changed_from) and compare:
            raise InvalidArgument("--compare excludes --changed and --changed-from")
        moment = tags.parse_moment("--as-of", as_of)
        asked = Asked(
            changed,
            changed_from,
            metadata_address,
            metadata_ca,
            metadata_token_file,
            snapshot_namespace,
            snapshot_name,
            base_handle,
        )
        job = volumes.VolumeJob(
            name,
            moment,
            tuple(tag or ()),
            changes=asked.source(source, delta=True),
            extents_of=source if record_extents else None,
        )
        volume = open_source(source)
        try:
            return volumes.retime_volume(opened, lock, volume, job, progress=shown, snapshot_id=snapshot)
        finally:
            volume.close()

    access = Access(repository, password_file, limit_upload)
    with_repository(access, Output(result, progress), f"retime {name}", work)


@app.command()
def restore(
    *,
    repository: o.Url,
    password_file: o.PasswordFile,
    snapshot: o.Backup,
    name: o.Name,
    target: Annotated[Path, typer.Option("--target", help="File or block device to write.")],
    sparse: Annotated[bool, typer.Option("--sparse", help="Leave zeros of a file as holes.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="The target need not be empty.")] = False,
    progress: o.ProgressOption = None,
    result: o.ResultFile = None,
) -> None:
    """Write a volume of a snapshot to a file or a block device."""
    from coeval.mover import tags  # noqa: PLC0415  (help must be fast)
    from coeval.mover.restore import restore_volume  # noqa: PLC0415
    from coeval.mover.targets import open_target  # noqa: PLC0415

    def work(opened: Repository, _: Lock, shown: Progress) -> Result:
        found = tags.find(opened, snapshot)
        place = open_target(target, sparse=sparse, overwrite=overwrite)
        try:
            return restore_volume(opened, found.id, name, place, progress=shown)
        finally:
            place.close()

    with_repository(Access(repository, password_file), Output(result, progress), f"restore {name}", work)
