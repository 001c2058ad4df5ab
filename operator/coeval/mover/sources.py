"""Sources: a volume's bytes at one moment, from an image file or a block device. Never written to."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Protocol

from coeval.mover.errors import SourceSizeMismatch, SourceUnreadable


class Source(Protocol):
    """The bytes of one volume at one moment. Used by one thread at a time."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` with the bytes from `offset`; give how many were really read.

        0 means a hole: all zero, and `view` is left as it was. Raises SourceUnreadable, SourceSizeMismatch.
        """

    def data_from(self, offset: int) -> int:
        """Give the first offset from `offset` on where there may be data; the size if there is none."""

    def close(self) -> None:
        """Let go of the source."""


def open_source(path: Path) -> Source:
    """Open an image file or a block device. Raises SourceUnreadable."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISBLK(mode):
            return DeviceSource(path)
        if stat.S_ISREG(mode):
            return FileSource(path)
    except OSError as error:
        raise SourceUnreadable(f"--source {path}: {error.strerror}") from error
    raise SourceUnreadable(f"--source {path}: neither a file nor a block device")


class FileSource:
    """An image file. Its holes are found by SEEK_DATA and SEEK_HOLE and never read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size
        self._data = (0, 0)  # the stretch of data found last
        self._holes = True

    def read_into(self, offset: int, view: memoryview) -> int:
        """See Source."""
        end = offset + len(view)
        at, read = offset, 0
        while at < end:
            begin, stop = self._next_data(at)
            begin, stop = min(begin, end), min(stop, end)
            if begin > at and (read or begin < end):
                view[at - offset : begin - offset] = bytes(begin - at)
            if begin < stop:
                _read_exactly(self._file, self._path, begin, view[begin - offset : stop - offset])
                read += stop - begin
            at = stop
        return read

    def data_from(self, offset: int) -> int:
        """See Source."""
        return self._next_data(offset)[0]

    def close(self) -> None:
        """See Source."""
        os.close(self._file)

    def _next_data(self, at: int) -> tuple[int, int]:
        """Give the first stretch of data that ends after `at`; (size, size) if there is none."""
        if not self._data[0] <= at < self._data[1]:
            begin = self._seek(at, os.SEEK_DATA, otherwise=at)
            # A file without an extent map, or one that became shorter, counts as data: reading it tells.
            self._data = (
                (begin, self._seek(begin, os.SEEK_HOLE, otherwise=self.size))
                if begin < self.size
                else (at, at)
            )
        begin, stop = self._data
        return (max(begin, at), stop) if stop > at else (self.size, self.size)

    def _seek(self, at: int, whence: int, otherwise: int) -> int:
        if not self._holes:
            return otherwise
        try:
            return os.lseek(self._file, at, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data up to the end, or the end came nearer
                if os.fstat(self._file).st_size < self.size:
                    raise SourceSizeMismatch(f"{self._path}: it became shorter while it was read") from error
                return self.size
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                self._holes = False
                return otherwise
            raise SourceUnreadable(f"{self._path}: at byte {at}: {error.strerror}") from error


class DeviceSource:
    """A block device, read around the page cache where it lets us: the data is used once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            self._direct = True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._direct = False
        self.size = os.lseek(self._file, 0, os.SEEK_END)

    def read_into(self, offset: int, view: memoryview) -> int:
        """See Source."""
        if self._direct:
            try:
                done = os.preadv(self._file, [view], offset)
                if done == len(view):
                    return done
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise SourceUnreadable(f"{self._path}: at byte {offset}: {error.strerror}") from error
            # Not aligned for this device, or a short read: take the way through the cache from here on.
            os.close(self._file)
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._direct = False
        _read_exactly(self._file, self._path, offset, view)
        return len(view)

    def data_from(self, offset: int) -> int:
        """See Source. A device does not tell."""
        return offset

    def close(self) -> None:
        """See Source."""
        os.close(self._file)


def _read_exactly(file: int, path: Path, offset: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        try:
            count = os.preadv(file, [view[done:]], offset + done)
        except OSError as error:
            raise SourceUnreadable(f"{path}: at byte {offset + done}: {error.strerror}") from error
        if not count:
            raise SourceSizeMismatch(
                f"{path}: it ends at byte {offset + done}, earlier than when it was opened"
            )
        done += count
