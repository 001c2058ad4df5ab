"""The scene that tests and the demo share: the operator as we ship it, a repository, backups."""

import base64
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.harness import OPERATOR_NAMESPACE, Kubectl, Object, condition

TERMINAL = ("Completed", "Failed", "Cancelled")
PHASES = (
    "Pending",
    "Quiescing",
    "SnapshottingT1",
    "Copying",
    "Reconciling",
    "Committing",
    "CleaningUp",
    "Completed",
)


def install_operator(kubectl: Kubectl) -> None:
    """Apply what we ship, with the test image, and wait until it serves."""
    kubectl(
        "apply", "--server-side", "--force-conflicts", "--validate=strict", "-k", "manifests/overlays/test"
    )
    kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/vmbackups.coeval.dev")
    # the same tag may stand for a new image
    kubectl("rollout", "restart", "-n", OPERATOR_NAMESPACE, "deployment/coeval-operator")
    kubectl("rollout", "status", "-n", OPERATOR_NAMESPACE, "deployment/coeval-operator", "--timeout=120s")


@dataclass(frozen=True)
class Repository:
    """A BackupRepository on a claim of the operator's namespace, and the password that opens it."""

    name: str
    claim: str
    password: str


def make_repository(
    kubectl: Kubectl, name: str, *, size: str = "4Gi", storage_class: str = "one", wait: bool = True
) -> Repository:
    """Secret, claim and BackupRepository, Ready unless told not to wait; one that is there is used."""
    secret = kubectl.get("secret", f"{name}-key", OPERATOR_NAMESPACE)
    password = base64.b64decode(secret["data"]["password"]).decode() if secret else secrets.token_hex(16)
    made = Repository(name=name, claim=f"{name}-repository", password=password)
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{name}-key", "namespace": OPERATOR_NAMESPACE},
            "data": {"password": base64.b64encode(made.password.encode()).decode()},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": made.claim, "namespace": OPERATOR_NAMESPACE},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": storage_class,
                "resources": {"requests": {"storage": size}},
            },
        },
        {
            "apiVersion": "coeval.dev/v1alpha1",
            "kind": "BackupRepository",
            "metadata": {"name": name},
            "spec": {
                "location": {"volume": {"persistentVolumeClaim": made.claim}},
                "encryption": {"passwordSecret": {"name": f"{name}-key", "key": "password"}},
            },
        },
    )
    if wait:
        kubectl("wait", "backuprepository", name, "--for=condition=Ready", "--timeout=120s")
    return made


def vm_backup(name: str, namespace: str, machine: str, repository: str, **spec: Any) -> Object:
    """A VMBackup as a user writes it."""
    return {
        "apiVersion": "coeval.dev/v1alpha1",
        "kind": "VMBackup",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"virtualMachine": machine, "repository": repository, **spec},
    }


@dataclass(frozen=True)
class Backup:
    """A VMBackup that runs."""

    kubectl: Kubectl
    name: str
    namespace: str

    def now(self) -> Object:
        """As it is; it must exist."""
        found = self.kubectl.get("vmbackup", self.name, self.namespace)
        assert found is not None, f"VMBackup {self.namespace}/{self.name} is gone"
        return found

    def until(self, reached: Callable[[Object], bool], *, what: str, seconds: float = 240) -> Object:
        """Poll until `reached`."""
        return self.kubectl.wait(
            "vmbackup", self.name, self.namespace, reached, what=f"{self.name}: {what}", seconds=seconds
        )

    def until_phase(self, phase: str, *, seconds: float = 240) -> Object:
        """Until this phase or a later one; a failure before it fails the test with the backup's own words."""
        later = PHASES[PHASES.index(phase) :]

        def reached(seen: Object) -> bool:
            at = seen.get("status", {}).get("phase", "Pending")
            assert at not in ("Failed", "Cancelled") or phase == at, (
                f"{self.name} is {at}: {self.words(seen)}"
            )
            return at in later

        return self.until(reached, what=f"phase {phase}", seconds=seconds)

    def until_snapshots(self, moment: str, *, role: str = "") -> list[Object]:
        """Until the snapshots `t1` or `t2` of all volumes (of that role) have handles; those volumes."""

        def volumes(seen: Object) -> list[Object]:
            return [v for v in seen.get("status", {}).get("volumes", []) if role in ("", v["role"])]

        def known(seen: Object) -> bool:
            return bool(volumes(seen)) and all((v.get(moment) or {}).get("handle") for v in volumes(seen))

        return volumes(self.until(known, what=f"snapshots {moment} known by handle"))

    def until_ended(self, *, seconds: float = 300) -> Object:
        """Until Completed, Failed or Cancelled."""
        return self.until(
            lambda seen: seen.get("status", {}).get("phase") in TERMINAL, what="its end", seconds=seconds
        )

    def completed(self, *, seconds: float = 300) -> Object:
        """Until its end, which must be Completed."""
        seen = self.until_ended(seconds=seconds)
        assert seen["status"]["phase"] == "Completed", self.words(seen)
        return seen

    @staticmethod
    def words(seen: Object) -> str:
        """What its Ready condition says."""
        ready = condition(seen, "Ready")
        return f"{ready.get('reason')}: {ready.get('message')}"


def start_backup(
    kubectl: Kubectl, namespace: str, machine: str, repository: str, *, name: str = "", **spec: Any
) -> Backup:
    """Apply a VMBackup under a name that was not used before."""
    name = name or f"{machine}-{time.time_ns() // 1_000_000 % 100_000_000}"
    kubectl.apply(vm_backup(name, namespace, machine, repository, **spec))
    return Backup(kubectl, name, namespace)


def leftovers(kubectl: Kubectl, uid: str) -> list[str]:
    """Everything in the cluster that still carries the backup's label."""
    kinds = (
        "jobs",
        "pods",
        "persistentvolumeclaims",
        "configmaps",
        "volumesnapshots",
        "volumesnapshotcontents",
    )
    return [
        f"{found['kind']} {found['metadata'].get('namespace', '')}/{found['metadata']['name']}"
        for kind in kinds
        for found in kubectl.list(kind, selector=f"coeval.dev/backup-uid={uid}")
    ]
