"""Content lists: a volume's bytes as a row of chunks, each the id and length of a blob."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from coeval.repository.crypto import hash_id
from coeval.repository.errors import RepositoryDamaged
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.tree import Node

CHUNK_SIZE = 1 << 20
"""Bytes of a chunk, aligned to the volume. Changes of guests are small and scattered: 4 MiB would store about
three times as much for the same change, 256 KiB would need four times the index."""

MAX_CHUNK = 16 << 20
"""Chunks that another writer made may have any length up to this (restic makes at most 8 MiB)."""


@dataclass
class ContentList:
    """Chunks in order. 36 bytes a chunk: 36 MiB for a TiB."""

    ids: bytearray = field(default_factory=bytearray)
    lengths: array[int] = field(default_factory=lambda: array("I"))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def size(self) -> int:
        """Bytes of the volume."""
        return sum(self.lengths)

    def id(self, slot: int) -> bytes:
        """Give a chunk's id."""
        return bytes(self.ids[32 * slot : 32 * slot + 32])

    def set_id(self, slot: int, blob_id: bytes) -> None:
        """Set a chunk's id."""
        self.ids[32 * slot : 32 * slot + 32] = blob_id

    def append(self, blob_id: bytes, length: int) -> None:
        """Put a chunk at the end."""
        self.ids += blob_id
        self.lengths.append(length)

    def extents(self) -> Iterator[tuple[int, int, int]]:
        """Give slot, offset and length of every chunk."""
        offset = 0
        for slot, length in enumerate(self.lengths):
            yield slot, offset, length
            offset += length


def zero_content(size: int, chunk_size: int) -> ContentList:
    """Make the content list of a volume of zeros. Whoever uses it stores the zero chunks themselves."""
    content = ContentList()
    for length, count in ((chunk_size, size // chunk_size), (size % chunk_size, 1)):
        if length and count:
            content.ids += hash_id(bytes(length)) * count
            content.lengths.extend([length] * count)
    return content


def load_content(repository: Repository, node: Node, label: str) -> ContentList:
    """Make the content list of a file from its node; the index knows the lengths.

    Raises RepositoryDamaged where a blob is in no index, or the lengths do not add up to the file's size.
    """
    content = ContentList(bytearray(node.content))
    for at in range(0, len(node.content), 32):
        blob_id = node.content[at : at + 32]
        places = repository.index.find(BlobType.DATA, blob_id)
        if not places:
            raise RepositoryDamaged(f"{label}: {repository.missing(BlobType.DATA, blob_id)}")
        length = places[0].plaintext_length
        if not 0 < length <= MAX_CHUNK:
            raise RepositoryDamaged(
                f"{label}: data blob {blob_id.hex()} has an impossible length of {length} bytes"
            )
        content.lengths.append(length)
    if content.size != node.size:
        raise RepositoryDamaged(f"{label}: its blobs have {content.size} bytes, its size is {node.size}")
    return content
