"""restic's lock objects. Any number of plain locks stand side by side; an exclusive one stands alone.

Nothing in the store enforces them: one writes a lock, then looks for others, so that of two the later
one sees the earlier. A listing may lag: before it looks, an exclusive lock waits, ours as restic's. One of
two that exclude each other is exclusive, so that a plain lock need not wait as well, unless the listing is
seen to lag: it then lacks the lock itself.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol

from coeval.repository.documents import MALFORMED, parse_document
from coeval.repository.errors import (
    DataPlaneError,
    ObjectMissing,
    RepositoryDamaged,
    RepositoryFull,
    RepositoryLocked,
)
from coeval.repository.keys import user_name
from coeval.repository.snapshot import parse_go_time
from coeval.repository.store import Kind

SETTLE_SECONDS = 0.2
"""restic's own wait between writing a lock and looking for others."""
REFRESH_SECONDS = 300.0
STALE_SECONDS = 1800.0
"""restic takes a lock for abandoned at this age, or at once if its process on this host is gone."""
LOST_SECONDS = STALE_SECONDS - 1.5 * REFRESH_SECONDS
"""Without a refresh for this long we stop writing, before others may take our lock for abandoned."""


class LockFiles(Protocol):
    """What a lock needs of the repository."""

    def names(self, kind: Kind) -> Iterator[str]:
        """Names of all objects of a kind."""

    def load_file(self, kind: Kind, name: str) -> bytes:
        """Read, authenticate and decompress an object."""

    def seal_file(self, plaintext: bytes) -> tuple[str, bytes]:
        """Compress and encrypt an object; give its name and bytes."""

    def save_sealed(self, kind: Kind, name: str, sealed: bytes) -> None:
        """Store a sealed object."""

    def remove(self, kind: Kind, name: str) -> None:
        """Remove an object."""


@dataclass(frozen=True)
class LockInfo:
    """What a lock object says."""

    name: str
    time: datetime
    exclusive: bool
    hostname: str
    username: str
    pid: int

    @classmethod
    def parse(cls, name: str, text: bytes) -> LockInfo:
        """Parse a lock object. Raises ValueError."""
        try:
            doc = parse_document(text)
            texts = (str(doc.get("hostname", "")), str(doc.get("username", "")))
            return cls(
                name, parse_go_time(doc["time"]), bool(doc["exclusive"]), *texts, int(doc.get("pid", 0))
            )
        except MALFORMED as error:
            raise ValueError(str(error)) from error

    def stale(self, now: datetime) -> bool:
        """Judge as restic does whether the lock's owner is gone."""
        if (now - self.time).total_seconds() > STALE_SECONDS:
            return True
        return self.hostname == socket.gethostname() and not _alive(self.pid)


class Lock:
    """A plain or an exclusive lock for as long as the `with` block runs, refreshed meanwhile."""

    def __init__(self, files: LockFiles, *, needed: bool = True, exclusive: bool = False) -> None:
        """Where a lock is not `needed`, a full store does not stop us: deleting must work there."""
        self._files = files
        self._needed = needed
        self._exclusive = exclusive
        self._names: list[str] = []
        self._stop = threading.Event()
        self._refreshed = time.monotonic()
        self._thread = threading.Thread(target=self._keep_fresh, name="lock", daemon=True)

    def __enter__(self) -> Lock:
        try:
            self._refuse_others()
            try:
                self._write()
            except RepositoryFull:
                if self._needed:
                    raise
                return self
            if self._exclusive or not self._refuse_others():
                time.sleep(SETTLE_SECONDS)
                self._refuse_others()
        except BaseException:
            self._remove_all()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._remove_all()
        except DataPlaneError:
            # A failure to clean up must not hide what went wrong; the lock turns stale by itself.
            if value is None:
                raise

    def check(self) -> None:
        """Raise RepositoryLocked if others may by now have taken the repository from us."""
        if self._names and time.monotonic() - self._refreshed > LOST_SECONDS:
            raise RepositoryLocked(
                "our lock could not be refreshed in time; nothing was committed, run it again"
            )

    def _write(self) -> None:
        doc = {
            "time": datetime.now(UTC).isoformat(),
            "exclusive": self._exclusive,
            "hostname": socket.gethostname(),
            "username": user_name(),
            "pid": os.getpid(),
            "uid": os.getuid(),
            "gid": os.getgid(),
        }
        name, sealed = self._files.seal_file(json.dumps(doc, separators=(",", ":")).encode())
        self._names.append(name)  # first, so that a signal in the middle of writing still removes it
        self._files.save_sealed(Kind.LOCK, name, sealed)

    def _remove_all(self) -> None:
        while self._names:
            self._files.remove(Kind.LOCK, self._names[0])
            self._names.pop(0)

    def _keep_fresh(self) -> None:
        while not self._stop.wait(REFRESH_SECONDS):
            with suppress(DataPlaneError):  # check() stops us in time if this goes on failing
                begun = time.monotonic()
                self._write()
                self._refreshed = begun
                while len(self._names) > 1:
                    self._files.remove(Kind.LOCK, self._names[0])
                    self._names.pop(0)

    def _refuse_others(self) -> bool:
        """Raise RepositoryLocked for a lock that excludes ours; tell whether ours was listed among them."""
        now = datetime.now(UTC)
        listed = False
        for lock in read_locks(self._files):
            if lock.name in self._names:
                listed = True
            elif lock.stale(now):
                self._files.remove(Kind.LOCK, lock.name)
            elif lock.exclusive or self._exclusive:
                how = " exclusively" if lock.exclusive else ""
                raise RepositoryLocked(
                    f"the repository is locked{how} by pid {lock.pid} of {lock.username} on "
                    f"{lock.hostname} since {lock.time.isoformat()} (locks/{lock.name}); "
                    "wait for it to end, or run `restic unlock` if it is gone"
                )
        return listed


def read_locks(files: LockFiles) -> list[LockInfo]:
    """Read all locks. One that vanishes meanwhile is not there. Raises RepositoryDamaged."""
    found = []
    for name in files.names(Kind.LOCK):
        try:
            found.append(LockInfo.parse(name, files.load_file(Kind.LOCK, name)))
        except ObjectMissing:
            continue
        except (RepositoryDamaged, ValueError) as error:
            raise RepositoryDamaged(
                f"locks/{name} is damaged ({error}); make sure that nobody uses the repository, "
                "then `restic unlock --remove-all`"
            ) from error
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
