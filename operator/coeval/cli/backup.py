"""`coeval commit` and `coeval verify`: make a backup of its parts, and prove that one can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coeval.cli import options as o
from coeval.cli.session import Access, Output, Result, with_repository, with_unlocked
from coeval.mover.progress import Progress
from coeval.repository.lock import Lock
from coeval.repository.repository import Repository


def commit(
    *,
    repository: o.Url,
    password_file: o.PasswordFile,
    snapshot: Annotated[list[str], typer.Option("--snapshot", help="A part; give each volume's.")],
    manifest: Annotated[
        list[Path] | None, typer.Option("--manifest", help="A file for /vm/; may be repeated.")
    ] = None,
    tag: o.Tags = None,
    forget_parts: Annotated[
        bool, typer.Option("--forget-parts", help="Then remove the parts and interim copies of this backup.")
    ] = False,
    limit_upload: o.LimitUpload = None,
    result: o.ResultFile = None,
) -> None:
    """Join the parts of one moment into one backup."""
    from coeval.mover.commit import CommitJob  # noqa: PLC0415  (help must be fast)
    from coeval.mover.commit import commit as run  # noqa: PLC0415

    def work(opened: Repository, lock: Lock, _: Progress) -> Result:
        job = CommitJob(tuple(snapshot), tuple(manifest or ()), tuple(tag or ()), forget_parts)
        return run(opened, lock, job)

    with_repository(Access(repository, password_file, limit_upload), Output(result), "commit", work)


def verify(
    *,
    repository: o.Url,
    password_file: o.PasswordFile,
    snapshot: o.Backup,
    sample: Annotated[
        str, typer.Option("--sample", help="Share of each file's chunks to read, like 1%.")
    ] = "100%",
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Unlist damaged packs: the next backup stores them again."),
    ] = False,
    progress: o.ProgressOption = None,
    result: o.ResultFile = None,
) -> None:
    """Read a snapshot's data again and prove that it is sound. Exit 3 names the damage.

    Others may use the repository meanwhile; what --repair does at the end, it does only if it is alone then.
    """
    from coeval.mover.verify import parse_sample, verify_beside_others  # noqa: PLC0415  (help must be fast)

    def work(opened: Repository, shown: Progress) -> Result:
        return verify_beside_others(opened, snapshot, parse_sample(sample), shown, repair=repair)

    with_unlocked(Access(repository, password_file), Output(result, progress), "verify", work)
