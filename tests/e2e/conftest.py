"""The cluster that the environment names, and what most tests share on it: operator, repository, VMs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import lifecycle
from tests.cluster.guest.vm import Machine
from tests.cluster.layout import Cluster
from tests.e2e import machines
from tests.e2e.evidence import RepositoryReader, repository_tools
from tests.e2e.harness import Kubectl
from tests.e2e.scene import Repository, install_operator, make_repository


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """Of $KUBECONFIG, else of the test cluster $COEVAL_CLUSTER."""
    named = Cluster(os.environ.get("COEVAL_CLUSTER", "default")).kubeconfig
    kubeconfig = Path(os.environ.get("KUBECONFIG") or named)
    if not kubeconfig.exists():
        pytest.fail(f"no kubeconfig at {kubeconfig}; start a cluster with: make cluster")
    return Kubectl(kubeconfig)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The test cluster itself, for what no kubeconfig gives: faults of its drivers."""
    found = Cluster(os.environ.get("COEVAL_CLUSTER", "default"))
    if not lifecycle.is_up(found):
        pytest.fail(f"cluster {found.name} is down; start it with: make cluster CLUSTER={found.name}")
    return found


@pytest.fixture(scope="session")
def operator(kubectl: Kubectl) -> None:
    """As we ship it."""
    install_operator(kubectl)


@pytest.fixture(scope="session")
def repository(kubectl: Kubectl, operator: None) -> Repository:
    """On a claim of the first driver."""
    return make_repository(kubectl, "shared")


@pytest.fixture(scope="session")
def reader(kubectl: Kubectl, repository: Repository) -> Iterator[RepositoryReader]:
    """Takes copies of what is in the repository."""
    with repository_tools(kubectl, repository) as found:
        yield found


@pytest.fixture(scope="session")
def shop(kubectl: Kubectl) -> Iterator[str]:
    """A tenant's namespace."""
    yield machines.namespace(kubectl, "shop")
    kubectl.delete("namespace", "shop", wait=False)


@pytest.fixture(scope="session")
def writing_vm(kubectl: Kubectl, shop: str) -> Machine:
    """Runs, and its guest writes the sequence for ever. The examples and pages know it by this name."""
    return machines.create(kubectl, Machine("db", shop))


@pytest.fixture(scope="session")
def stopped_vm(kubectl: Kubectl, shop: str) -> Machine:
    """Never ran; its direct disk is a lun."""
    return machines.create(kubectl, Machine("stopped", shop, device="lun", running=False))


@pytest.fixture(scope="session")
def agentless_vm(kubectl: Kubectl, shop: str) -> Machine:
    """Runs and writes, and has no guest agent."""
    return machines.create(kubectl, Machine("agentless", shop, parameters={"agent": "no"}))
