"""Debian roots: the one that compiles against libvirt, and the ones that images are made of."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.build import run_reporting
from tests.cluster.host import NotPossible

SUITE = "trixie"


def packages(path: Path) -> tuple[str, ...]:
    """The package names in a list: one a line, `#` starts a comment."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return tuple(line for line in lines if line)


def make_root(root: Path, include: Iterable[str], *, variant: str, label: str) -> None:
    """Installs packages and what they depend on into the new folder `root`.

    `variant` is mmdebstrap's: `minbase` is a system; `extract` only unpacks, which is fast, and the packages
    must bring busybox. Raises BuildFailed.
    """
    options = [f"--variant={variant}", f"--include={','.join(include)}", "--format=directory"]
    command = ["nice", "-n", "10", "mmdebstrap", "--mode=root", *options, SUITE, str(root)]
    run_reporting(command, label, 120, root.parent)
    if variant == "extract":
        _make_usable(root)


def _make_usable(root: Path) -> None:
    """Gives unpacked packages the links that base-files would bring, and busybox as shell and tools."""
    for name in ("bin", "sbin", "lib", "lib64"):
        link = root / name
        if not link.exists() and (root / "usr" / name).is_dir():
            link.symlink_to(f"usr/{name}")
    subprocess.run(["chroot", str(root), "/bin/busybox", "--install", "-s"], check=True)


@contextmanager
def temporary_root(root: Path, include: Iterable[str], *, variant: str, label: str) -> Iterator[Path]:
    """A root that is gone afterwards, whatever happens."""
    try:
        make_root(root, include, variant=variant, label=label)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def inside(root: Path, binds: Iterable[Path], script: str, *arguments: str) -> list[str]:
    """The command that runs a shell script inside a root, with folders of this machine at the same paths.

    The mounts live in a mount namespace of the command's own, so nothing is left when it ends or is killed.
    """
    prepare = ['set -eu; root="$1"; shift']
    for path in binds:
        prepare.append(f'mkdir -p "$root{path}"; mount --bind "{path}" "$root{path}"')
    prepare.append(
        'mkdir -p "$root/proc"; mount -t proc proc "$root/proc"; exec chroot "$root" /bin/sh -euc "$@"'
    )
    unshare = ["nice", "-n", "10", "unshare", "--mount", "--propagation", "private"]
    return [*unshare, "sh", "-c", "\n".join(prepare), "sh", str(root), script, "sh", *arguments]


def require(program: str) -> None:
    """Fails early, saying what installs it."""
    if shutil.which(program) is None:
        raise NotPossible(f"{program} is not there; python -m tests.cluster build installs what is missing")
