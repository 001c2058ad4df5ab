"""Volumes and snapshots as files: an image each, and a JSON record beside it that makes it exist.

The record is the commit point: it comes after the image and goes before it, by rename. So whatever kills the
driver, an image without a record is a half-made or half-deleted one, and is discarded at the next start.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

FICLONE: Final = 0x40049409
HANDLE: Final = re.compile(r"(?:vol|snap)-[0-9a-f]{16}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Volume:
    """`mode` is Block or Filesystem; `source` the handle of the snapshot or volume it came from, or ""."""

    handle: str
    name: str
    size_bytes: int
    mode: str
    source: str


@dataclass(frozen=True)
class Snapshot:
    """A snapshot. `taken_ns` is a time in Unix nanoseconds after which no write is in it."""

    handle: str
    name: str
    size_bytes: int
    mode: str
    volume: str
    taken_ns: int


Record = TypeVar("Record", Volume, Snapshot)


def new_handle(prefix: str) -> str:
    """A handle never used before; handles sort by age, so that paging by handle repeats and skips none."""
    return f"{prefix}-{time.time_ns():016x}-{secrets.token_hex(4)}"


def clone(source: int, target: int) -> None:
    """Make `target` share all data of `source`: atomic against writers, and no data is copied.

    XFS holds both inodes locked and lets direct writes that are under way finish first, so the copy is the
    file at one moment. OSError EOPNOTSUPP if the filesystem has no reflinks.
    """
    fcntl.ioctl(target, FICLONE, source)


def _sync_directory(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Shelf(Generic[Record]):
    """One folder of images and records. Calls for one name or handle must not overlap: see rpc.EXCLUSIVE."""

    def __init__(self, folder: Path, kind: type[Record]) -> None:
        """Read what is there and discard the unfinished. Raises ValueError for a record without image."""
        self._folder = folder
        self._records: dict[str, Record] = {}
        folder.mkdir(exist_ok=True)
        for path in folder.glob("*.json"):
            record = kind(**json.loads(path.read_text()))
            if not self.image(record.handle).exists():
                raise ValueError(f"{path} has no image beside it: the store is damaged")
            self._records[record.handle] = record
            self._follow(record)
        for path in folder.iterdir():
            if path.suffix == ".new" or path.stem not in self._records:
                path.unlink()

    def image(self, handle: str) -> Path:
        return self._folder / f"{handle}.img"

    def get(self, handle: str) -> Record | None:
        return self._records.get(handle)

    def named(self, name: str) -> Record | None:
        return next((record for record in self.all() if record.name == name), None)

    def all(self) -> list[Record]:
        """Oldest first."""
        return [record for _handle, record in sorted(self._records.copy().items())]

    def add(self, handle: str, fill: Callable[[int], Record], reached: Callable[[str], None]) -> Record:
        """Make an image and record it; `fill` gets the descriptor of its empty file and gives the record."""
        image = self.image(handle)
        new = image.with_suffix(".new")
        try:
            with new.open("xb") as file:
                record = fill(file.fileno())
                os.fsync(file.fileno())
            reached("copied")
            new.rename(image)
            self._write(record)
        except BaseException:
            self._record_file(handle).unlink(missing_ok=True)
            new.unlink(missing_ok=True)
            image.unlink(missing_ok=True)
            raise
        reached("recorded")
        return record

    def grow(self, record: Record) -> None:
        """Replace a record by one with a bigger size, and let the image follow."""
        self._write(record)
        self._follow(record)

    def _follow(self, record: Record) -> None:
        """The record leads: an image that is too short was left by a driver killed while growing it."""
        image = self.image(record.handle)
        if image.stat().st_size < record.size_bytes:
            os.truncate(image, record.size_bytes)

    def remove(self, handle: str) -> None:
        """Forget a record and delete its image; an unknown one is gone already."""
        if handle not in self._records:
            return
        self._record_file(handle).unlink()
        del self._records[handle]
        _sync_directory(self._folder)
        self.image(handle).unlink()

    def _record_file(self, handle: str) -> Path:
        return self._folder / f"{handle}.json"

    def _write(self, record: Record) -> None:
        path = self._record_file(record.handle)
        new = self._folder / f"{record.handle}.json.new"
        with new.open("w") as file:
            json.dump(asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        _sync_directory(self._folder)
        self._records[record.handle] = record
