"""The main job: every disk of a VM as of one moment, judged from the data (issue 3, "Done when")."""

from pathlib import Path

import pytest

from tests.cluster.guest.judge import judge
from tests.cluster.guest.vm import Machine
from tests.e2e import machines
from tests.e2e.evidence import RepositoryReader, Restic, digests, keep, sha256
from tests.e2e.harness import Kubectl, Object, condition
from tests.e2e.scene import Backup, Repository, leftovers, start_backup

pytestmark = pytest.mark.kubevirt


def disks(restic: Restic, snapshot: str, volumes: list[str], folder: Path) -> dict[str, Path]:
    """Each volume of a repository's snapshot as a file."""
    folder.mkdir(parents=True)
    return {name: restic.dump(snapshot, name, folder / f"{name}.img") for name in volumes}


def names(seen: Object, role: str = "") -> list[str]:
    """The backup's volumes, of that role."""
    return [v["name"] for v in seen["status"]["volumes"] if role in ("", v["role"])]


def run_and_judge(backup: Backup, machine: str, reader: RepositoryReader, folder: Path) -> Object:
    """Follow a backup to its end; then S1 must be in it byte for byte, and in it one moment.

    Returns the ended backup. Leaves the interim copies' files in folder/interim.
    """
    s1 = keep(backup, "t1")
    s2 = keep(backup, "t2", role="Image")
    seen = backup.until_phase("Reconciling")
    interim = reader.copy(backup.namespace, machine, folder / "repository-interim")
    for volume in names(seen, "Image"):
        snapshot = next(v for v in seen["status"]["volumes"] if v["name"] == volume)["copy"]["snapshotID"]
        disks(interim, snapshot, [volume], folder / "interim" / volume)
    seen = backup.completed()
    committed = reader.copy(backup.namespace, machine, folder / "repository")
    committed.check()
    files = disks(committed, seen["status"]["repository"]["snapshotID"], names(seen), folder / "committed")
    want = digests(backup.kubectl, backup.namespace, s1)
    later = digests(backup.kubectl, backup.namespace, s2)
    assert {name: sha256(path) for name, path in files.items()} == want
    for volume in names(seen, "Image"):
        assert sha256(folder / "interim" / volume / f"{volume}.img") == later[volume], (
            "the interim copy is S2"
        )
    assert [s["tags"] for s in committed.snapshots() if "interim" in s["tags"] or "part" in s["tags"]] == []
    assert leftovers(backup.kubectl, seen["metadata"]["uid"]) == []
    return seen


def assert_proven(seen: Object, *, achieved: str, method: str) -> None:
    """What the status says of T1."""
    consistency = seen["status"]["consistency"]
    assert (consistency["achieved"], consistency["method"], consistency["proven"]) == (achieved, method, True)
    for kind in ("Ready", "PointInTime", "Thawed", "Reconciled", "Verified"):
        assert condition(seen, kind)["status"] == "True", condition(seen, kind)
    assert condition(seen, "Stalled").get("status", "False") == "False"
    assert seen["status"]["progress"]["percent"] == 100


def committed_disks(seen: Object, folder: Path) -> dict[str, Path]:
    """What run_and_judge left of the commit."""
    return {name: folder / "committed" / f"{name}.img" for name in names(seen)}


def assert_rewound(seen: Object, folder: Path) -> None:
    """The sequence is whole in the commit, and broken where the images are taken from T2."""
    committed = committed_disks(seen, folder)
    verdict = judge(committed)
    assert verdict.consistent, verdict.sentence
    assert len(verdict.readings) == len(committed)
    interim = {name: folder / "interim" / name / f"{name}.img" for name in names(seen, "Image")}
    assert not judge({**committed, **interim}).consistent, (
        "T2's images beside T1's direct disks must not pass for one moment"
    )
    for name, path in interim.items():
        assert sha256(committed[name]) != sha256(path)


def test_running_vm_comes_back_as_of_t1(
    kubectl: Kubectl, reader: RepositoryReader, repository: Repository, writing_vm: Machine, tmp_path: Path
) -> None:
    machine, namespace = writing_vm.name, writing_vm.namespace
    backup = start_backup(kubectl, namespace, machine, repository.name)
    seen = run_and_judge(backup, machine, reader, tmp_path)
    assert_proven(seen, achieved="Filesystem", method="GuestFreeze")
    image = next(v for v in seen["status"]["volumes"] if v["role"] == "Image")
    assert image["reconcile"]["bytesChanged"] > 0
    assert len({v["driver"] for v in seen["status"]["volumes"]}) == 2, "the disks live on two drivers"
    assert_rewound(seen, tmp_path)


def test_two_images_and_two_direct_disks(
    kubectl: Kubectl, reader: RepositoryReader, repository: Repository, shop: str, tmp_path: Path
) -> None:
    machine = machines.create(kubectl, Machine("four", shop, images=2, directs=2))
    backup = start_backup(kubectl, shop, machine.name, repository.name)
    seen = run_and_judge(backup, machine.name, reader, tmp_path)
    kubectl.delete("vm", machine.name, shop)
    assert_proven(seen, achieved="Filesystem", method="GuestFreeze")
    assert_rewound(seen, tmp_path)


def test_idle_vm(
    kubectl: Kubectl, reader: RepositoryReader, repository: Repository, shop: str, tmp_path: Path
) -> None:
    machine = machines.create(kubectl, Machine("idle", shop, parameters={"writer": "idle"}))
    backup = start_backup(kubectl, shop, machine.name, repository.name)
    seen = run_and_judge(backup, machine.name, reader, tmp_path)
    kubectl.delete("vm", machine.name, shop)
    assert_proven(seen, achieved="Filesystem", method="GuestFreeze")
    verdict = judge(committed_disks(seen, tmp_path))
    assert verdict.consistent, verdict.sentence


def test_vm_without_agent_is_paused(
    kubectl: Kubectl, reader: RepositoryReader, repository: Repository, agentless_vm: Machine, tmp_path: Path
) -> None:
    backup = start_backup(kubectl, agentless_vm.namespace, agentless_vm.name, repository.name)
    seen = run_and_judge(backup, agentless_vm.name, reader, tmp_path)
    assert_proven(seen, achieved="Crash", method="Pause")
    vmi = kubectl.get("vmi", agentless_vm.name, agentless_vm.namespace)
    assert vmi is not None
    assert condition(vmi, "Paused").get("status") != "True"
