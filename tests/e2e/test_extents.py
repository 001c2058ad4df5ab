"""CSIThroughExtents on real ext4 and XFS: whatever happens to an image file, what is reported covers it.

A volume lies in a file on an XFS with reflinks, as the test driver has it; a snapshot is a reflink copy,
taken of a frozen or of a running filesystem. Both moments are looked at as movers see them: through the
filesystem of a clone, which replays its journal.
"""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from coeval.mover.changes.blocks import Blocks
from coeval.mover.changes.extents import ExtentMap, read_extents
from coeval.mover.changes.sources import Given
from coeval.mover.changes.through_extents import changed_blocks
from coeval.mover.changes.unknown import ChangesUnknown, Reason
from coeval.mover.progress import Progress
from coeval.mover.restore import restore_volume
from coeval.mover.sources import open_source
from coeval.mover.targets import FileTarget
from coeval.mover.volumes import VolumeJob, copy_volume, retime_volume
from coeval.repository import lock
from coeval.repository.snapshot import parse_go_time

from tests.cluster.csi import loop, metadata, store
from tests.cluster.csi.catalog import clone
from tests.e2e.csi_rig import MIB, Rig, rigs
from tests.tools.repositories import MemoryStore, new_repository

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")

T1, T2 = parse_go_time("2026-01-01T00:00:00Z"), parse_go_time("2026-01-01T00:00:09Z")
BLOCK = 4096
LIMIT = 6 * MIB
"""The image file is at most this big."""
CHUNK = 64 * 1024

KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Kind:
    """A filesystem to try. XFS refuses to be smaller than 300 MiB, and to mount a clone beside its origin."""

    name: str
    mib: int
    mkfs: tuple[str, ...]
    clone_options: str
    defragment: tuple[str, ...]


EXT4 = Kind("ext4", 96, ("mkfs.ext4", "-q", "-F", "-b", "4096"), "rw", ("e4defrag",))
EXT4_SMALL = Kind("ext4-1k", 64, ("mkfs.ext4", "-q", "-F", "-b", "1024"), "rw", ("e4defrag",))
XFS = Kind("xfs", 304, ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"), "rw,nouuid", ("xfs_fsr",))


class Lab:
    """One volume with a filesystem that is mounted and written, and clones of its snapshots."""

    def __init__(self, rig: Rig, kind: Kind, *, options: str = "rw") -> None:
        self.kind = kind
        self._rig = rig
        store.create_store(rig.store, 4 << 30)
        self._mount(rig.store / store.IMAGE, rig.store / store.MOUNT_POINT, "noatime")
        self._volume = rig.inside(rig.store / store.MOUNT_POINT) / "volume"
        with self._volume.open("wb") as file:
            file.truncate(kind.mib * MIB)
        self.device = loop.attach(self._volume)
        rig.run(*kind.mkfs, str(self.device.path))
        self.point = rig.directory / "live"
        self._mount(self._volume, self.point, options)
        self.folder = rig.inside(self.point)
        self.image = self.folder / "disk.img"

    def run(self, *command: str) -> str:
        return self._rig.run(*command)

    def _mount(self, image: Path, point: Path, options: str) -> None:
        self._rig.run("mkdir", "-p", str(point))
        self._rig.run("mount", "-o", options, str(loop.attach(image).path), str(point))

    def snapshot(self, number: int, *, frozen: bool) -> Path:
        """The image of a snapshot; of a running filesystem it holds what has reached the device."""
        copy = self._volume.with_name(f"snapshot-{number}")
        if frozen:
            self.run("fsfreeze", "--freeze", str(self.point))
        try:
            loop.flush(self.device)
            with self._volume.open("rb") as source, copy.open("wb") as target:
                clone(source.fileno(), target.fileno())
        finally:
            if frozen:
                self.run("fsfreeze", "--unfreeze", str(self.point))
        return copy

    def look(self, snapshot: Path) -> tuple[bytes | None, ExtentMap | None]:
        """Content and map of the image file in a clone of a snapshot; None if it is not there."""
        copy = snapshot.with_name(f"clone-of-{snapshot.name}")
        with snapshot.open("rb") as source, copy.open("wb") as target:
            clone(source.fileno(), target.fileno())
        point = self._rig.directory / copy.name
        self._mount(copy, point, self.kind.clone_options)
        try:
            image = self._rig.inside(point) / "disk.img"
            if not image.exists():
                return None, None
            return image.read_bytes(), read_extents(image, self._rig.mountinfo)
        finally:
            self.run("umount", str(point))
            for device in loop.of_file(copy):
                assert loop.detach(device)
            copy.unlink()

    def delta(self, base: Path, target: Path) -> Blocks:
        return metadata.delta(base, target, self._rig.mountinfo)

    def map(self) -> ExtentMap:
        """Of the image file as it is now."""
        return read_extents(self.image, self._rig.mountinfo)


@pytest.fixture(scope="module")
def labs() -> Iterator[Callable[..., Lab]]:
    with rigs() as make:
        yield lambda kind, **more: Lab(make(start=False), kind, **more)


def fallocate(path: Path, mode: int, offset: int, length: int) -> None:
    """What a filesystem refuses to do at the end of a file is left undone."""
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        _libc.fallocate(file, mode, ctypes.c_long(offset), ctypes.c_long(length))
    finally:
        os.close(file)


class Hand:
    """Does one random thing to the image file or beside it."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self._lab = lab
        self._image = lab.image
        self._random = random.Random(seed)  # noqa: S311
        self.done: list[str] = []
        """For the message of a failure."""

    def step(self) -> None:
        deeds = [self.write] * 6 + [self.append] * 2 + [self.touch_nothing]
        deeds += [self.truncate, self.punch, self.zero, self.preallocate, self.shift, self.churn, self.sync]
        deeds += [self.defragment, self.replace, self.remove_and_make]
        deed = self._random.choice(deeds)
        self.done.append(deed.__name__)
        deed()

    def _place(self) -> tuple[int, int]:
        size = self._image.stat().st_size if self._image.exists() else 0
        length = self._random.choice([1, 100, 512, BLOCK, 3 * BLOCK + 5, 40 * BLOCK, 150 * BLOCK])
        offset = self._random.randrange(0, max(size, 1))
        if self._random.random() < 0.5:
            offset, length = offset // BLOCK * BLOCK, -(-length // BLOCK) * BLOCK
        return offset, max(1, min(length, LIMIT - offset))

    def _write(self, offset: int, length: int) -> None:
        file = os.open(self._image, os.O_RDWR | os.O_CREAT)
        try:
            os.pwrite(file, self._random.randbytes(length), offset)
            if self._random.random() < 0.4:
                os.fsync(file)
        finally:
            os.close(file)

    def write(self) -> None:
        self._write(*self._place())

    def append(self) -> None:
        size = self._image.stat().st_size if self._image.exists() else 0
        offset = min(size + self._random.choice([0, 0, 1, 100_000]), LIMIT - 1)
        self._write(offset, min(self._random.choice([10, 9000, 500_000]), LIMIT - offset))

    def touch_nothing(self) -> None:
        """Snapshots of the same are told apart by nothing."""

    def truncate(self) -> None:
        with self._image.open("ab") as file:
            file.truncate(self._random.randrange(0, LIMIT))

    def punch(self) -> None:
        fallocate(self._image, PUNCH_HOLE | KEEP_SIZE, *self._place())

    def zero(self) -> None:
        fallocate(self._image, ZERO, *self._place())

    def preallocate(self) -> None:
        fallocate(self._image, self._random.choice([0, KEEP_SIZE]), *self._place())

    def shift(self) -> None:
        """Blocks stay where they are on the device, and are other blocks of the file."""
        offset, length = (each // BLOCK * BLOCK for each in self._place())
        small = self._image.exists() and self._image.stat().st_size + length < LIMIT
        fallocate(self._image, INSERT if small else COLLAPSE, offset, max(length, BLOCK))

    def churn(self) -> None:
        """Freed blocks come back as blocks of other files."""
        other = self._lab.folder / f"other-{self._random.randrange(4)}"
        if other.exists():
            other.unlink()
        else:
            other.write_bytes(self._random.randbytes(self._random.choice([5000, MIB])))

    def sync(self) -> None:
        os.sync()

    def defragment(self) -> None:
        if self._image.exists() and self._image.stat().st_size:
            self._lab.run(*self._lab.kind.defragment, str(self._lab.point / "disk.img"))

    def replace(self) -> None:
        """A copy, sharing blocks where it can, with a change in it, takes the file's name."""
        if not self._image.exists():
            return
        new = self._lab.folder / "new.img"
        self._lab.run(
            "cp",
            "--reflink=auto",
            "--sparse=always",
            *(str(self._lab.point / n) for n in ("disk.img", "new.img")),
        )
        with new.open("r+b") as file:
            file.seek(self._random.randrange(0, max(1, new.stat().st_size)))
            file.write(b"replaced")
        new.rename(self._image)

    def remove_and_make(self) -> None:
        self._image.unlink(missing_ok=True)
        self._write(self._random.choice([0, MIB]), self._random.choice([BLOCK, MIB]))


def uncovered(t1: bytes, t2: bytes, changed: Blocks) -> list[int]:
    """Sectors of T1 that differ from T2's, or are beyond its end, and were not reported."""
    sector = 512
    different = (at for at in range(0, len(t1), sector) if t1[at : at + sector] != t2[at : at + sector])
    return [
        at
        for at in different
        if sum(end - begin for begin, end in changed.within(at, at + sector)) < min(sector, len(t1) - at)
    ]


def retimed(t1: bytes, t2: bytes, changed: Blocks, folder: Path) -> bytes:
    """What comes out when a copy of T2 is moved to T1 by these ranges. The sample must not contradict."""
    (folder / "t1").write_bytes(t1)
    (folder / "t2").write_bytes(t2)
    repository = new_repository(MemoryStore())
    snapshot = ""
    for moment in ("t2", "t1"):
        source = open_source(folder / moment)
        with repository.lock() as held:
            if moment == "t2":
                job = VolumeJob("d", T2, interim=True, chunk_size=CHUNK)
                done = copy_volume(repository, held, source, job, progress=Progress())
            else:
                job = VolumeJob("d", T1, changes=Given(changed.ranges(len(t1), 512)), chunk_size=CHUNK)
                done = retime_volume(repository, held, source, job, progress=Progress(), snapshot_id=snapshot)
                assert "fallback" not in done
        source.close()
        snapshot = done["snapshot"]
    target = FileTarget(folder / "out", sparse=True, overwrite=True)
    try:
        restore_volume(repository, snapshot, "d", target, progress=Progress())
    finally:
        target.close()
    return (folder / "out").read_bytes()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)


@pytest.mark.parametrize("kind", [EXT4, EXT4_SMALL, XFS], ids=lambda kind: kind.name)
def test_whatever_happens_to_the_file_is_covered(
    labs: Callable[..., Lab], kind: Kind, tmp_path: Path
) -> None:
    lab = labs(kind)
    hand = Hand(lab, seed=20261124)
    lab.image.write_bytes(random.Random(1).randbytes(4 * MIB))  # noqa: S311
    chosen = random.Random(2)  # noqa: S311
    moments: list[tuple[Path, bytes, ExtentMap]] = []
    total = reported = unequal = 0
    for number in range(30):
        for _ in range(chosen.choice([1, 1, 2, 6])):
            hand.step()
        snapshot = lab.snapshot(number, frozen=chosen.random() < 0.6)
        content, extents = lab.look(snapshot)
        if content is None or extents is None:
            hand.done.append("(the file had not reached the device)")
            continue
        hand.done.append(f"(snapshot {number})")
        for base, base_content, base_extents in moments[-1:] + chosen.sample(moments, min(1, len(moments))):
            delta = lab.delta(base, snapshot)
            # RollForward from the earlier one, Rewind from the later one: the delta is the same.
            for t1, t2, t1_map, t2_map in (
                (content, base_content, extents, base_extents),
                (base_content, content, base_extents, extents),
            ):
                changed = changed_blocks(t2_map, ExtentMap.decode(t1_map.encode()), delta)
                assert uncovered(t1, t2, changed) == [], hand.done
                total, reported, unequal = total + len(t1), reported + changed.total, unequal + (t1 != t2)
        if moments and number % 5 == 0:
            changed = changed_blocks(extents, moments[-1][2], lab.delta(moments[-1][0], snapshot))
            assert retimed(moments[-1][1], content, changed, tmp_path) == moments[-1][1], hand.done
        moments.append((snapshot, content, extents))
    print(f"{kind.name}: {len(moments)} moments, {unequal} unequal pairs, {reported / total:.0%} reported")
    assert unequal >= 20
    assert reported < 0.8 * total, "a report of everything would prove nothing"


@pytest.mark.parametrize("kind", [EXT4, XFS], ids=lambda kind: kind.name)
def test_a_small_write_is_all_that_is_reported(labs: Callable[..., Lab], kind: Kind) -> None:
    lab = labs(kind)
    lab.image.write_bytes(os.urandom(16 * MIB))
    with lab.image.open("ab") as file:
        file.truncate(64 * MIB)
    first = lab.snapshot(1, frozen=True)
    with lab.image.open("r+b") as file:
        file.seek(5 * MIB + 10)
        file.write(b"x")
        file.seek(40 * MIB)
        file.write(b"y")
    (lab.folder / "other").write_bytes(os.urandom(MIB))
    second = lab.snapshot(2, frozen=True)
    maps = [lab.look(each)[1] for each in (first, second)]
    assert maps[0] and maps[1]
    wanted = [(5 * MIB, 5 * MIB + BLOCK), (40 * MIB, 40 * MIB + BLOCK)]
    assert list(changed_blocks(maps[1], maps[0], lab.delta(first, second))) == wanted
    assert list(changed_blocks(maps[0], maps[0], Blocks())) == []


def test_what_is_not_plain_data_counts_as_changed(labs: Callable[..., Lab]) -> None:
    lab = labs(EXT4)
    fallocate(lab.image, 0, 0, MIB)
    with lab.image.open("r+b") as file:
        file.write(b"x" * BLOCK)
    found = lab.map()
    assert list(changed_blocks(found, found, Blocks())) == [(BLOCK, MIB)], "unwritten"


def test_a_file_inside_its_inode_counts_as_changed(labs: Callable[..., Lab]) -> None:
    inline = Kind("ext4-inline", 64, ("mkfs.ext4", "-q", "-F", "-O", "inline_data"), "rw", ())
    lab = labs(inline)
    lab.image.write_bytes(b"tiny")
    os.sync()
    found = lab.map()
    assert list(changed_blocks(found, found, Blocks())) == [(0, 4)]


@pytest.mark.parametrize(
    "how",
    [
        [],
        ["tune2fs", "-o", "journal_data"],
        ["debugfs", "-w", "-R", "set_inode_field disk.img flags 0x84000"],
    ],
)
def test_journalled_data_is_refused(labs: Callable[..., Lab], how: list[str]) -> None:
    lab = labs(EXT4, options="rw" if how else "data=journal")
    lab.image.write_bytes(b"x" * BLOCK)
    if how:
        # As the filesystem's default, and by the file's flag (chattr needs CAP_SYS_RESOURCE for it).
        lab.run("umount", str(lab.point))
        lab.run(*how, str(lab.device.path))
        lab.run("mount", str(lab.device.path), str(lab.point))
    with pytest.raises(ChangesUnknown) as caught:
        lab.map()
    assert caught.value.reason is Reason.DATA_JOURNALED


def test_other_filesystems_are_refused(labs: Callable[..., Lab]) -> None:
    lab = labs(EXT4)
    lab.run("mount", "-t", "tmpfs", "tmpfs", str(lab.point))
    lab.image.write_bytes(b"x")
    with pytest.raises(ChangesUnknown, match="tmpfs") as caught:
        lab.map()
    assert caught.value.reason is Reason.FILESYSTEM_UNSUPPORTED
