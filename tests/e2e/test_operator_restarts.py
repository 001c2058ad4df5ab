"""The operator's pod dies at each phase; the backup still ends right, the guest is never left frozen."""

from pathlib import Path

import pytest

from tests.cluster.guest.judge import judge
from tests.cluster.guest.vm import Machine
from tests.e2e.evidence import RepositoryReader, digests, keep, sha256
from tests.e2e.harness import OPERATOR_NAMESPACE, Kubectl
from tests.e2e.scene import PHASES, Repository, start_backup
from tests.e2e.test_one_moment import disks, names

pytestmark = pytest.mark.kubevirt


def kill_operator(kubectl: Kubectl) -> None:
    """With no grace: it does not get to say good-bye."""
    kubectl(
        *("delete", "pod", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=coeval-operator"),
        *("--grace-period=0", "--force", "--wait=true"),
    )


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_killed_at(
    phase: str,
    kubectl: Kubectl,
    reader: RepositoryReader,
    repository: Repository,
    writing_vm: Machine,
    tmp_path: Path,
) -> None:
    machine, namespace = writing_vm.name, writing_vm.namespace
    backup = start_backup(
        kubectl, namespace, machine, repository.name, name=f"{machine}-kill-{phase.lower()}"
    )
    # While they are sure to be there: a backup that cleans up removes its snapshots.
    late = PHASES.index(phase) > PHASES.index("SnapshottingT1")
    s1 = keep(backup, "t1") if late else []
    backup.until_phase(phase)
    kill_operator(kubectl)
    s1 = s1 or keep(backup, "t1")
    seen = backup.completed()
    copy = reader.copy(namespace, machine, tmp_path / "repository")
    files = disks(copy, seen["status"]["repository"]["snapshotID"], names(seen), tmp_path / "committed")
    assert {name: sha256(path) for name, path in files.items()} == digests(kubectl, namespace, s1)
    assert judge(files).consistent, judge(files).sentence
    vmi = kubectl.wait(
        "vmi",
        machine,
        namespace,
        lambda found: not found["status"].get("fsFreezeStatus"),
        what="a thawed guest",
        seconds=20,
    )
    assert vmi["status"]["phase"] == "Running"
