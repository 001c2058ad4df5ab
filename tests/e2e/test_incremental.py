"""Incremental backups: what is read is what changed, and what is in the repository is right all the same."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.guest.judge import judge
from tests.cluster.guest.vm import Machine, virtual_machine
from tests.cluster.layout import Cluster
from tests.e2e.evidence import RepositoryReader, digests, keep, sha256
from tests.e2e.faults import backend, injected
from tests.e2e.harness import Kubectl, Object, until
from tests.e2e.scene import Backup, Repository, leftovers, start_backup
from tests.e2e.test_cluster import claim
from tests.e2e.test_one_moment import disks, names
from tests.e2e.toolbox import Toolbox, toolbox

pytestmark = pytest.mark.kubevirt

MIB = 1 << 20
SIZE = 8 << 30
KEEP: dict[str, Any] = {"changedBlocks": {"keepBase": "Auto"}}
PLACES = {"a0": ("Filesystem", "/claims/large-a0/disk.img"), "b0": ("Block", "/claims/large-b0")}

# A quarter of the volume: every fourth MiB is a text of 64 KiB, sixteen times, so that it takes little room.
FILL = f"""
import os, sys
with open(sys.argv[1], "r+b") as volume:
    for at in range(0, {SIZE}, {4 * MIB}):
        volume.seek(at)
        volume.write(16 * os.urandom(32768).hex().encode())
    os.fsync(volume)
"""
SCATTER = f"""
import os, random, sys
with open(sys.argv[1], "r+b") as volume:
    for _ in range(12):
        volume.seek(random.randrange({SIZE} // 4096) * 4096)
        volume.write(os.urandom(4096))
    os.fsync(volume)
"""


def writer(kubectl: Kubectl, namespace: str) -> AbstractContextManager[Toolbox]:
    """A pod with both volumes of the large VM, which is stopped."""
    return toolbox(kubectl, "writer", namespace, {f"large-{d}": mode for d, (mode, _) in PLACES.items()})


def change(kubectl: Kubectl, namespace: str, *, summed: bool = False) -> dict[str, str]:
    """Write here and there; SHA-256 of what each volume holds then."""
    with writer(kubectl, namespace) as tools:
        for _, path in PLACES.values():
            tools("python3", "-c", SCATTER, path)
        return {disk: tools.sha256(path) for disk, (_, path) in PLACES.items() if summed}


@pytest.fixture(scope="module")
def large(kubectl: Kubectl, shop: str) -> Iterator[Machine]:
    """A stopped VM with an image and a direct disk of 8 GiB each."""
    machine = Machine("large", shop, running=False)
    for (disk, (mode, _)), driver in zip(PLACES.items(), ("one", "two"), strict=True):
        # an image's file system takes some of its claim
        mib = SIZE // MIB + (512 if mode == "Filesystem" else 0)
        kubectl.apply(claim(machine.claim(disk), shop, driver, mode, mib=mib))
    with writer(kubectl, shop) as tools:
        tools("truncate", f"--size={SIZE}", PLACES["a0"][1])
        for _, path in PLACES.values():
            tools("python3", "-c", FILL, path)
    kubectl.apply(virtual_machine(machine))
    yield machine
    kubectl.delete("vm", machine.name, shop)
    for disk in PLACES:
        kubectl.delete("pvc", machine.claim(disk), shop)


def volume(seen: Object, disk: str) -> Object:
    found: Object = next(v for v in seen["status"]["volumes"] if v["name"] == disk)
    return found


def kept(kubectl: Kubectl, seen: Object) -> list[str]:
    """Kinds of what a backup has left."""
    return sorted(found.split()[0] for found in leftovers(kubectl, seen["metadata"]["uid"]))


def assert_light(step: Object, source: str) -> None:
    """It was told what had changed, and read less than 2 % of the volume."""
    assert (step["changeSource"], step.get("fallback")) == (source, None)
    assert 0 < step["bytesRead"] < SIZE // 50
    assert step["bytesTotal"] == SIZE and step["bytesPerSecond"] > 0


def test_a_lightly_changed_volume_of_8_gib_is_read_where_it_changed(
    kubectl: Kubectl, cluster: Cluster, reader: RepositoryReader, repository: Repository, large: Machine,
    tmp_path: Path,
) -> None:  # fmt: skip
    shop = large.namespace
    before = {short: backend(cluster, short, "snapshots") for short in ("one", "two")}
    first = start_backup(kubectl, shop, large.name, repository.name, **KEEP).completed(seconds=900)
    direct, image = volume(first, "b0"), volume(first, "a0")
    # a first backup reads what is allocated, by the driver's word or by the file's holes
    assert (direct["copy"]["changeSource"], direct["copy"]["fallback"]["reason"]) == (
        "CSI",
        "NoEarlierBackup",
    )
    assert SIZE // 4 <= direct["copy"]["bytesRead"] < SIZE // 3
    assert SIZE // 4 <= image["copy"]["bytesRead"] < SIZE // 3
    assert_light(image["reconcile"], "CSIThroughExtents")
    assert kept(kubectl, first) == ["VolumeSnapshot", "VolumeSnapshot"]

    change(kubectl, shop)
    second = start_backup(kubectl, shop, large.name, repository.name, **KEEP).completed(seconds=600)
    assert_light(volume(second, "b0")["copy"], "CSI")
    assert_light(volume(second, "a0")["copy"], "CSIThroughExtents")
    assert_light(volume(second, "a0")["reconcile"], "CSIThroughExtents")
    assert volume(second, "b0")["base"]["backup"] == first["metadata"]["name"]
    assert kept(kubectl, first) == []
    assert kept(kubectl, second) == ["VolumeSnapshot", "VolumeSnapshot"]

    wanted = change(kubectl, shop, summed=True)
    third = start_backup(
        kubectl, shop, large.name, repository.name, images={"strategy": "RollForward"}
    ).completed(seconds=600)
    assert_light(volume(third, "a0")["copy"], "CSIThroughExtents")
    assert "reconcile" not in volume(third, "a0") and "t2" not in volume(third, "a0")
    # it was told to keep none, so the older ones stay for whoever comes next
    assert kept(kubectl, third) == []
    assert kept(kubectl, second) == ["VolumeSnapshot", "VolumeSnapshot"]

    restic = reader.copy(shop, large.name, tmp_path / "repository")
    restic.check()
    # The last one stands on the others: what is wrong in one of them would be wrong in it.
    snapshot = third["status"]["repository"]["snapshotID"]
    assert {disk: restic.sha256(snapshot, disk) for disk in PLACES} == wanted
    for seen in (first, second, third):
        kubectl.delete("vmbackup", seen["metadata"]["name"], shop)
    until(lambda: True if kept(kubectl, second) == [] else None, what="the kept snapshots to go", seconds=60)
    for short, handles in before.items():
        assert backend(cluster, short, "snapshots") <= handles


def one_moment(backup: Backup, machine: Machine, reader: RepositoryReader, folder: Path) -> Object:
    """Follow a backup to its end: S1 is in it byte for byte, and in it one moment. The ended backup."""
    s1 = keep(backup, "t1")
    seen = backup.completed()
    restic = reader.copy(machine.namespace, machine.name, folder / "repository")
    restic.check()
    files = disks(restic, seen["status"]["repository"]["snapshotID"], names(seen), folder / "disks")
    assert {name: sha256(path) for name, path in files.items()} == digests(
        backup.kubectl, machine.namespace, s1
    )
    verdict = judge(files)
    assert verdict.consistent, verdict.sentence
    return seen


@pytest.mark.parametrize("strategy", ["Rewind", "RollForward", "Direct", "Auto"])
def test_a_running_vm_again_and_again(
    strategy: str, kubectl: Kubectl, reader: RepositoryReader, repository: Repository, writing_vm: Machine,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Each starts from the one before, whatever that did."""
    namespace, machine = writing_vm.namespace, writing_vm.name
    spec = {**KEEP, "images": {"strategy": strategy}}
    first = start_backup(kubectl, namespace, machine, repository.name, **KEEP)
    first.completed()
    second = start_backup(kubectl, namespace, machine, repository.name, **spec)
    seen = one_moment(second, writing_vm, reader, tmp_path)
    image, direct = volume(seen, "a0"), volume(seen, "b0")
    assert direct["copy"]["changeSource"] == "CSI" and "fallback" not in direct["copy"]
    assert direct["base"]["backup"] == first.name
    assert image["strategy"] == ("RollForward" if strategy == "Auto" else strategy)
    source = "Compare" if strategy == "Direct" else "CSIThroughExtents"
    assert image["copy"]["changeSource"] == source and "fallback" not in image["copy"]
    if strategy == "Rewind":
        assert image["reconcile"]["changeSource"] == source
        assert image["reconcile"]["bytesRewound"] > 0
    for backup in (first, second):
        kubectl.delete("vmbackup", backup.name, namespace)


def test_a_driver_that_leaves_changes_out_is_caught(
    kubectl: Kubectl,
    cluster: Cluster,
    reader: RepositoryReader,
    repository: Repository,
    stopped_vm: Machine,
    tmp_path: Path,
) -> None:
    """Half of the sample is from the volume's start, where this one is silent about a change."""
    namespace, machine = stopped_vm.namespace, stopped_vm.name
    direct = stopped_vm.claim("b0")
    first = start_backup(kubectl, namespace, machine, repository.name, **KEEP)
    first.completed()
    with toolbox(kubectl, "writer", namespace, {direct: "Block"}) as tools:
        noise = ("dd", "if=/dev/urandom", f"of=/claims/{direct}", "bs=1M", "count=2", "conv=notrunc,fsync")
        tools(*noise)
        wanted = tools.sha256(f"/claims/{direct}")
    with injected(cluster, "two", GetMetadataDelta={"lies": [0, 2 * MIB]}):
        second = start_backup(kubectl, namespace, machine, repository.name)
        seen = second.completed()
    copy = volume(seen, "b0")["copy"]
    assert (copy["changeSource"], copy["fallback"]["reason"]) == ("Compare", "SampleContradicts")
    assert copy["bytesChanged"] == 2 * MIB
    restic = reader.copy(namespace, machine, tmp_path / "repository")
    assert restic.sha256(seen["status"]["repository"]["snapshotID"], "b0") == wanted
    events = kubectl.list("events", namespace)
    assert [e["type"] for e in events if e.get("reason") == "SampleContradicts"] == ["Warning"]
    for backup in (first, second):
        kubectl.delete("vmbackup", backup.name, namespace)
