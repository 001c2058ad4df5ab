"""No mover has API access, and no tenant namespace ever holds the repository's Secret (issue 3)."""

import pytest

from tests.cluster.guest.vm import Machine
from tests.cluster.layout import DRIVERS
from tests.e2e.harness import OPERATOR_NAMESPACE, Kubectl
from tests.e2e.scene import TERMINAL, Repository, start_backup

pytestmark = pytest.mark.kubevirt


def test_movers_and_secrets_of_a_whole_run(
    kubectl: Kubectl, repository: Repository, stopped_vm: Machine
) -> None:
    """Every mover pod that is seen in a run, and every Secret of the tenant meanwhile."""
    backup = start_backup(kubectl, stopped_vm.namespace, stopped_vm.name, repository.name)
    movers = {}
    while (seen := backup.now()).get("status", {}).get("phase") not in TERMINAL:
        for pod in kubectl.list("pods", OPERATOR_NAMESPACE, "app.kubernetes.io/managed-by=coeval"):
            movers[pod["metadata"]["name"]] = pod
        assert kubectl.list("secrets", stopped_vm.namespace) == []
    assert seen["status"]["phase"] == "Completed", backup.words(seen)
    assert len(movers) >= 4, "copy of two disks, rewind, commit and verification were not all seen"
    for name, pod in movers.items():
        spec = pod["spec"]
        assert spec["serviceAccountName"] == "coeval-mover", name
        assert spec["automountServiceAccountToken"] is False, name
        # A token is good for a driver's SnapshotMetadataService alone, whose audience is its name here.
        tokens = [
            source["serviceAccountToken"]["audience"]
            for volume in spec["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
            if "serviceAccountToken" in source
        ]
        assert set(tokens) <= {driver.name for driver in DRIVERS} and len(tokens) <= 1, f"{name}: {tokens}"
        assert repository.password not in str(pod), name


def test_movers_have_hardly_any_rights(kubectl: Kubectl) -> None:
    mover = f"system:serviceaccount:{OPERATOR_NAMESPACE}:coeval-mover"
    for verb, kind in (("get", "secrets"), ("list", "pods"), ("get", "vmbackups"), ("create", "jobs")):
        answer = kubectl("auth", "can-i", verb, kind, "-n", OPERATOR_NAMESPACE, f"--as={mover}", check=False)
        assert answer.strip() == "no", f"{verb} {kind}"


def test_password_is_in_no_log(kubectl: Kubectl, repository: Repository) -> None:
    logs = kubectl("logs", "-n", OPERATOR_NAMESPACE, "deployment/coeval-operator", "--tail=-1")
    assert repository.password not in logs
