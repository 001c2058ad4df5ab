"""What a copy does with a change source's word, and with its silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coeval.mover.changes.extents import ExtentMap
from coeval.mover.changes.service import Service
from coeval.mover.changes.sources import MESSAGE_LIMIT, Csi, CsiThroughExtents, Given
from coeval.mover.changes.unknown import ChangesUnknown, Reason
from coeval.mover.content import CHUNK_SIZE, LARGE_VOLUME, chunk_size
from coeval.mover.errors import SourceSizeMismatch
from coeval.mover.progress import Progress
from coeval.mover.ranges import Ranges
from coeval.mover.restore import restore_volume
from coeval.mover.sources import open_source
from coeval.mover.targets import FileTarget
from coeval.mover.volumes import VolumeJob, copy_volume
from coeval.repository.crypto import hash_id
from coeval.repository.errors import RepositoryDamaged
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.snapshot import parse_go_time

from tests.tools.metadata_server import Refuse, Reply, Sidecar, replies, sidecar

MIB = 1 << 20
SIZE = 40 * MIB
CHUNK = 64 * 1024
MOMENT = parse_go_time("2026-01-01T00:00:00Z")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with sidecar(tmp_path_factory.mktemp("sidecar")) as serving:
        yield serving


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A few blocks of data and no holes that a copy could see by itself."""
    path = tmp_path / "image"
    path.write_bytes(bytes(SIZE))
    write(path, 0, 5 * MIB, SIZE - 100)
    return path


def write(path: Path, *offsets: int) -> None:
    with path.open("r+b") as file:
        for offset in offsets:
            os.pwrite(file.fileno(), os.urandom(100), offset)


def copy(
    repository: Repository,
    image: Path,
    changes: Any,
    parent: str | None = None,
    *,
    chunk: int | None = CHUNK,
    name: str = "d",
    extents: bool = False,
) -> dict[str, Any]:
    source = open_source(image)
    try:
        with repository.lock() as held:
            recorded = image if extents else None
            job = VolumeJob(name, MOMENT, changes=changes, chunk_size=chunk, extents_of=recorded)
            return copy_volume(repository, held, source, job, progress=Progress(), parent=parent)
    finally:
        source.close()


def content(repository: Repository, snapshot: str, folder: Path) -> bytes:
    target = FileTarget(folder / "out", sparse=True, overwrite=True)
    restore_volume(repository, snapshot, "d", target, progress=Progress())
    target.close()
    return (folder / "out").read_bytes()


def test_a_first_copy_reads_what_is_allocated_and_a_sample(
    server: Sidecar, repository: Repository, image: Path, tmp_path: Path
) -> None:
    allocated = [(0, 4096), (5 * MIB, 4096), (SIZE - 4096, 4096)]
    server.handlers = [replies(Reply(allocated, SIZE))]
    done = copy(repository, image, Csi(server.service(), "snap"))
    assert (done["change_source"], done["bytes_reported"]) == ("CSI", 3 * 4096)
    assert done["chunks_sampled"] == 10
    assert done["bytes_read"] <= 3 * MIB + 10 * CHUNK
    assert content(repository, done["snapshot"], tmp_path) == image.read_bytes()


def test_a_parent_alone_is_compared_with_and_its_boundaries_stay(
    repository: Repository, image: Path, tmp_path: Path
) -> None:
    first = copy(repository, image, None)
    same = copy(repository, image, None, first["snapshot"], chunk=4 * CHUNK)
    assert same["change_source"] == "Compare" and "fallback" not in same
    assert (same["chunks"], same["chunks_changed"], same["bytes_changed"]) == (first["chunks"], 0, 0)
    assert same["bytes_read"] == SIZE
    write(image, 20 * MIB)
    later = copy(repository, image, None, same["snapshot"], chunk=4 * CHUNK)
    assert (later["chunks_changed"], later["bytes_changed"]) == (1, CHUNK)
    assert content(repository, later["snapshot"], tmp_path) == image.read_bytes()


def test_a_first_answer_about_allocation_keeps_the_parents_boundaries(
    server: Sidecar, repository: Repository, image: Path, tmp_path: Path
) -> None:
    first = copy(repository, image, None)
    allocated = [(0, 4096), (5 * MIB, 4096), (SIZE - 4096, 4096)]
    server.handlers = [replies(Reply(allocated, SIZE))]
    done = copy(repository, image, Csi(server.service(), "snap"), first["snapshot"], chunk=4 * CHUNK)
    assert (done["change_source"], done["chunks"]) == ("CSI", first["chunks"])
    assert done["bytes_read"] <= 3 * MIB + 10 * CHUNK
    assert content(repository, done["snapshot"], tmp_path) == image.read_bytes()


@pytest.mark.parametrize("parent", ["5" * 64, "of another volume"])
def test_a_parent_that_is_gone_means_that_everything_is_read(
    repository: Repository, image: Path, tmp_path: Path, parent: str
) -> None:
    if parent == "of another volume":
        parent = copy(repository, image, None, name="other")["snapshot"]
    done = copy(repository, image, Given(Ranges(SIZE, ())), parent)
    assert (done["change_source"], done["fallback"]["reason"]) == ("Compare", "BaseMissing")
    assert done["bytes_read"] == SIZE
    assert content(repository, done["snapshot"], tmp_path) == image.read_bytes()


def test_only_a_large_volume_is_cut_in_large_chunks(repository: Repository, image: Path) -> None:
    usual = copy(repository, image, None, chunk=None)
    assert usual["chunks"] == SIZE // CHUNK_SIZE
    assert chunk_size(SIZE) == chunk_size(LARGE_VOLUME) == CHUNK_SIZE < chunk_size(LARGE_VOLUME + 1)


def test_what_is_allocated_is_read_without_the_parent_too(
    server: Sidecar, repository: Repository, image: Path, tmp_path: Path
) -> None:
    allocated = [(0, 4096), (5 * MIB, 4096), (SIZE - 4096, 4096)]
    server.handlers = [replies(Reply(allocated, SIZE))]
    done = copy(repository, image, Csi(server.service(), "snap"), "5" * 64)
    assert (done["change_source"], "fallback" in done) == ("CSI", False)
    assert done["bytes_read"] <= 3 * MIB + 10 * CHUNK
    assert content(repository, done["snapshot"], tmp_path) == image.read_bytes()


def test_nothing_told_is_nothing_changed(
    server: Sidecar, repository: Repository, image: Path, tmp_path: Path
) -> None:
    server.handlers = [replies()]
    first = copy(repository, image, None)
    assert first["change_source"] is None
    done = copy(repository, image, Csi(server.service(), "snap", "handle"), first["snapshot"])
    assert (done["change_source"], done["chunks_changed"]) == ("CSI", 0)
    assert done["bytes_read"] == 10 * CHUNK, "the sample"
    assert content(repository, done["snapshot"], tmp_path) == image.read_bytes()


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (replies(Reply([(0, 4096)], SIZE + 4096)), "SizeDiffers"),
        (replies("FAILED_PRECONDITION"), "TrackingOff"),
        (replies("PERMISSION_DENIED"), "AccessDenied"),
        (replies(Reply([(0, 4096), (0, 4096)], SIZE)), "AnswerInvalid"),
        (replies(Reply([(SIZE - CHUNK, CHUNK)], SIZE)), "SampleContradicts"),
    ],
)
@pytest.mark.parametrize("based", [True, False])
def test_any_doubt_means_that_everything_is_read(
    server: Sidecar,
    repository: Repository,
    image: Path,
    tmp_path: Path,
    handler: Any,
    reason: str,
    based: bool,
) -> None:
    parent = copy(repository, image, None)["snapshot"] if based else None
    write(image, 0, 20 * MIB)  # the first chunk is one that the sample always reads
    server.handlers = [handler]
    server.requests.clear()
    asked = Csi(server.service(), "snap", "handle" if based else None)
    done = copy(repository, image, asked, parent)
    assert (done["change_source"], done["fallback"]["reason"]) == ("Compare", reason)
    assert done["bytes_read"] >= SIZE
    assert content(repository, done["snapshot"], tmp_path) == image.read_bytes()


def through_extents(image: Path) -> CsiThroughExtents:
    """Nobody is there to be asked: what is known before must do."""
    return CsiThroughExtents(Service("localhost:1", image, image, "ns"), "snap", "handle", image)


def test_a_filesystem_that_will_not_do_is_told_each_time(
    repository: Repository, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a map that is missing, which the next backup would have."""

    def refuse(*_: Any) -> ExtentMap:
        raise ChangesUnknown(Reason.FILESYSTEM_UNSUPPORTED, "the filesystem is btrfs")

    monkeypatch.setattr("coeval.mover.volumes.read_extents", refuse)
    monkeypatch.setattr("coeval.mover.changes.sources.read_extents", refuse)
    first = copy(repository, image, None, extents=True)
    assert first["extents"]["recorded"] is False
    done = copy(repository, image, through_extents(image), first["snapshot"], extents=True)
    assert (done["change_source"], done["fallback"]["reason"]) == ("Compare", "FilesystemUnsupported")


def test_a_recorded_map_that_is_damaged_means_that_everything_is_read(
    repository: Repository, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extents = ExtentMap(SIZE, SIZE, "ext4")
    monkeypatch.setattr("coeval.mover.volumes.read_extents", lambda _: extents)
    monkeypatch.setattr("coeval.mover.changes.sources.read_extents", lambda *_: extents)
    first = copy(repository, image, None, extents=True)
    load = repository.load_blob

    def damaged(kind: BlobType, blob_id: bytes) -> bytes:
        if kind is BlobType.DATA and blob_id == hash_id(extents.encode()):
            raise RepositoryDamaged("a pack has a flipped bit")
        return load(kind, blob_id)

    monkeypatch.setattr(repository, "load_blob", damaged)
    done = copy(repository, image, through_extents(image), first["snapshot"])
    assert (done["change_source"], done["fallback"]["reason"]) == ("Compare", "BaseDamaged")
    assert content(repository, done["snapshot"], tmp_path) == image.read_bytes()


def test_a_message_from_elsewhere_fits_in_the_result(
    server: Sidecar, repository: Repository, image: Path
) -> None:
    def refuse(_request: Any) -> Iterator[Reply]:
        raise Refuse("NOT_FOUND", "x" * 5000)
        yield

    server.handlers = [refuse]
    message = copy(repository, image, Csi(server.service(), "snap"))["fallback"]["message"]
    assert MESSAGE_LIMIT < len(message) < MESSAGE_LIMIT + 20
    assert message.endswith("… (shortened)")


def test_ranges_of_another_size_are_a_mistake_and_no_doubt(repository: Repository, image: Path) -> None:
    with pytest.raises(SourceSizeMismatch, match=f"{SIZE}"):
        copy(repository, image, Given(Ranges(SIZE + 1, ())))


def test_every_reason_is_explained() -> None:
    page = (Path(__file__).parents[4] / "docs" / "changed-blocks.md").read_text()
    assert [reason for reason in Reason if f"| `{reason}` |" not in page] == []
