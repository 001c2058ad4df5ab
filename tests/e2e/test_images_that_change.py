"""Images that were grown, punched and rewritten between T1 and T2 come back as they were at T1 (issue 3)."""

from pathlib import Path

import pytest

from tests.cluster.guest.vm import Machine
from tests.cluster.layout import Cluster
from tests.e2e import machines
from tests.e2e.evidence import RepositoryReader
from tests.e2e.faults import injected, volume_handle
from tests.e2e.harness import Kubectl
from tests.e2e.scene import Repository, start_backup
from tests.e2e.test_one_moment import assert_proven, run_and_judge
from tests.e2e.toolbox import toolbox

pytestmark = pytest.mark.kubevirt

CHANGES = {
    "grown": "truncate --size=+33M disk.img"
    " && dd if=/dev/urandom of=disk.img bs=1M count=3 seek=20 conv=notrunc",
    "shrunk": "truncate --size=-5M disk.img",
    "punched": "fallocate --punch-hole --offset=3145728 --length=20971520 disk.img",
    "filled": "fallocate --zero-range --offset=0 --length=1048576 disk.img"
    " && dd if=/dev/urandom of=disk.img bs=4096 count=700 seek=9999 conv=notrunc",
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_between_t1_and_t2(
    change: str,
    kubectl: Kubectl,
    cluster: Cluster,
    reader: RepositoryReader,
    repository: Repository,
    shop: str,
    tmp_path: Path,
) -> None:
    machine = machines.create(kubectl, Machine(f"image-{change}", shop, running=False))
    claim = machine.claim("a0")
    handle = volume_handle(kubectl, shop, claim)
    with toolbox(kubectl, f"writer-{change}", shop, {claim: "Filesystem"}) as tools:
        backup = start_backup(kubectl, shop, machine.name, repository.name)
        backup.until_snapshots("t1")
        # T2 waits until the change is done
        with injected(cluster, "one", CreateSnapshot={"error": "Unavailable", "volume": handle}):
            assert not backup.now()["status"]["volumes"][0].get("t2")
            tools("sh", "-ec", f"cd /claims/{claim} && {CHANGES[change]} && sync disk.img")
        seen = run_and_judge(backup, machine.name, reader, tmp_path)
    assert_proven(seen, achieved="Crash", method="Stopped")
    image = next(v for v in seen["status"]["volumes"] if v["role"] == "Image")
    assert image["reconcile"]["bytesChanged"] > 0
    kubectl.delete("vm", machine.name, shop)


def test_vm_that_never_ran_has_nothing_to_rewind(
    kubectl: Kubectl, reader: RepositoryReader, repository: Repository, stopped_vm: Machine, tmp_path: Path
) -> None:
    """Its direct disk is a lun, which only a stopped VM can have here."""
    backup = start_backup(kubectl, stopped_vm.namespace, stopped_vm.name, repository.name)
    seen = run_and_judge(backup, stopped_vm.name, reader, tmp_path)
    assert_proven(seen, achieved="Crash", method="Stopped")
    image = next(v for v in seen["status"]["volumes"] if v["role"] == "Image")
    assert image["reconcile"]["bytesChanged"] == 0
