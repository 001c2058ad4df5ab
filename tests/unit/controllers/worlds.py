"""Worlds made by hand, for tests of single decisions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from coeval.api.v1alpha1.backuprepository import BackupRepositorySpec
from coeval.api.v1alpha1.moment import Consistency, ConsistencyStatus, QuiesceStatus
from coeval.api.v1alpha1.vmbackup import (
    CopyStatus,
    ReconcileStatus,
    RepositoryStatus,
    Role,
    SnapshotStatus,
    StepState,
    VMBackupSpec,
    VMBackupStatus,
    VolumeStatus,
)
from coeval.controllers.mover_state import MoverJob, MoverPod
from coeval.controllers.settings import Settings
from coeval.controllers.vmbackup.plan import (
    Plan,
)
from coeval.controllers.vmbackup.world import Backup, Repository, World
from coeval.domain.guest import GuestVolume, Instance, Machine
from coeval.domain.naming import child
from coeval.domain.storage import Claim, Content, Snapshot, SnapshotClass

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
SETTINGS = Settings()
UID = "u-1"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


VOLUMES = (
    GuestVolume("root", "persistentVolumeClaim", "db-root"),
    GuestVolume("data", "persistentVolumeClaim", "db-data"),
)
ROOT = VolumeStatus(
    name="root",
    role=Role.IMAGE,
    claim="db-root",
    claim_uid="c-root",
    persistent_volume="pv-root",
    driver="one",
    storage_class="one",
    snapshot_class="one",
    size_bytes=1 << 30,
)
DATA = ROOT.model_copy(
    update={
        "name": "data",
        "role": Role.DIRECT,
        "claim": "db-data",
        "claim_uid": "c-data",
        "persistent_volume": "pv-data",
    }
)
CLAIMS = {
    "db-root": Claim("db-root", "c-root", "Bound", "Filesystem", "pv-root", "one", "one", 1 << 30),
    "db-data": Claim("db-data", "c-data", "Bound", "Block", "pv-data", "two", "two", 1 << 30),
}
REPOSITORY = Repository(
    "main",
    ready=True,
    message="",
    allowed=True,
    spec=BackupRepositorySpec.model_validate(
        {
            "location": {"volume": {"persistentVolumeClaim": "repo"}},
            "encryption": {"passwordSecret": {"name": "main-key"}},
        }
    ),
)
INSTANCE = Instance(
    uid="i-1", phase="Running", node="n1", pods=("p",), agent_since="t", freezable=True, volumes=VOLUMES
)
MACHINE = Machine("m-1", 1, VOLUMES)


def world(status: VMBackupStatus | None = None, **fields: Any) -> World:
    backup = Backup(
        namespace="shop",
        name="b",
        uid=UID,
        generation=1,
        created=NOW,
        deleting=False,
        finalizer=True,
        spec=VMBackupSpec(virtual_machine="db", repository="main"),
        status=status or VMBackupStatus(started_at=NOW),
    )
    here: dict[str, Any] = {
        "machine": MACHINE,
        "instance": INSTANCE,
        "claims": CLAIMS,
        "snapshot_classes": (SnapshotClass("one", "one"), SnapshotClass("two", "two")),
        "storage_classes": frozenset({"one", "two"}),
        "repository": REPOSITORY,
    }
    return World(backup=backup, **(here | fields))


def of_backup(seen: World, **fields: Any) -> World:
    return replace(seen, backup=replace(seen.backup, **fields))


def kinds(plan: Plan) -> list[type]:
    return [type(a) for a in plan.actions]


def the(plan: Plan, kind: type) -> Any:
    found = [a for a in plan.actions if isinstance(a, kind)]
    assert len(found) == 1, plan.actions
    return found[0]


def condition(plan: Plan, type_: str) -> tuple[str, str]:
    return next((c.status, c.reason) for c in plan.status.conditions or () if c.type == type_)


def snapshots(**fields: Any) -> dict[str, Snapshot]:
    names = [child(UID, "t1", v, 1) for v in ("root", "data")]
    return {n: Snapshot(n, f"uid-{n}", NOW, **fields) for n in names}


def transferring(root: VolumeStatus = ROOT, data: VolumeStatus = DATA) -> VMBackupStatus:
    return VMBackupStatus(
        started_at=NOW,
        point_in_time=NOW,
        volumes=[root, data],
        repository=RepositoryStatus(path="shop/db"),
        consistency=ConsistencyStatus(required=Consistency.AUTO, proven=True),
        quiesce=QuiesceStatus(method="GuestFreeze", intent_at=NOW, release_seen_at=at(9), attempts=1),
    )


def known(volume: VolumeStatus, moment: str = "t1") -> SnapshotStatus:
    name = child(UID, moment, volume.name, 1 if moment == "t1" else None)
    return SnapshotStatus(snapshot=name, uid=f"uid-{name}", handle=f"h-{name}", restore_size=1 << 30)


ROOT1 = ROOT.model_copy(update={"t1": known(ROOT)})
DATA1 = DATA.model_copy(update={"t1": known(DATA)})
DATA_DONE = DATA1.model_copy(update={"copy_": CopyStatus(state=StepState.DONE, snapshot_id="s1")})
ROOT2 = ROOT1.model_copy(update={"t2": known(ROOT, "t2")})
ROOT_COPIED = ROOT2.model_copy(update={"copy_": CopyStatus(state=StepState.DONE, snapshot_id="s2")})
ROOT_DONE = ROOT_COPIED.model_copy(
    update={"reconcile": ReconcileStatus(state=StepState.DONE, snapshot_id="s3")}
)
READY = snapshots(creation_time=NOW, ready=True)
TWIN = child(UID, "t1-twin", "data")


def twin(ready: bool = True, **fields: Any) -> dict[str, Any]:
    return {
        "twins": {TWIN: Snapshot(TWIN, "tu", NOW, ready=ready, **fields)},
        "twin_contents": {TWIN: Content(TWIN, "cu", NOW, ref=("coeval-system", TWIN, "tu"))},
    }


def mover(verb: str, volume: str | None = None, **fields: Any) -> dict[str, MoverJob]:
    name = child(UID, verb, volume)
    return {name: MoverJob(name, "j", NOW, **fields)}


def pod(**fields: Any) -> MoverPod:
    usual: dict[str, Any] = {"name": "p", "uid": "p", "created": NOW, "phase": "Failed", "job": "j"}
    return MoverPod(**(usual | fields))
