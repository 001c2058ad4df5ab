"""What the test CSI driver promises about data: what a snapshot holds, and what a restored volume reads."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.csi.protos import load
from tests.cluster.csi.rpc import Client
from tests.e2e.csi_rig import MIB, Rig, fails, pb, rigs, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")

SLOT = 4096


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with rigs() as make:
        yield make()


@contextmanager
def running(writer: Callable[[int], None]) -> Iterator[list[tuple[float, float]]]:
    """Calls writer(1), writer(2), … in a thread; gives begin and end (Unix seconds) of each finished call."""
    times: list[tuple[float, float]] = []
    stop = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                begun = time.time()
                writer(len(times) + 1)
                times.append((begun, time.time()))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join()
    assert not errors, errors


def more(times: list[tuple[float, float]], count: int) -> None:
    """Wait until the writer has done so many steps more."""
    enough = len(times) + count
    wait_for(lambda: len(times) >= enough, f"{count} more steps of the writer")


def fill(device: Path, data: bytes) -> None:
    with device.open("r+b") as file:
        file.write(data)
        os.fsync(file.fileno())


def test_restored_block_volume_has_the_bytes_of_the_moment(rig: Rig) -> None:
    volume = rig.create("bytes", "Block", 16)
    device = rig.publish(volume, "Block")
    old = os.urandom(16 * MIB)
    fill(device, old)
    snapshot = rig.snapshot("bytes", volume)
    assert snapshot.ready_to_use
    assert snapshot.size_bytes == 16 * MIB
    fill(device, os.urandom(16 * MIB))
    same = rig.publish(rig.create("bytes-same", "Block", 16, snapshot=snapshot.snapshot_id), "Block")
    assert same.read_bytes() == old
    sector_sizes = {rig.run("blockdev", "--getss", str(rig.target(path.name))) for path in (device, same)}
    assert sector_sizes == {"512\n"}
    bigger = rig.publish(rig.create("bytes-bigger", "Block", 24, snapshot=snapshot.snapshot_id), "Block")
    assert bigger.read_bytes() == old + bytes(8 * MIB)
    clone = rig.publish(rig.create("bytes-clone", "Block", 16, volume=volume), "Block")
    assert clone.read_bytes() == device.read_bytes() != old
    assert (
        fails(lambda: rig.create("bytes-less", "Block", 8, snapshot=snapshot.snapshot_id)) == "OUT_OF_RANGE"
    )


def test_snapshot_has_block_data_that_nobody_flushed(rig: Rig) -> None:
    volume = rig.create("dirty", "Block", 16)
    data = os.urandom(MIB)
    with rig.publish(volume, "Block").open("r+b", buffering=0) as file:
        file.write(data)
        snapshot = rig.snapshot("dirty", volume)
    assert rig.image(snapshot.snapshot_id).read_bytes()[:MIB] == data


def test_snapshot_has_files_that_nobody_synced_and_a_clean_filesystem(rig: Rig) -> None:
    volume = rig.create("files", "Filesystem")
    data = os.urandom(MIB)
    (rig.publish(volume, "Filesystem") / "file").write_bytes(data)
    snapshot = rig.snapshot("files", volume)
    rig.run("e2fsck", "-fn", str(rig.store / "mnt" / "snapshots" / f"{snapshot.snapshot_id}.img"))
    bigger = rig.create("files-bigger", "Filesystem", 128, snapshot=snapshot.snapshot_id)
    restored = rig.publish(bigger, "Filesystem")
    assert (restored / "file").read_bytes() == data
    assert os.statvfs(restored).f_blocks * os.statvfs(restored).f_frsize > 100 * MIB


def test_snapshot_of_a_written_device_is_a_prefix(rig: Rig) -> None:
    """Direct writes n = 1, 2, …, each to its own slot: a snapshot has all up to an n that its times allow.

    The slots lie all over the device, so a copy that is not atomic misses writes before some that it has.
    """
    size = 512
    slots = size * MIB // SLOT
    volume = rig.create("prefix", "Block", size)
    device = os.open(rig.publish(volume, "Block"), os.O_RDWR | os.O_DIRECT)

    def offset(number: int) -> int:
        return number * 40503 % slots * SLOT  # an odd factor: each slot once

    def write(number: int) -> None:
        if number >= slots:
            raise AssertionError("the device is full")
        # A page-aligned buffer, as direct I/O wants it.
        os.pwritev(device, [page], offset(number))

    page = mmap.mmap(-1, SLOT)
    page[:] = b"x" * SLOT
    taken = []
    try:
        with running(write) as times:
            for round_ in range(5):
                more(times, 50)
                called = time.time()
                taken.append((called, rig.snapshot(f"prefix-{round_}", volume)))
            more(times, 50)
    finally:
        os.close(device)
    for called, snapshot in taken:
        created = snapshot.creation_time.ToNanoseconds() / 1e9
        with rig.image(snapshot.snapshot_id).open("rb") as image:
            there = [os.pread(image.fileno(), 1, offset(n)) == b"x" for n in range(1, len(times) + 1)]
        held = sum(there)
        assert there == [True] * held + [False] * (len(times) - held)
        assert held >= sum(end < called for _begin, end in times)
        assert held <= sum(begin < created for begin, _end in times)
        assert 0 < held < len(times)


def test_snapshot_of_a_written_filesystem_is_one_moment(rig: Rig) -> None:
    """n to file a, durable, n to file b, durable, for ever: in a snapshot b has what a has, or one less."""
    volume = rig.create("ordered", "Filesystem", 64)
    place = rig.publish(volume, "Filesystem")

    def write(number: int) -> None:
        for name in ("a", "b"):
            with (place / name).open("w") as file:
                file.write(f"{number:08}")
                file.flush()
                os.fsync(file.fileno())

    snapshots = []
    with running(write) as times:
        for round_ in range(3):
            more(times, 5)
            snapshots.append(rig.snapshot(f"ordered-{round_}", volume).snapshot_id)
        more(times, 5)
    for round_, snapshot in enumerate(snapshots):
        restored = rig.create(f"ordered-restored-{round_}", "Filesystem", 64, snapshot=snapshot)
        copy = rig.publish(restored, "Filesystem")
        # A file may be caught between its truncation and its write; then that step of it is not done.
        a, b = ((copy / name).read_text() for name in ("a", "b"))
        assert a or b
        if a and b:
            assert int(a) - int(b) in (0, 1)


def test_volume_mode_change_gives_the_true_device_bytes(rig: Rig) -> None:
    files = rig.create("mode-files", "Filesystem")
    (rig.publish(files, "Filesystem") / "file").write_text("from ext4")
    snapshot = rig.snapshot("mode-files", files).snapshot_id
    raw = rig.create("mode-raw", "Block", snapshot=snapshot)
    device = rig.publish(raw, "Block")
    assert device.read_bytes() == rig.image(snapshot).read_bytes()
    assert rig.run("debugfs", "-R", "cat /file", str(rig.target(raw))) == "from ext4"
    back = rig.snapshot("mode-raw", raw).snapshot_id
    again = rig.publish(rig.create("mode-again", "Filesystem", snapshot=back), "Filesystem")
    assert (again / "file").read_text() == "from ext4"


def test_unknown_data_is_never_formatted(rig: Rig) -> None:
    raw = rig.create("keep", "Block", 16)
    data = os.urandom(16 * MIB)
    fill(rig.publish(raw, "Block"), data)
    snapshot = rig.snapshot("keep", raw).snapshot_id
    restored = rig.create("keep-restored", "Filesystem", 16, snapshot=snapshot)
    assert fails(lambda: rig.stage(restored, "Filesystem")) == "FAILED_PRECONDITION"
    assert rig.image(restored).read_bytes() == data


def test_snapshot_of_a_filesystem_never_used_restores(rig: Rig) -> None:
    empty = rig.create("empty", "Filesystem")
    restored = rig.create("empty-restored", "Filesystem", snapshot=rig.snapshot("empty", empty).snapshot_id)
    assert {path.name for path in rig.publish(restored, "Filesystem").iterdir()} == {"lost+found"}


def may_resize_mounted() -> bool:
    """CAP_SYS_RESOURCE, number 24."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.split("CapEff:")[1].split()[0], 16) >> 24 & 1)


@pytest.mark.parametrize("mode", ["Block", "Filesystem"])
def test_grows_while_published(rig: Rig, mode: str) -> None:
    volume = rig.create(f"grow-{mode}", mode)
    place = rig.publish(volume, mode)
    expand = pb.ControllerExpandVolumeRequest(volume_id=volume, capacity_range={"required_bytes": 128 * MIB})
    assert rig.call("Controller", "ControllerExpandVolume", expand).node_expansion_required
    target = str(rig.target(volume))
    grow = pb.NodeExpandVolumeRequest(volume_id=volume, volume_path=target)
    if mode == "Filesystem" and not may_resize_mounted():
        assert fails(lambda: rig.call("Node", "NodeExpandVolume", grow)) == "FAILED_PRECONDITION"
        rig.unpublish(volume)
        rig.unstage(volume)
        rig.publish(volume, mode)
    rig.call("Node", "NodeExpandVolume", grow)
    stats = pb.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=target)
    total = rig.call("Node", "NodeGetVolumeStats", stats).usage[0].total
    if mode == "Block":
        assert total == 128 * MIB
        with place.open("rb") as file:
            assert file.seek(0, os.SEEK_END) == 128 * MIB
    else:
        assert 100 * MIB < total <= 128 * MIB


@pytest.mark.parametrize("mode", ["Block", "Filesystem"])
def test_read_only_target_refuses_writes(rig: Rig, mode: str) -> None:
    volume = rig.create(f"ro-{mode}", mode)
    writable = rig.publish(volume, mode)
    read_only = rig.publish(volume, mode, pod="reader", read_only=True)
    probe = Path("x") if mode == "Filesystem" else Path()
    with pytest.raises(OSError, match=r"Read-only|not permitted|denied"):
        fill_or_make(read_only / probe)
    fill_or_make(writable / probe)
    rig.unpublish(volume, "reader")
    rig.unpublish(volume)
    rig.unstage(volume)
    assert not [device for device in rig.devices() if device.backs(rig.image(volume).stat())]


def fill_or_make(path: Path) -> None:
    if path.is_block_device():
        fill(path, b"x" * SLOT)
    else:
        path.write_text("x")


def test_discarded_blocks_give_their_space_back(rig: Rig) -> None:
    volume = rig.create("holes", "Block", 16)
    fill(rig.publish(volume, "Block"), os.urandom(16 * MIB))
    assert rig.image(volume).stat().st_blocks * 512 >= 16 * MIB
    rig.run("blkdiscard", str(rig.target(volume)))
    assert rig.image(volume).stat().st_blocks * 512 < MIB


def test_staged_volume_is_not_deleted(rig: Rig) -> None:
    volume = rig.create("used", "Block", 16)
    rig.stage(volume, "Block")
    assert fails(lambda: rig.delete(volume)) == "FAILED_PRECONDITION"
    rig.unstage(volume)
    rig.delete(volume)
    assert not any(name.startswith(volume) for name in rig.files("volumes"))


def test_lists_in_pages_that_deletions_do_not_shift(rig: Rig) -> None:
    source = rig.create("pages", "Block", 16)
    made = [rig.snapshot(f"page-{number}", source).snapshot_id for number in range(5)]

    def page(token: str) -> tuple[list[str], str]:
        request = pb.ListSnapshotsRequest(source_volume_id=source, max_entries=2, starting_token=token)
        answer = rig.call("Controller", "ListSnapshots", request)
        return [entry.snapshot.snapshot_id for entry in answer.entries], answer.next_token

    first, token = page("")
    rig.delete_snapshot(made[1])
    second, token = page(token)
    third, token = page(token)
    assert first + second + third == made
    assert token == ""


def test_kubelet_is_told_where_the_driver_is(rig: Rig) -> None:
    messages = load("pluginregistration")
    registry = rig.directory / "kubelet" / "plugins_registry"
    client = Client(f"unix://{registry / 'rig.csi.coeval.test-reg.sock'}", messages)
    try:
        info = client.call("Registration", "GetInfo", messages.InfoRequest())
        assert (info.type, info.name, info.endpoint) == ("CSIPlugin", "rig.csi.coeval.test", str(rig.socket))
        assert list(info.supported_versions) == ["1.0.0"]
        status = messages.RegistrationStatus(plugin_registered=True)
        client.call("Registration", "NotifyRegistrationStatus", status)
    finally:
        client.close()


def test_faults_happen_to_the_volume_they_name(rig: Rig) -> None:
    one, two = rig.create("fault-one", "Block", 16), rig.create("fault-two", "Block", 16)
    try:
        rig.faults(CreateSnapshot=[{"error": "ResourceExhausted", "volume": one}, {"delaySeconds": 0.5}])
        assert fails(lambda: rig.snapshot("fault-one", one)) == "RESOURCE_EXHAUSTED"
        begun = time.monotonic()
        rig.snapshot("fault-two", two)
        assert time.monotonic() - begun >= 0.5
        rig.faults(CreateSnapshot={"notReady": True})
        assert not rig.snapshot("fault-one", one).ready_to_use
    finally:
        rig.no_faults()
    assert rig.snapshot("fault-one", one).ready_to_use
