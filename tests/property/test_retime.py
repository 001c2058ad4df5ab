"""Whatever T1 and T2 hold: copy T2, move it to T1, commit, restore. The bytes are T1's, and never T2's."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from coeval.mover.changes.sources import Given
from coeval.mover.commit import CommitJob, commit
from coeval.mover.errors import InterimSnapshot
from coeval.mover.progress import Progress
from coeval.mover.ranges import Ranges
from coeval.mover.restore import restore_volume
from coeval.mover.sources import Source, open_source
from coeval.mover.targets import FileTarget
from coeval.mover.verify import verify
from coeval.mover.volumes import VolumeJob, copy_volume, retime_volume
from coeval.repository import lock
from coeval.repository.repository import Repository
from coeval.repository.snapshot import parse_go_time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tools.repositories import PASSWORD, MemoryStore, new_repository

T1, T2 = parse_go_time("2026-01-01T00:00:00Z"), parse_go_time("2026-01-01T00:00:09Z")
CHUNK = 4096
LIMIT = 12 * CHUNK


@pytest.fixture(autouse=True, scope="module")
def no_settling() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "SETTLE_SECONDS", 0.0)
        patch.setattr(os, "fsync", lambda file: None)  # no test pulls the plug
        yield


# An image is a size and writes (offset, length, byte; 0 punches a hole) from which the file is made.
Writes = list[tuple[int, int, int]]
writes = st.lists(
    st.tuples(st.integers(0, LIMIT), st.integers(1, 3 * CHUNK), st.sampled_from([0, 0, 1, 2, 255])),
    max_size=6,
)
# Sizes at and around chunk boundaries are where mistakes live.
sizes = st.one_of(
    st.integers(0, LIMIT),
    st.builds(lambda n, d: max(0, n * CHUNK + d), st.integers(0, 12), st.sampled_from([-1, 0, 1])),
)


def make(path: Path, size: int, changes: Writes) -> bytes:
    image = bytearray(size)
    for offset, length, byte in changes:
        image[offset : min(size, offset + length)] = bytes([byte]) * max(0, min(length, size - offset))
    with path.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, CHUNK):
            piece = bytes(image[at : at + CHUNK])
            if piece.strip(b"\0"):
                file.seek(at)
                file.write(piece)
    return bytes(image)


def differences(t1: bytes, t2: bytes, unit: int) -> Ranges:
    """Report as a driver does: units that differ, but none beyond T2's end: growth speaks for itself."""
    ranges: list[tuple[int, int]] = []
    for at in range(0, min(len(t1), len(t2)), unit):
        if t1[at : at + unit] != t2[at : at + unit]:
            end = min(at + unit, len(t1))
            if ranges and sum(ranges[-1]) == at:
                ranges[-1] = (ranges[-1][0], end - ranges[-1][0])
            else:
                ranges.append((at, end - at))
    return Ranges(len(t1), tuple(ranges))


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    source = open_source(path)
    try:
        yield source
    finally:
        source.close()


def restored(repository: Repository, snapshot: str, folder: Path) -> bytes:
    path = folder / "out"
    target = FileTarget(path, sparse=True, overwrite=True)
    try:
        restore_volume(repository, snapshot, "root", target, progress=Progress())
    finally:
        target.close()
    return path.read_bytes()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size2=sizes,
    common=writes,
    size1=st.one_of(st.none(), sizes),
    rewritten=writes,
    unit=st.sampled_from([None, 512, CHUNK, 3 * CHUNK]),
)
def test_a_copy_moved_to_t1_restores_to_t1(
    tmp_path: Path, size2: int, common: Writes, size1: int | None, rewritten: Writes, unit: int | None
) -> None:
    t2 = make(tmp_path / "t2", size2, common)
    t1 = make(tmp_path / "t1", size2 if size1 is None else size1, common + rewritten)
    store = MemoryStore()
    repository = new_repository(store)
    with repository.lock() as held, opened(tmp_path / "t2") as source:
        job = VolumeJob("root", T2, ("backup=n/b",), interim=True, chunk_size=CHUNK)
        copied = copy_volume(repository, held, source, job, progress=Progress())
    assert copied["bytes_total"] == len(t2)
    with pytest.raises(InterimSnapshot):
        restored(repository, copied["snapshot"], tmp_path)
    assert not (tmp_path / "out").exists()

    # Another process moves it: nothing but the store connects the two.
    repository = Repository.open(store, PASSWORD)
    with repository.lock() as held, opened(tmp_path / "t1") as source:
        ranges = Given(differences(t1, t2, unit)) if unit else None
        job = VolumeJob("root", T1, changes=ranges, chunk_size=CHUNK)
        moved = retime_volume(
            repository, held, source, job, progress=Progress(), snapshot_id=copied["snapshot"]
        )
        assert moved["change_source"] == ("Ranges" if unit else "Compare")
        done = commit(repository, held, CommitJob((moved["snapshot"],), forget_parts=True))
    assert [snapshot.id for snapshot in repository.snapshots()] == [done["snapshot"]]

    fresh = Repository.open(store, PASSWORD)
    assert restored(fresh, done["snapshot"], tmp_path) == t1
    assert verify(fresh, done["snapshot"], 1.0, Progress())["bytes_total"] == len(t1)
    (tmp_path / "out").unlink()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=sizes, common=writes, steps=st.lists(st.tuples(sizes, writes), min_size=1, max_size=3))
def test_a_chain_of_incremental_copies_restores_to_each(
    tmp_path: Path, size: int, common: Writes, steps: list[tuple[int, Writes]]
) -> None:
    store = MemoryStore()
    repository = new_repository(store)
    parent: str | None = None
    before = b""
    wanted: list[tuple[str, bytes]] = []
    for size_now, changes in [(size, common), *steps]:
        image = make(tmp_path / "image", size_now, changes)
        with repository.lock() as held, opened(tmp_path / "image") as source:
            ranges = Given(differences(image, before, 512)) if parent else None
            job = VolumeJob("root", T1, changes=ranges, chunk_size=CHUNK)
            done = copy_volume(repository, held, source, job, progress=Progress(), parent=parent)
        parent, before = done["snapshot"], image
        wanted.append((done["snapshot"], image))
    for snapshot, image in wanted:
        assert restored(Repository.open(store, PASSWORD), snapshot, tmp_path) == image
    (tmp_path / "out").unlink()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), stop=st.integers(1, 14))
def test_a_mover_that_dies_at_any_call_leaves_orphans_only(tmp_path: Path, seed: int, stop: int) -> None:
    class Died(BaseException):
        """Nothing in the code under test may catch it as an error and go on."""

    generator = random.Random(seed)  # noqa: S311
    (tmp_path / "image").write_bytes(generator.randbytes(5 * CHUNK + 7))
    store = MemoryStore()
    repository = new_repository(store)
    job = VolumeJob("root", T1, chunk_size=CHUNK)
    with repository.lock() as held, opened(tmp_path / "image") as source:
        first = copy_volume(repository, held, source, job, progress=Progress())["snapshot"]
    (tmp_path / "image").write_bytes(generator.randbytes(4 * CHUNK))

    calls = 0

    def die(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls >= stop:
            raise Died

    store.before = die
    second = None
    try:
        with repository.lock() as held, opened(tmp_path / "image") as source:
            second = copy_volume(repository, held, source, job, progress=Progress())["snapshot"]
    except Died:
        pass
    store.before = lambda *_: None

    survivor = Repository.open(store, PASSWORD)
    found = {snapshot.id for snapshot in survivor.snapshots()}
    assert first in found and len(found) <= 2
    assert second is None or second in found
    for snapshot in found:
        verify(survivor, snapshot, 1.0, Progress())
