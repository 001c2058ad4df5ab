"""A store in a folder, in restic's default layout, so that `restic -r FOLDER` opens it.

Not obstore's local store: that one (0.12.1, by its system calls) syncs neither file nor folder, and writes
its temporary files beside the packs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from coeval.repository import direct
from coeval.repository.crypto import Bytes
from coeval.repository.errors import (
    ObjectMissing,
    RepositoryDamaged,
    RepositoryFull,
    RepositoryUnreachable,
)
from coeval.repository.store import CONFIG_NAME, STALE_AFTER_SECONDS, Kind, label

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NAME = re.compile(r"[0-9a-f]{64}")
# restic derives its own modes from the config's: with group access, movers of one group share a volume.
_FILE_MODE = 0o440
_DIR_ACCESS = 0o770


class FileStore:
    """Objects as files. Written under tmp/, made durable, then moved to their name in one step."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def save(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> None:
        """See Store."""
        target = self._path(kind, name)
        with (
            self._errors(f"cannot write {label(kind, name)}", missing=True),
            self._written(parts) as temporary,
        ):
            self._ensure(target.parent)
            temporary.rename(target)
            _sync(target.parent)

    def create(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> bool:
        """See Store. A link, unlike a rename, never replaces."""
        target = self._path(kind, name)
        with (
            self._errors(f"cannot write {label(kind, name)}", missing=True),
            self._written(parts) as temporary,
        ):
            self._ensure(target.parent)
            try:
                target.hardlink_to(temporary)
            except FileExistsError:
                return False
            _sync(target.parent)
        return True

    def load(self, kind: Kind, name: str) -> bytes:
        """See Store."""
        with self._reading(kind, name):
            return self._path(kind, name).read_bytes()

    def load_range(self, kind: Kind, name: str, offset: int, length: int) -> bytes:
        """See Store."""
        with self._reading(kind, name):
            file = os.open(self._path(kind, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(file, length, offset)
                while 0 < len(data) < length:
                    more = os.pread(file, length - len(data), offset + len(data))
                    if not more:
                        break
                    data += more
            finally:
                os.close(file)
        if len(data) != length:
            raise RepositoryDamaged(
                f"{label(kind, name)} is truncated: it ends before byte {offset + length}"
            )
        return data

    def entries(self, kind: Kind) -> Iterator[tuple[str, int]]:
        """See Store."""
        if kind is Kind.CONFIG:
            with self._errors("cannot look for the config"), suppress(FileNotFoundError):
                yield CONFIG_NAME, self._path(kind, CONFIG_NAME).stat().st_size
            return
        folder = self.root / kind.value
        for place in self._subfolders(folder) if kind is Kind.PACK else [folder]:
            yield from self._files(place)

    def remove(self, kind: Kind, name: str) -> None:
        """See Store."""
        target = self._path(kind, name)
        with self._errors(f"cannot remove {kind.value}/{name}"), suppress(FileNotFoundError):
            target.unlink()
            _sync(target.parent)

    def sweep(self) -> int:
        """See Store."""
        removed = 0
        with self._errors("cannot clean tmp/"), suppress(FileNotFoundError):
            for path in (self.root / Kind.PROBE.value).iterdir():
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > STALE_AFTER_SECONDS:
                        path.unlink()
                        removed += 1
        return removed

    def folders(self) -> list[str]:
        """See Place."""
        with self._errors("cannot list its folders"), suppress(FileNotFoundError):
            return [entry.name for entry in self.root.iterdir() if entry.is_dir()]
        return []

    def _path(self, kind: Kind, name: str) -> Path:
        if kind is Kind.CONFIG:
            return self.root / CONFIG_NAME
        if kind is Kind.PACK:
            return self.root / str(kind.value) / name[:2] / name
        return self.root / str(kind.value) / name

    def _subfolders(self, folder: Path) -> list[Path]:
        with self._errors(f"cannot list {folder.name}/"), suppress(FileNotFoundError):
            return [entry for entry in folder.iterdir() if len(entry.name) == 2 and entry.is_dir()]
        return []

    def _files(self, folder: Path) -> list[tuple[str, int]]:
        found = []
        with (
            self._errors(f"cannot list {folder.name}/"),
            suppress(FileNotFoundError),
            os.scandir(folder) as entries,
        ):
            for entry in entries:
                # An object may go away while we look: a lock, or a snapshot that another mover forgets.
                with suppress(FileNotFoundError):
                    if _NAME.fullmatch(entry.name) and entry.is_file():
                        found.append((entry.name, entry.stat().st_size))
        return found

    @contextmanager
    def _written(self, parts: Sequence[Bytes]) -> Iterator[Path]:
        folder = self.root / Kind.PROBE.value
        self._ensure(folder)
        path = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                self._write(file, parts)
                os.fchmod(file, _FILE_MODE)
                os.fsync(file)
            finally:
                os.close(file)
            yield path
        finally:
            with suppress(FileNotFoundError):
                path.unlink()

    def _write(self, file: int, parts: Sequence[Bytes]) -> None:
        if sum(map(len, parts)) < direct.AT_ONCE or not self._write_around(file, parts):
            _write_all(file, parts)

    def _write_around(self, file: int, parts: Sequence[Bytes]) -> bool:
        """Write around the page cache; False if the filesystem wants it otherwise."""
        buffer = direct.buffer()
        try:
            fcntl.fcntl(file, fcntl.F_SETFL, os.O_DIRECT)
            size = 0
            for filled in direct.fill(buffer, parts):
                blocks = -(-filled // direct.BLOCK)  # what the last one has too much is cut off again
                direct.write_at(file, size, buffer[: blocks * direct.BLOCK])
                size += filled
            os.ftruncate(file, size)
        except OSError as error:
            if not direct.refused(error):
                raise
            fcntl.fcntl(file, fcntl.F_SETFL, 0)
            os.ftruncate(file, 0)
            return False
        return True

    def _ensure(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._ensure(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
            with suppress(PermissionError):  # somebody of our group made it in between
                folder.chmod(folder.stat().st_mode | _DIR_ACCESS)
            _sync(folder.parent)

    @contextmanager
    def _reading(self, kind: Kind, name: str) -> Iterator[None]:
        try:
            with self._errors(f"cannot read {label(kind, name)}"):
                yield
        except FileNotFoundError:
            raise ObjectMissing(f"{label(kind, name)} is missing from {self.root}") from None

    @contextmanager
    def _errors(self, what: str, *, missing: bool = False) -> Iterator[None]:
        """Turn an OSError into our failure; FileNotFoundError only where `missing` says so."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not missing:
                raise
            message = f"{self.root}: {what}: {error.strerror}"
            if error.errno in _FULL:
                raise RepositoryFull(f"{message}; free space or forget and prune old backups") from error
            raise RepositoryUnreachable(message) from error


def _write_all(file: int, parts: Sequence[Bytes]) -> None:
    views = [memoryview(part) for part in parts]
    while views:
        written = os.writev(file, views[: os.sysconf("SC_IOV_MAX")])
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    except OSError as error:
        # Some network filesystems cannot sync a folder; they order the operations themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(file)
