"""Classes that retain: what lives for one backup goes with it all the same, from the storage itself."""

from collections.abc import Iterator

import pytest

from tests.cluster.guest.vm import Machine
from tests.cluster.layout import DRIVERS, Cluster
from tests.e2e import machines
from tests.e2e.faults import backend
from tests.e2e.harness import Kubectl, until
from tests.e2e.scene import Repository, leftovers, start_backup

pytestmark = pytest.mark.kubevirt


@pytest.fixture
def retained(kubectl: Kubectl) -> Iterator[str]:
    """A storage class of the first driver with Retain; meanwhile its snapshot class retains, too."""
    kubectl.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "retained"},
            "provisioner": DRIVERS[0].name,
            "reclaimPolicy": "Retain",
        }
    )
    snapshots = ("patch", "volumesnapshotclass", DRIVERS[0].short, "--type=merge", "-p")
    kubectl(*snapshots, '{"deletionPolicy": "Retain"}')
    yield "retained"
    kubectl(*snapshots, '{"deletionPolicy": "Delete"}')
    kubectl.delete("storageclass", "retained")


def test_nothing_is_retained(
    kubectl: Kubectl, cluster: Cluster, repository: Repository, shop: str, retained: str
) -> None:
    machine = machines.create(kubectl, Machine("keeper", shop, running=False, image_class=retained))
    volumes, snapshots = (backend(cluster, DRIVERS[0].short, kind) for kind in ("volumes", "snapshots"))
    seen = start_backup(kubectl, shop, machine.name, repository.name).completed()
    assert leftovers(kubectl, seen["metadata"]["uid"]) == []
    until(
        lambda: (
            (
                backend(cluster, DRIVERS[0].short, "volumes") <= volumes
                and backend(cluster, DRIVERS[0].short, "snapshots") <= snapshots
            )
            or None
        ),
        what="the driver to have removed the backup's volumes and snapshots",
        seconds=60,
    )
    kubectl.delete("vm", machine.name, shop)
