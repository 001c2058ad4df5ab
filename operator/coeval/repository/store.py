"""The store port: named, write-once objects of a few kinds. All that a repository needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Protocol
from urllib.parse import unquote, urlsplit

from coeval.repository.crypto import Bytes
from coeval.repository.errors import InvalidArgument


class Kind(Enum):
    """Kinds of object; the value is the folder in restic's default layout."""

    CONFIG = "config"
    KEY = "keys"
    PACK = "data"
    INDEX = "index"
    SNAPSHOT = "snapshots"
    LOCK = "locks"
    PROBE = "tmp"
    """Scratch objects of ours; restic does not look there."""


CONFIG_NAME = "config"


class Store(Protocol):
    """Write-once objects. Every method may raise RepositoryUnreachable, a writing one RepositoryFull."""

    def save(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> None:
        """Write the parts as one object. It is there whole and durable when this returns, or not at all."""

    def create(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> bool:
        """Write as `save` does, but only if there is no such object: False if there was."""

    def load(self, kind: Kind, name: str) -> bytes:
        """Read a whole object. Raises ObjectMissing."""

    def load_range(self, kind: Kind, name: str, offset: int, length: int) -> bytes:
        """Read exactly these bytes of an object. Raises ObjectMissing, RepositoryDamaged if it is shorter."""

    def entries(self, kind: Kind) -> Iterator[tuple[str, int]]:
        """Give name and size in bytes of every object of a kind, in no order. Foreign names are left out."""

    def remove(self, kind: Kind, name: str) -> None:
        """Remove an object; no error if it is gone. Needs no new space in the store."""

    def sweep(self) -> int:
        """Remove what writers that died long ago left beside the objects; give the number."""


def open_store(url: str) -> Store:
    """Give the store behind a URL: `file:///path`. Raises InvalidArgument."""
    from coeval.repository.file_store import FileStore  # noqa: PLC0415  (one store's imports only when it is used)

    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidArgument(
                f"--repository {url}: a file URL has three slashes and an absolute path: file:///path"
            )
        return FileStore(unquote(parts.path))
    if parts.scheme in ("s3", "gs", "az"):
        raise InvalidArgument(
            f"--repository {url}: {parts.scheme}:// stores are not there yet; use file:///path"
        )
    raise InvalidArgument(f"--repository {url}: no such kind of store; use file:///path")
