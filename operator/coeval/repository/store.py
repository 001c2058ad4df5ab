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

STALE_AFTER_SECONDS = 24 * 3600
"""What lies beside the objects and is this old belongs to a writer that died: writing takes seconds."""


def label(kind: Kind, name: str) -> str:
    """Name an object in messages."""
    return CONFIG_NAME if kind is Kind.CONFIG else f"{kind.value}/{name}"


class Store(Protocol):
    """Write-once objects.

    Every method may raise RepositoryUnreachable, CredentialsRefused, BucketNotFound; a writing one
    RepositoryFull, too.
    """

    def save(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> None:
        """Write the parts as one object. It is there whole and durable when this returns, or not at all."""

    def create(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> bool:
        """Write as `save` does, but only if there is no such object: False if there was."""

    def load(self, kind: Kind, name: str) -> bytes:
        """Read a whole object. Raises ObjectMissing."""

    def load_range(self, kind: Kind, name: str, offset: int, length: int) -> bytes:
        """Read exactly these bytes, one or more. Raises ObjectMissing, RepositoryDamaged if it is shorter."""

    def entries(self, kind: Kind) -> Iterator[tuple[str, int]]:
        """Give name and size in bytes of every object of a kind, in no order. Foreign names are left out."""

    def remove(self, kind: Kind, name: str) -> None:
        """Remove an object; no error if it is gone. Needs no new space in the store."""

    def sweep(self) -> int:
        """Remove what writers that died long ago left beside the objects; give the number."""


class Place(Store, Protocol):
    """A store that knows what else is where it is."""

    def folders(self) -> list[str]:
        """Give the names of the folders beside the store's objects, its own among them."""


def open_store(url: str) -> Place:
    """Give the store behind a URL: `file:///path`, `s3://bucket/prefix`, `gs://…`, `az://…`.

    Raises InvalidArgument. Credentials come from the environment: see `cloud`.
    """
    parts = urlsplit(url)
    # One store's imports only when it is used.
    if parts.scheme in ("s3", "gs", "az"):
        from coeval.repository.cloud import open_cloud  # noqa: PLC0415

        return open_cloud(url)
    if parts.scheme != "file":
        raise InvalidArgument(
            f"--repository {url}: no such kind of store; use file:///path, s3://bucket/prefix, gs://… or az://…"
        )
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise InvalidArgument(
            f"--repository {url}: a file URL has three slashes and an absolute path: file:///path"
        )
    from coeval.repository.file_store import FileStore  # noqa: PLC0415

    return FileStore(unquote(parts.path))
