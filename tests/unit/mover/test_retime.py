"""The engine: what is read, what is kept, and that T1's bytes come out whatever the sizes."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from coeval.mover.content import ContentList
from coeval.mover.errors import SourceUnreadable
from coeval.mover.progress import Progress
from coeval.mover.ranges import Ranges
from coeval.mover.retime import Retimed, make_plan, retime
from coeval.repository.crypto import hash_id
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.store import Kind
from coeval.repository.writer import BlobWriter

CHUNK = 8


@dataclass
class BytesSource:
    """A source in memory that breaks from offset `fails` on."""

    data: bytes
    fails: int | None = None

    def __post_init__(self) -> None:
        self.reads: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return len(self.data)

    def read_into(self, offset: int, view: memoryview) -> int:
        if self.fails is not None and offset >= self.fails:
            raise SourceUnreadable(f"at byte {offset}: broken")
        part = self.data[offset : offset + len(view)]
        if not part.strip(b"\0"):
            return 0
        self.reads.append((offset, len(part)))
        view[:] = part
        return len(part)

    def data_from(self, offset: int) -> int:
        rest = self.data[offset:]
        return offset + len(rest) - len(rest.lstrip(b"\0"))

    def close(self) -> None: ...


def run(
    repository: Repository,
    base: ContentList,
    data: bytes,
    changed: Ranges | None = None,
    **more: random.Random,
) -> tuple[Retimed, BytesSource]:
    source = BytesSource(data)
    with repository.lock() as lock, BlobWriter(repository, lock) as writer:
        done = retime(
            base,
            changed or Ranges.everything(len(data)),
            source,
            writer=writer,
            progress=Progress(),
            chunk_size=CHUNK,
            **more,
        )
        writer.flush()
    return done, source


def read(repository: Repository, content: ContentList) -> bytes:
    return b"".join(repository.load_blob(BlobType.DATA, content.id(slot)) for slot in range(len(content)))


def base_of(*chunks: bytes) -> ContentList:
    content = ContentList()
    for chunk in chunks:
        content.append(hash_id(chunk), len(chunk))
    return content


@pytest.mark.parametrize(
    ("base", "size", "ranges", "lengths", "dirty"),
    [
        ([], 20, (), [8, 8, 4], [0, 1, 2]),
        ([8, 8, 4], 20, (), [8, 8, 4], []),
        ([8, 8, 4], 20, ((7, 1),), [8, 8, 4], [0]),
        ([8, 8, 4], 20, ((7, 2),), [8, 8, 4], [0, 1]),
        ([8, 8, 4], 20, ((0, 1), (1, 1), (19, 1)), [8, 8, 4], [0, 2]),
        ([8, 8, 4], 21, (), [8, 8, 5], [2]),
        ([8, 8, 4], 30, (), [8, 8, 8, 6], [2, 3]),
        ([8, 8], 17, (), [8, 8, 1], [2]),
        ([8, 8, 4], 18, (), [8, 8, 2], [2]),
        ([8, 8, 4], 16, (), [8, 8], []),
        ([8, 8, 4], 9, (), [8, 1], [1]),
        ([8, 8, 4], 0, (), [], []),
        ([5, 11, 3], 19, ((6, 1),), [5, 11, 3], [1]),
        ([5, 11], 20, (), [5, 11, 4], [2]),
        ([5, 11], 12, (), [5, 7], [1]),
    ],
)
def test_the_plan_keeps_the_bases_boundaries_and_t1s_size(
    base: list[int], size: int, ranges: tuple[tuple[int, int], ...], lengths: list[int], dirty: list[int]
) -> None:
    plan = make_plan(base_of(*(bytes(n) for n in base)), Ranges(size, ranges), size, CHUNK)
    assert list(plan.content.lengths) == lengths
    assert list(plan.dirty) == dirty
    assert [extent.slot for extent in plan.extents()] == dirty


def test_a_copy_stores_each_zero_chunk_once_and_reads_no_hole(repository: Repository) -> None:
    data = bytes(80) + b"x" * 8 + bytes(83)
    done, source = run(repository, ContentList(), data)
    assert source.reads == [(80, 8)]
    assert len(repository.index) == 3, "one full zero chunk, one short one, one of data"
    assert read(repository, done.content) == data
    assert (done.bytes_read, done.bytes_changed, done.chunks_changed) == (8, 171, 22)


def test_ranges_are_all_that_is_read(repository: Repository) -> None:
    t2 = bytes(range(1, 121))
    base, _ = run(repository, ContentList(), t2)
    t1 = bytearray(t2)
    t1[33] = t1[100] = 0
    done, source = run(repository, base.content, bytes(t1), Ranges(120, ((33, 1), (100, 1))))
    assert source.reads == [(32, 8), (96, 8)]
    assert read(repository, done.content) == t1
    assert (done.chunks_changed, done.bytes_changed) == (2, 16)


def test_compare_finds_the_same_without_ranges(repository: Repository) -> None:
    t2 = bytes(range(1, 121))
    base, _ = run(repository, ContentList(), t2)
    t1 = bytes(t2[:33] + b"\0" + t2[34:])
    done, _ = run(repository, base.content, t1)
    assert read(repository, done.content) == t1
    assert (done.bytes_read, done.chunks_changed) == (120, 1)


def test_a_hole_in_t1_over_data_in_t2_becomes_zero(repository: Repository) -> None:
    base, _ = run(repository, ContentList(), b"d" * 40)
    t1 = b"d" * 8 + bytes(16) + b"d" * 16
    for changed in (Ranges(40, ((8, 16),)), None):
        done, _ = run(repository, base.content, t1, changed)
        assert read(repository, done.content) == t1


def test_ranges_that_lie_are_found_out_by_the_sample(repository: Repository) -> None:
    t2 = bytes(range(1, 81))
    base, _ = run(repository, ContentList(), t2)
    t1 = b"\xff" + t2[1:]
    lie = Ranges(80, ((40, 1),))
    fooled, _ = run(repository, base.content, t1, lie)
    assert read(repository, fooled.content) != t1
    done, _ = run(repository, base.content, t1, lie, sample=random.Random(1))  # noqa: S311
    assert done.sample_contradicts
    assert read(repository, done.content) == t1
    honest, _ = run(repository, base.content, t2, lie, sample=random.Random(1))  # noqa: S311
    assert (honest.sample_contradicts, honest.chunks_sampled) == (False, 9)


@pytest.mark.parametrize("at", [0, 8, 400, 792])
def test_a_source_that_breaks_stops_everything(repository: Repository, at: int) -> None:
    source = BytesSource(random.Random(1).randbytes(800), fails=at)  # noqa: S311
    with (
        pytest.raises(SourceUnreadable, match="broken"),
        repository.lock() as lock,
        BlobWriter(repository, lock) as writer,
    ):
        retime(
            ContentList(),
            Ranges.everything(800),
            source,
            writer=writer,
            progress=Progress(),
            chunk_size=CHUNK,
        )
    assert not list(repository.names(Kind.INDEX)) and not list(repository.names(Kind.LOCK))
