"""What a reconcile looks at: everything that was observed, in small frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from coeval.api.v1alpha1.backuprepository import BackupRepositorySpec
from coeval.api.v1alpha1.vmbackup import Phase, VMBackupSpec, VMBackupStatus, VolumeStatus
from coeval.controllers.mover_state import MoverJob, MoverPod
from coeval.domain.guest import Instance, Machine
from coeval.domain.storage import Claim, Content, MetadataService, Snapshot, SnapshotClass

FINALIZER = "coeval.dev/cleanup"
TERMINAL = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED})


class Stage(StrEnum):
    """Where a backup is, read from what its status holds; the phase is derived for people."""

    PREFLIGHT = "Preflight"
    MOMENT = "Moment"
    TRANSFER = "Transfer"
    FINISH = "Finish"
    TERMINAL = "Terminal"


@dataclass(frozen=True, slots=True)
class Backup:
    """The VMBackup. `finalizer`: ours is on it."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: datetime
    deleting: bool
    finalizer: bool
    spec: VMBackupSpec
    status: VMBackupStatus

    @property
    def stage(self) -> Stage:
        """What it needs next."""
        return stage(self.status)

    @property
    def holds_guest(self) -> bool:
        """The guest is, or may be, frozen or paused by us."""
        return holds_guest(self.status)


@dataclass(frozen=True, slots=True)
class Rival:
    """Another VMBackup of the same VM that has not ended. `started`: it is past its preflight."""

    name: str
    uid: str
    created: datetime
    started: bool


@dataclass(frozen=True, slots=True)
class Earlier:
    """A VMBackup of the same VM in the same repository that is complete, but for its clean-up perhaps."""

    name: str
    point_in_time: datetime
    snapshot_id: str
    volumes: tuple[VolumeStatus, ...]


@dataclass(frozen=True, slots=True)
class Repository:
    """The BackupRepository, and whether our namespace may use it."""

    name: str
    ready: bool
    message: str
    allowed: bool
    spec: BackupRepositorySpec


@dataclass(frozen=True, slots=True)
class TwinClaim:
    """A claim of ours made from a twin. `trouble` is the last warning about it, where it is not Bound."""

    name: str
    uid: str
    created: datetime
    bound: bool
    deleting: bool = False
    source: str | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Anything else of ours that only needs to be found and removed."""

    name: str
    uid: str
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """Observed live for one reconcile; what the stage does not need is empty.

    `snapshots` and `contents` are the originals in the VM's namespace, by name; `twins`, `twin_contents`,
    `claims` of twins, `jobs`, `pods` and `manifests` are ours in the operator's namespace. `base_snapshots`
    are those that `earlier` backups have left, by name; `metadata_services` are by driver, or what is wrong
    with one.
    """

    backup: Backup
    rivals: tuple[Rival, ...] = ()
    earlier: tuple[Earlier, ...] = ()
    base_snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    machine: Machine | None = None
    instance: Instance | None = None
    claims: Mapping[str, Claim] = field(default_factory=dict)
    snapshot_classes: tuple[SnapshotClass, ...] = ()
    storage_classes: frozenset[str] = frozenset()
    repository: Repository | None = None
    metadata_services: Mapping[str, MetadataService | str] = field(default_factory=dict)
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    contents: Mapping[str, Content] = field(default_factory=dict)
    twins: Mapping[str, Snapshot] = field(default_factory=dict)
    twin_contents: Mapping[str, Content] = field(default_factory=dict)
    twin_claims: Mapping[str, TwinClaim] = field(default_factory=dict)
    jobs: Mapping[str, MoverJob] = field(default_factory=dict)
    pods: tuple[MoverPod, ...] = ()
    manifests: Mapping[str, Piece] = field(default_factory=dict)


def stage(status: VMBackupStatus) -> Stage:
    """The stage that a status is in."""
    if status.phase in TERMINAL:
        return Stage.TERMINAL
    if status.outcome is not None:
        return Stage.FINISH
    if status.volumes is None:
        return Stage.PREFLIGHT
    if status.point_in_time is None:
        return Stage.MOMENT
    return Stage.TRANSFER


def holds_guest(status: VMBackupStatus) -> bool:
    """An intent to freeze or pause is on record, and its release is not proven yet."""
    quiesce = status.quiesce
    return (
        quiesce is not None
        and quiesce.intent_at is not None
        and quiesce.release_seen_at is None
        and quiesce.method in ("GuestFreeze", "Pause")
    )
