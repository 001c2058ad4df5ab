"""Content lists: a volume's bytes as a row of chunks, each the id and length of a blob."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from coeval.repository.crypto import hash_id
from coeval.repository.errors import RepositoryDamaged
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.tree import Node

CHUNK_SIZE = 512 << 10
"""Bytes of a chunk, aligned to the volume. Changes of guests are small and scattered: 1 MiB would store 1.7
times as much for the same change, and 256 KiB makes a first copy an eighth slower."""

LARGE_CHUNK, LARGE_VOLUME = 1 << 20, 256 << 30
"""A volume larger than this is cut in larger chunks: their list is kept in memory, and stored every time."""

MAX_CHUNK = 16 << 20
"""Chunks that another writer made may have any length up to this (restic makes at most 8 MiB)."""


def chunk_size(volume: int) -> int:
    """Give the size of the chunks of a new volume of so many bytes."""
    return CHUNK_SIZE if volume <= LARGE_VOLUME else LARGE_CHUNK


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

    def offsets(self) -> array[int]:
        """Give where each chunk begins, and at the end the size: 8 bytes a chunk."""
        return array("Q", accumulate(self.lengths, initial=0))

    def extend(self, length: int, count: int = 1) -> None:
        """Put chunks at the end whose content is not known yet."""
        self.ids += bytes(32 * count)
        self.lengths.extend(array("I", [length]) * count)

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

    def stretches(self) -> Iterator[tuple[int, int]]:
        """Give the first slot and the number of neighbouring chunks that are the same, mostly one.

        A long stretch, as a large hole is, comes in several, each as long as those before it together.
        """
        slot = 0
        while slot < len(self):
            blob_id, count = self.id(slot), 1
            while (more := min(count, len(self) - slot - count)) and (
                self.ids[32 * (slot + count) : 32 * (slot + count + more)] == blob_id * more
            ):
                count += more
            yield slot, count
            slot += count


def zero_content(size: int, chunk_size: int) -> ContentList:
    """Make the content list of a volume of zeros. Whoever uses it stores the zero chunks themselves."""
    content = ContentList()
    for length, count in ((chunk_size, size // chunk_size), (size % chunk_size, 1)):
        if length and count:
            content.ids += hash_id(bytes(length)) * count
            content.lengths.extend(array("I", [length]) * count)
    return content


def load_content(repository: Repository, node: Node, label: str) -> ContentList:
    """Make the content list of a file from its node; the index knows the lengths.

    Raises RepositoryDamaged where a blob is in no index, or the lengths do not add up to the file's size.
    """
    content = ContentList(bytearray(node.content))
    index = repository.index
    before, length = b"", 0
    for at in range(0, len(node.content), 32):
        blob_id = bytes(node.content[at : at + 32])
        if blob_id == before:  # a stretch of zeros
            content.lengths.append(length)
            continue
        found = index.length(BlobType.DATA, blob_id)
        if found is None:
            raise RepositoryDamaged(f"{label}: {repository.missing(BlobType.DATA, blob_id)}")
        before, length = blob_id, found
        if not 0 < length <= MAX_CHUNK:
            raise RepositoryDamaged(
                f"{label}: data blob {blob_id.hex()} has an impossible length of {length} bytes"
            )
        content.lengths.append(length)
    if content.size != node.size:
        raise RepositoryDamaged(f"{label}: its blobs have {content.size} bytes, its size is {node.size}")
    return content
