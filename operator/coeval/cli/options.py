"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from coeval.mover.progress import ProgressStyle


class ChangedFrom(StrEnum):
    """Who is asked what changed."""

    CSI = "csi"
    CSI_THROUGH_EXTENTS = "csi-through-extents"


Url = Annotated[
    str,
    typer.Option(
        "--repository",
        help="file:///path, s3://bucket/prefix, gs://… or az://… of the repository.",
        metavar="URL",
    ),
]
PasswordFile = Annotated[Path, typer.Option("--password-file", help="File with the repository's password.")]
LimitUpload = Annotated[
    float | None, typer.Option("--limit-upload", help="Write at most this fast.", metavar="MIB_PER_SECOND")
]
ResultFile = Annotated[Path | None, typer.Option("--result", help="Write the result there, too.")]
ProgressOption = Annotated[ProgressStyle | None, typer.Option("--progress", help="How to show progress.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Tag key=value; may be repeated.")]
Snapshot = Annotated[str, typer.Option("--snapshot", help="Snapshot id, or its beginning.")]
Backup = Annotated[
    str,
    typer.Option("--snapshot", help="Snapshot id, or its beginning; `latest`: the newest finished backup."),
]
Snapshots = Annotated[list[str] | None, typer.Option("--snapshot", help="Snapshot id; may be repeated.")]
Name = Annotated[str, typer.Option("--name", help="Name of the volume.")]
SourcePath = Annotated[Path, typer.Option("--source", help="Image file or block device to read.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="The moment that the source shows (RFC 3339).")]
Changed = Annotated[
    Path | None, typer.Option("--changed", help="JSON file: size, and ranges as pairs of offset and length.")
]
From = Annotated[
    ChangedFrom | None,
    typer.Option("--changed-from", help="Ask the driver; for an image file, through its extents."),
]
MetadataAddress = Annotated[
    str | None, typer.Option("--metadata-address", help="host:port of the SnapshotMetadata service.")
]
MetadataCa = Annotated[Path | None, typer.Option("--metadata-ca", help="PEM file that vouches for it.")]
MetadataToken = Annotated[
    Path | None,
    typer.Option("--metadata-token-file", help="Token of its audience; read anew when it is needed."),
]
SnapshotNamespace = Annotated[
    str | None, typer.Option("--snapshot-namespace", help="Namespace of the VolumeSnapshot.")
]
SnapshotName = Annotated[
    str | None,
    typer.Option("--snapshot-name", help="The later of the two, as VolumeSnapshot; it must be ready."),
]
BaseHandle = Annotated[
    str | None, typer.Option("--base-handle", help="The earlier of the two, by its handle at the driver.")
]
RecordExtents = Annotated[
    bool,
    typer.Option(
        "--record-extents", help="Record where the image file's blocks lie, for csi-through-extents."
    ),
]
