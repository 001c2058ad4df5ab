"""What is mounted in this mount namespace; bind mounts, and the freeze of a mounted filesystem."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FIFREEZE: Final = 0xC0045877
FITHAW: Final = 0xC0045878

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo: where, and the device number (st_dev) of the filesystem."""

    point: Path
    device: int
    read_only: bool


def _decode(field: str) -> str:
    """Blanks and the like are octal escapes in mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def table() -> list[Mount]:
    """All mounts of this namespace, oldest first."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        _id, _parent, device, _root, point, options, *_rest = line.split(" ")
        major, minor = device.split(":")
        numbers = os.makedev(int(major), int(minor))
        mounts.append(Mount(Path(_decode(point)), numbers, "ro" in options.split(",")))
    return mounts


def at(point: Path) -> Mount | None:
    """The mount that one sees at `point`: the last one, should several lie on each other."""
    found = [mount for mount in table() if mount.point == point]
    return found[-1] if found else None


def of_device(device: int) -> list[Mount]:
    """Mounts of the filesystem on this device, and the bind mounts of its device node."""
    return [mount for mount in table() if device in (mount.device, node_at(mount.point))]


def node_at(point: Path) -> int:
    """The device number of the block device node that one sees here; 0 if there is none."""
    # No look behind paths that a pod's network mount may block: only a node mounted by itself is asked for.
    with suppress(OSError):
        status = os.lstat(point)
        return status.st_rdev if stat.S_ISBLK(status.st_mode) else 0
    return 0


def run(*command: str) -> str:
    """Run a program; its output, or OSError with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise OSError(errno.EIO, f"{' '.join(command)}: {said or f'exit code {done.returncode}'}")
    return done.stdout


def mount(device: Path, point: Path, filesystem: str, options: list[str]) -> None:
    flags = ["-o", ",".join(options)] if options else []
    run("mount", "-t", filesystem, *flags, str(device), str(point))


def bind(source: Path, target: Path, *, read_only: bool) -> None:
    """Bind-mount. Read-only takes two steps, so that a caller who finds a mount has to look at its flag."""
    run("mount", "-o", "bind,ro" if read_only else "bind", str(source), str(target))


def unmount(point: Path) -> None:
    """Take away every mount at `point`; none is fine."""
    while at(point) is not None:
        run("umount", str(point))


@contextmanager
def _directory(point: Path) -> Iterator[int]:
    fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def thaw(point: Path) -> bool:
    """Thaw the filesystem at `point`; False if it was not frozen."""
    with _directory(point) as fd:
        try:
            fcntl.ioctl(fd, FITHAW, 0)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
    return True


@contextmanager
def frozen(point: Path) -> Iterator[None]:
    """Hold the filesystem at `point` frozen: all that was written is on its device, and nothing changes."""
    with _directory(point) as fd:
        # Most of the dirty data goes out while writers still run, so that the freeze itself is short.
        if _libc.syncfs(fd):
            raise OSError(ctypes.get_errno(), f"syncfs of {point} failed")
        fcntl.ioctl(fd, FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(fd, FITHAW, 0)
