"""A store whose listing lags behind what was written: never wrong bytes, never a lost snapshot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from coeval.repository.errors import RepositoryDamaged, SnapshotNotFound
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.store import Kind
from coeval.repository.writer import BlobWriter

from tests.tools.repositories import PASSWORD, MemoryStore, new_repository


class LaggingStore(MemoryStore):
    """Objects are there, and read by name, while `hidden` keeps them out of listings."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: set[Kind] = set()

    def entries(self, kind: Kind) -> Iterator[tuple[str, int]]:
        return iter(()) if kind in self.hidden else super().entries(kind)


@pytest.fixture
def lagging() -> LaggingStore:
    return LaggingStore()


def write(repository: Repository, content: bytes) -> bytes:
    with repository.lock() as lock, BlobWriter(repository, lock) as writer:
        blob_id = writer.store(BlobType.DATA, content)
        writer.flush()
    return blob_id


def test_blobs_of_an_unseen_index_are_stored_again_and_never_misread(lagging: LaggingStore) -> None:
    new_repository(lagging)
    first = write(Repository.open(lagging, PASSWORD), b"content" * 99)
    lagging.hidden = {Kind.INDEX}
    reader = Repository.open(lagging, PASSWORD)
    with pytest.raises(RepositoryDamaged, match=f"{first.hex()} is in no index"):
        reader.load_blob(BlobType.DATA, first)
    assert write(Repository.open(lagging, PASSWORD), b"content" * 99) == first
    lagging.hidden = set()
    seeing = Repository.open(lagging, PASSWORD)
    assert len(seeing.index.find(BlobType.DATA, first)) == 2
    assert seeing.load_blob(BlobType.DATA, first) == b"content" * 99


def test_a_snapshot_is_found_by_its_id_without_a_listing(lagging: LaggingStore) -> None:
    repository = new_repository(lagging)
    lagging.hidden = {Kind.SNAPSHOT}
    written = repository.save_file(
        Kind.SNAPSHOT, b'{"time": "2026-01-01T00:00:00Z", "tree": "' + b"ab" * 32 + b'", "paths": []}'
    )
    assert repository.snapshot(written).id == written
    with pytest.raises(SnapshotNotFound, match="no snapshot has the id"):
        repository.snapshot(written[:12])
    with pytest.raises(SnapshotNotFound, match="there is no snapshot"):
        repository.snapshot("cd" * 32)
