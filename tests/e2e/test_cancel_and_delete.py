"""Cancel and deletion at any step end with a thawed guest and nothing left behind (issue 3)."""

from pathlib import Path

import pytest

from tests.cluster.guest.vm import Machine
from tests.e2e.evidence import RepositoryReader
from tests.e2e.harness import Kubectl, condition
from tests.e2e.scene import PHASES, Backup, Repository, leftovers, start_backup

pytestmark = pytest.mark.kubevirt
STEPS = PHASES[1:-2]


def assert_guest_runs(kubectl: Kubectl, machine: Machine) -> None:
    """Neither frozen nor paused."""
    vmi = kubectl.get("vmi", machine.name, machine.namespace)
    assert vmi is not None
    assert not vmi["status"].get("fsFreezeStatus")
    assert condition(vmi, "Paused").get("status") != "True"


def assert_no_parts(reader: RepositoryReader, machine: Machine, backup: Backup, folder: Path) -> None:
    """No snapshot of this backup is in the repository."""
    if not reader.exists(machine.namespace, machine.name):
        return
    repository = reader.copy(machine.namespace, machine.name, folder)
    tag = f"backup={backup.namespace}/{backup.name}"
    assert [s["id"] for s in repository.snapshots() if tag in s["tags"]] == []
    repository.check()


@pytest.mark.parametrize("phase", STEPS)
def test_cancelled_at(
    phase: str,
    kubectl: Kubectl,
    reader: RepositoryReader,
    repository: Repository,
    writing_vm: Machine,
    tmp_path: Path,
) -> None:
    backup = start_backup(
        kubectl, writing_vm.namespace, writing_vm.name, repository.name, name=f"cancel-{phase.lower()}"
    )
    backup.until_phase(phase)
    kubectl(
        *("patch", "vmbackup", backup.name, "-n", backup.namespace, "--type=merge"),
        *("--patch", '{"spec": {"cancel": true}}'),
    )
    seen = backup.until_ended()
    assert seen["status"]["phase"] == "Cancelled", backup.words(seen)
    assert leftovers(kubectl, seen["metadata"]["uid"]) == []
    assert_guest_runs(kubectl, writing_vm)
    assert_no_parts(reader, writing_vm, backup, tmp_path / "repository")


@pytest.mark.parametrize("phase", ["Quiescing", "Copying", "Committing"])
def test_deleted_at(
    phase: str,
    kubectl: Kubectl,
    reader: RepositoryReader,
    repository: Repository,
    writing_vm: Machine,
    tmp_path: Path,
) -> None:
    backup = start_backup(
        kubectl, writing_vm.namespace, writing_vm.name, repository.name, name=f"delete-{phase.lower()}"
    )
    uid = backup.until_phase(phase)["metadata"]["uid"]
    kubectl.delete("vmbackup", backup.name, backup.namespace)
    assert leftovers(kubectl, uid) == []
    assert_guest_runs(kubectl, writing_vm)
    assert_no_parts(reader, writing_vm, backup, tmp_path / "repository")


def test_deletion_policy(
    kubectl: Kubectl, reader: RepositoryReader, repository: Repository, stopped_vm: Machine, tmp_path: Path
) -> None:
    where = (kubectl, stopped_vm.namespace, stopped_vm.name, repository.name)
    kept = start_backup(*where, name="policy-retain")
    gone = start_backup(*where, name="policy-delete", deletionPolicy="Delete")
    snapshot = kept.completed()["status"]["repository"]["snapshotID"]
    other = gone.completed()["status"]["repository"]["snapshotID"]
    for backup in (kept, gone):
        kubectl.delete("vmbackup", backup.name, backup.namespace)
    left = {s["id"] for s in reader.copy(stopped_vm.namespace, stopped_vm.name, tmp_path / "r").snapshots()}
    assert snapshot in left
    assert other not in left
