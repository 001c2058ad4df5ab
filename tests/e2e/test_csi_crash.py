"""The test CSI driver killed at any moment: the retry succeeds, nothing half-made stays, nothing is left."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from tests.cluster.csi import loop, store
from tests.cluster.paths import REPOSITORY
from tests.e2e.csi_rig import MIB, Rig, devices_of, fails, pb, rigs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")


@pytest.fixture
def make() -> Iterator[Callable[[], Rig]]:
    with rigs() as maker:
        yield maker


def assert_nothing_half_made(rig: Rig) -> None:
    """Every image has its record and every record its image."""
    for folder in ("volumes", "snapshots"):
        stems = {name.rsplit(".", 1)[0] for name in rig.files(folder)}
        assert rig.files(folder) == {f"{stem}.{kind}" for stem in stems for kind in ("img", "json")}


def snapshots_of(rig: Rig, volume: str) -> list[str]:
    answer = rig.call("Controller", "ListSnapshots", pb.ListSnapshotsRequest(source_volume_id=volume))
    return [entry.snapshot.snapshot_id for entry in answer.entries]


@pytest.mark.parametrize("step", ["begun", "frozen", "copied", "recorded"])
def test_killed_while_it_takes_a_snapshot(make: Callable[[], Rig], step: str) -> None:
    rig = make()
    volume = rig.create("source", "Filesystem")
    place = rig.publish(volume, "Filesystem")
    data = os.urandom(MIB)
    (place / "file").write_bytes(data)
    rig.faults(CreateSnapshot={"killAt": step})
    assert fails(lambda: rig.snapshot("one", volume)) == "UNAVAILABLE"
    rig.wait_killed()
    rig.no_faults()
    rig.start()
    assert_nothing_half_made(rig)
    assert len(snapshots_of(rig, volume)) == (1 if step == "recorded" else 0)
    # Still frozen, this would hang for ever in the kernel.
    subprocess.run(["touch", str(place / "thawed")], check=True, timeout=20)
    snapshot = rig.snapshot("one", volume)
    assert snapshots_of(rig, volume) == [snapshot.snapshot_id]
    assert_nothing_half_made(rig)
    restored = rig.create("restored", "Filesystem", snapshot=snapshot.snapshot_id)
    assert (rig.publish(restored, "Filesystem") / "file").read_bytes() == data


@pytest.mark.parametrize("step", ["begun", "copied", "recorded"])
def test_killed_while_it_restores_a_volume(make: Callable[[], Rig], step: str) -> None:
    rig = make()
    volume = rig.create("source", "Block", 16)
    data = os.urandom(16 * MIB)
    rig.publish(volume, "Block").write_bytes(data)
    snapshot = rig.snapshot("one", volume).snapshot_id
    rig.faults(CreateVolume={"killAt": step})
    assert fails(lambda: rig.create("restored", "Block", 16, snapshot=snapshot)) == "UNAVAILABLE"
    rig.wait_killed()
    rig.no_faults()
    rig.start()
    assert_nothing_half_made(rig)
    restored = rig.create("restored", "Block", 16, snapshot=snapshot)
    assert len(rig.files("volumes")) == 4
    assert rig.publish(restored, "Block").read_bytes() == data


def test_killed_at_random_moments(make: Callable[[], Rig]) -> None:
    """Killed while it works: whatever it answered holds, whatever it did not answer is whole or absent."""
    rig = make()
    chance = random.Random(3)  # noqa: S311 - no secret
    volume = rig.create("source", "Filesystem")
    place = rig.publish(volume, "Filesystem")
    promised: list[str] = []
    for round_ in range(6):
        stop = threading.Event()

        def work(number: int = round_, stop: threading.Event = stop) -> None:
            with suppress(grpc.RpcError):
                for step in range(10_000):
                    if stop.is_set():
                        return
                    promised.append(rig.snapshot(f"{number}-{step}", volume).snapshot_id)
                    if step % 3 == 2:
                        rig.delete_snapshot(promised.pop())

        worker = threading.Thread(target=work)
        worker.start()
        worker.join(chance.uniform(0.05, 0.5))
        rig.kill()
        stop.set()
        rig.start()
        worker.join()
        assert_nothing_half_made(rig)
        assert set(promised) <= set(snapshots_of(rig, volume))
        subprocess.run(["touch", str(place / f"thawed-{round_}")], check=True, timeout=20)
    assert promised
    for snapshot in promised[-3:]:
        rig.run("e2fsck", "-fn", str(rig.store / "mnt" / "snapshots" / f"{snapshot}.img"))


def test_staged_volumes_outlive_the_driver(make: Callable[[], Rig]) -> None:
    rig = make()
    block, files = rig.create("block", "Block", 16), rig.create("files", "Filesystem")
    device, place = rig.publish(block, "Block"), rig.publish(files, "Filesystem")
    before = rig.devices()
    rig.kill()
    (place / "file").write_text("no driver needed")
    rig.start()
    assert rig.publish(block, "Block").stat().st_rdev == device.stat().st_rdev
    rig.publish(files, "Filesystem")
    assert rig.devices() == before
    for volume in (block, files):
        rig.unpublish(volume)
        rig.unpublish(volume)
        rig.unstage(volume)
        rig.unstage(volume)
        rig.delete(volume)
        rig.delete(volume)
    assert [found.file_inode for found in rig.devices()] == [(rig.store / store.IMAGE).stat().st_ino]


def test_stage_takes_back_a_pending_detach(make: Callable[[], Rig]) -> None:
    """A device that was still open when it was detached must not vanish under the pod that got it next."""
    rig = make()
    volume = rig.create("busy", "Block", 16)
    number = os.minor(rig.publish(volume, "Block").stat().st_rdev)
    with Path(f"/dev/loop{number}").open("rb"):
        rig.unpublish(volume)
        assert fails(lambda: rig.unstage(volume)) == "FAILED_PRECONDITION"
        rig.stage(volume, "Block")
    found = [device for device in rig.devices() if device.backs(rig.image(volume).stat())]
    assert len(found) == 1
    assert not found[0].flags & loop.AUTOCLEAR


@pytest.mark.parametrize("frozen", [False, True])
def test_hard_stop_leaves_what_cleanup_takes_away(make: Callable[[], Rig], frozen: bool) -> None:
    """Kubelet's own device on a published one, a mounted and even a frozen filesystem: then no namespace."""
    rig = make()
    block, files = rig.create("block", "Block", 16), rig.create("files", "Filesystem")
    rig.publish(block, "Block")
    rig.publish(files, "Filesystem")
    rig.run("losetup", "--find", str(rig.target(block)))
    if frozen:
        rig.run("fsfreeze", "--freeze", str(rig.staging(files)))
    assert len(rig.devices()) == 4
    rig.end_namespace()
    assert len(devices_of(rig.store)) >= 3
    store.cleanup(rig.store)
    assert devices_of(rig.store) == []
    store.cleanup(rig.store)
    again = store.mount(rig.store)
    assert {path.suffix for path in (again / "volumes").iterdir()} == {".img", ".json"}
    store.unmount(rig.store)


def test_one_driver_per_store(make: Callable[[], Rig]) -> None:
    rig = make()
    serve = [sys.executable, "-m", "tests.cluster.csi", "--driver-name", "x", "--store", str(rig.store)]
    second = subprocess.run(
        [*serve, "--endpoint", f"unix://{rig.directory}/second.sock"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=REPOSITORY,
    )
    assert second.returncode == 1
    assert "served by another driver" in second.stderr
