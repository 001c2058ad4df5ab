"""`coeval repo`: make, probe and clean a repository."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from coeval.cli import options as o
from coeval.cli.session import Access, Output, Result, perform, with_repository
from coeval.mover.progress import Progress
from coeval.repository.errors import InvalidArgument, RepositoryNotFound

app = typer.Typer(no_args_is_help=True, help="Make, probe and clean a repository.")


@app.command()
def init(
    *,
    repository: o.Url,
    password_file: o.PasswordFile,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="An existing repository is fine.")] = False,
    result: o.ResultFile = None,
) -> None:
    """Make a repository (restic format, version 2)."""
    access = Access(repository, password_file)

    def action(_: Progress) -> Result:
        opened, created = access.init()
        if not created and not if_absent:
            raise InvalidArgument(
                f"--repository {repository} exists already; say --if-absent if that is fine"
            )
        return {"repository": opened.config.id, "created": created}

    perform(Output(result), action)


@app.command()
def probe(
    *,
    repository: o.Url,
    password_file: o.PasswordFile,
    vms: Annotated[
        bool, typer.Option("--vms", help="Open one of the VMs' repositories below it, too, if there is one.")
    ] = False,
    result: o.ResultFile = None,
) -> None:
    """Prove that the store can be written, read and cleaned, and that the password fits what is there."""
    access = Access(repository, password_file)

    def action(_: Progress) -> Result:
        access.prove()
        found = None
        with suppress(RepositoryNotFound):
            found = access.open().config.id
        opened = {"opened": access.open_one_below()} if vms else {}
        return {"writable": True, "repository": found} | opened

    perform(Output(result), action)


@app.command()
def forget(
    *,
    repository: o.Url,
    password_file: o.PasswordFile,
    snapshot: o.Snapshots = None,
    tag: o.Tags = None,
    parts_only: Annotated[bool, typer.Option("--parts-only", help="Only parts and interim copies.")] = False,
    result: o.ResultFile = None,
) -> None:
    """Remove snapshots by id, or all that bear every tag. Their data goes with `restic prune`."""
    from coeval.mover.commit import forget as run  # noqa: PLC0415  (help must be fast)

    ids, tags = tuple(snapshot or ()), tuple(tag or ())
    with_repository(
        Access(repository, password_file),
        Output(result),
        "forget",
        lambda opened, _lock, _progress: run(opened, ids, tags, parts_only=parts_only),
        lock_needed=False,
    )
