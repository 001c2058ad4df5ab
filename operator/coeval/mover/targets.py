"""Targets of a restore: an image file that appears whole under its name, or a block device."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from coeval.mover.errors import TargetUnusable
from coeval.mover.output import Output

BLKZEROOUT = 0x127F
"""linux/fs.h: zero a range (two u64: offset, length), by unmapping where the device can."""

_EDGE = 1 << 20
_SAMPLES = 64
_ZEROS = bytes(1 << 20)


class Target(Protocol):
    """Where a volume is restored to. `write` may be called by several threads."""

    def prepare(self, size: int, data: int) -> None:
        """Make sure that `size` bytes, `data` of them not zero, fit and harm nobody; or TargetUnusable."""

    def write(self, offset: int, parts: Sequence[bytes]) -> None:
        """Write parts one behind the other."""

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zero."""

    def finish(self) -> None:
        """Make everything durable, and visible under the target's name."""

    def close(self) -> None:
        """Let go; what was not finished disappears where it can."""


def open_target(path: Path, *, sparse: bool, overwrite: bool) -> Target:
    """Choose the kind of target. Raises TargetUnusable."""
    try:
        if path.exists() and stat.S_ISBLK(path.stat().st_mode):
            return DeviceTarget(path, overwrite=overwrite)
        if path.exists() and not path.is_file():
            raise TargetUnusable(f"--target {path} is neither a file nor a block device")
        return FileTarget(path, sparse=sparse, overwrite=overwrite)
    except OSError as error:
        raise TargetUnusable(f"--target {path}: {error.strerror}") from error


class FileTarget:
    """An image file, written under a temporary name beside it. `sparse` leaves zeros as holes."""

    def __init__(self, path: Path, *, sparse: bool, overwrite: bool) -> None:
        if not overwrite and path.exists() and _has_data(path):
            raise TargetUnusable(f"--target {path} is not empty; name another file or say --overwrite")
        self._path = path
        self._sparse = sparse
        # One fixed name: what a killed restore left is taken over by the next, and the lock keeps two apart.
        self._partial = path.with_name(f".{path.name}.coeval-partial")
        self._file = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        self._finished = False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise TargetUnusable(f"--target {path}: another restore is writing {self._partial}") from None
        self._output = Output(self._file, self._partial, path)

    def prepare(self, size: int, data: int) -> None:
        """See Target."""
        needed = data if self._sparse else size
        with _errors(self._path):
            space = os.fstatvfs(self._file)
        if space.f_bavail * space.f_frsize < needed:
            free = space.f_bavail * space.f_frsize
            raise TargetUnusable(
                f"--target {self._path} needs {needed} bytes, but only {free} are free there"
            )
        with _errors(self._path):
            os.ftruncate(self._file, 0)
            os.ftruncate(self._file, size)
            if size and not self._sparse:
                os.posix_fallocate(self._file, 0, size)
            self._output.begin()

    def write(self, offset: int, parts: Sequence[bytes]) -> None:
        """See Target."""
        self._output.write(offset, parts)

    def zero(self, offset: int, length: int) -> None:
        """See Target. The file was empty: nothing to do."""

    def finish(self) -> None:
        """See Target."""
        with _errors(self._path):
            os.fsync(self._file)
            self._partial.rename(self._path)
            self._finished = True
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        """See Target."""
        with _errors(self._path):
            try:
                if not self._finished:
                    with suppress(FileNotFoundError):
                        self._partial.unlink()
            finally:
                _close(self._output, self._file)


class DeviceTarget:
    """A block device, opened exclusively: the kernel refuses that while it is mounted or part of a set."""

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise TargetUnusable(f"--target {path} is mounted or in use") from None
            raise
        self._output = Output(self._file, path, path)
        self._overwrite = overwrite
        try:
            self._size = os.lseek(self._file, 0, os.SEEK_END)
        except OSError:
            os.close(self._file)  # or nobody else could open it
            raise
        self._zeroes = True

    def prepare(self, size: int, data: int) -> None:
        """See Target."""
        if self._size < size:
            raise TargetUnusable(
                f"--target {self._path} has {self._size} bytes, the volume {size}; it must be grown"
            )
        if not self._overwrite and not self._looks_empty():
            raise TargetUnusable(
                f"--target {self._path} is not empty; name another device or say --overwrite"
            )
        with _errors(self._path):
            self._output.begin()

    def write(self, offset: int, parts: Sequence[bytes]) -> None:
        """See Target."""
        self._output.write(offset, parts)

    def zero(self, offset: int, length: int) -> None:
        """See Target."""
        if length and self._zeroes:
            try:
                fcntl.ioctl(self._file, BLKZEROOUT, struct.pack("QQ", offset, length))
                return
            except OSError:
                # Not aligned to its sectors, or a device without the call: writing zeros comes to the same.
                self._zeroes = offset % 4096 != 0 or length % 4096 != 0
        for at in range(offset, offset + length, len(_ZEROS)):
            self._output.write(at, [_ZEROS[: min(len(_ZEROS), offset + length - at)]])

    def finish(self) -> None:
        """See Target."""
        with _errors(self._path):
            os.fsync(self._file)

    def close(self) -> None:
        """See Target."""
        with _errors(self._path):
            _close(self._output, self._file)

    def _looks_empty(self) -> bool:
        """Look where labels lie (partitions, filesystems, LVM, RAID: both ends) and at pages in between."""
        step = max(4096, self._size // _SAMPLES // 4096 * 4096)
        places = [(0, _EDGE), (max(0, self._size - _EDGE), _EDGE)]
        places += [(at, 4096) for at in range(0, self._size, step)]
        with _errors(self._path):
            return not any(os.pread(self._file, length, at).strip(b"\0") for at, length in places)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn an OSError into TargetUnusable."""
    try:
        yield
    except OSError as error:
        raise TargetUnusable(f"--target {path}: {error.strerror}") from error


def _has_data(path: Path) -> bool:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.lseek(file, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        return os.fstat(file).st_size > 0
    finally:
        os.close(file)
    return True


def _close(output: Output, file: int) -> None:
    try:
        output.close()
    finally:
        os.close(file)
