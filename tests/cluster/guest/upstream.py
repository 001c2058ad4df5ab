"""The test guest: a boot disk assembled from Debian packages, and what fills volumes with it."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

from tests.cluster.build import Target, Upstream, build_with_go, directory, ensure, run_reporting
from tests.cluster.kubevirt.debian import inside, packages, require, temporary_root

DISK_MEBIBYTES = 256
"""Of the boot disk. 49 MiB of it are for booting, the rest is the guest's first file system."""


def _build(upstream: Upstream, into: Path) -> None:
    require("mmdebstrap")
    build_with_go(upstream, into)
    for name in ("init", "disk.sh"):
        shutil.copyfile(upstream.wrapper / name, into / name)
    include = packages(upstream.wrapper / "packages.txt")
    with temporary_root(
        into / ".root", include, variant="extract", label="Debian packages of the guest"
    ) as root:
        script = f'cd "{into}" && exec sh disk.sh . {DISK_MEBIBYTES}'
        environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        run_reporting(inside(root, [into], script), "making the guest's boot disk", 60, into, environment)
    _compress(into / "disk.img", into / "disk.img.gz")


def _compress(source: Path, target: Path) -> None:
    """The same bytes for the same disk: no name and no time inside."""
    with (
        source.open("rb") as raw,
        target.open("wb") as packed,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=packed, mtime=0) as stream,
    ):
        shutil.copyfileobj(raw, stream, 1 << 20)


GUEST = Upstream(
    name="guest",
    targets=(Target("writer", "./writer", 15), Target("populate", "./populate", 15)),
    env=(("GOFLAGS", "-buildvcs=false"),),
    build=_build,
)


def boot_disk() -> Path:
    """The sparse boot disk, built if it is missing. Never write to it: copy it."""
    ensure([GUEST])
    return directory(GUEST) / "disk.img"


def populate_program() -> Path:
    """The program that makes volumes out of the boot disk; see build/guest/populate."""
    ensure([GUEST])
    return directory(GUEST) / "populate"
