"""VMBackup: one backup of one VM, every disk as of the same moment (api.md)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from coeval.api.v1alpha1.common import Bytes, Conditions, Duration, Model, Name, ObjectName, Text
from coeval.api.v1alpha1.moment import Consistency, ConsistencyStatus, QuiesceStatus
from coeval.api.v1alpha1.rules import immutable_but_for, rule

VolumeNames = Annotated[
    list[ObjectName],
    Field(min_length=1, max_length=256, json_schema_extra={"x-kubernetes-list-type": "set"}),
]


class Strategy(StrEnum):
    """How an image's copy reaches T1 (architecture.md, "One engine").

    Rewind: copied from T2, then T1's content is put back. RollForward: the copy of an earlier backup is moved
    on to T1. Direct: all of T1 is read. Auto: RollForward where the driver can say what changed since the
    earlier backup, else Rewind.
    """

    REWIND = "Rewind"
    ROLL_FORWARD = "RollForward"
    DIRECT = "Direct"
    AUTO = "Auto"


class KeepBase(StrEnum):
    """Whether T1's snapshots outlive the backup, so that the next one can ask what changed since."""

    NEVER = "Never"
    AUTO = "Auto"


class Verify(StrEnum):
    """How much of the committed backup is read back."""

    NONE = "None"
    SAMPLED = "Sampled"
    FULL = "Full"


class DeletionPolicy(StrEnum):
    """What deleting the VMBackup does to the data in the repository."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Phase(StrEnum):
    """Where it is, for people; the conditions are for programs."""

    PENDING = "Pending"
    QUIESCING = "Quiescing"
    SNAPSHOTTING_T1 = "SnapshottingT1"
    COPYING = "Copying"
    RECONCILING = "Reconciling"
    COMMITTING = "Committing"
    CLEANING_UP = "CleaningUp"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class Role(StrEnum):
    """Who does the volume's I/O: the hypervisor (Image), or the guest itself (Direct)."""

    IMAGE = "Image"
    DIRECT = "Direct"


class StepState(StrEnum):
    """How far a mover's step is."""

    PENDING = "Pending"
    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"


class ImagesSpec(Model):
    """How image volumes are backed up."""

    strategy: Strategy = Strategy.REWIND
    """How an image's copy reaches T1. Rewind: it is copied from T2, then T1's content is put back.
    RollForward: the copy of an earlier backup is moved on to T1. Direct: all of T1 is read. Auto: RollForward
    where the driver can say what changed since the earlier backup, else Rewind."""


class ChangedBlocksSpec(Model):
    """What the next backup needs to read only what changed."""

    keep_base: KeepBase = KeepBase.NEVER
    """Auto: where a volume's driver has a SnapshotMetadataService, the snapshot of T1 stays until a later
    backup has kept its own, or this object is deleted. Never: no snapshot is kept."""


class VolumesSpec(Model):
    """Which of the VM's volumes are backed up: all, but for `exclude`; or only `include`."""

    model_config = ConfigDict(
        json_schema_extra=rule(
            "!(has(self.include) && has(self.exclude))", "include and exclude may not both be given"
        )
    )

    include: VolumeNames | None = None
    """Only these, by their names in the VM's spec."""
    exclude: VolumeNames | None = None
    """All but these, by their names in the VM's spec."""


class VMBackupSpec(Model):
    """What the user asks for. Immutable, but for cancel."""

    model_config = ConfigDict(json_schema_extra=immutable_but_for("cancel"))

    virtual_machine: ObjectName
    """Name of the VirtualMachine, in the namespace of this object."""
    repository: ObjectName
    """Name of the BackupRepository."""
    consistency: Consistency = Consistency.AUTO
    """The least that is accepted, or the backup fails; Auto: the best that can be proven, at least Crash."""
    images: ImagesSpec = ImagesSpec()
    changed_blocks: ChangedBlocksSpec = ChangedBlocksSpec()
    volumes: VolumesSpec | None = None
    verify: Verify = Verify.SAMPLED
    """How much is read back from the repository before the backup counts; Sampled: 1 % of each volume."""
    deadline: Duration = "24h"
    """The backup fails when it takes longer. Hours, minutes, seconds: 24h, 1h30m, 90s."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """What deleting this object does to the backup in the repository. Retain: it stays. Delete: it is
    removed, and pruning gives its room back."""
    cancel: Annotated[
        bool, Field(json_schema_extra=rule("self || !oldSelf", "a cancelled backup cannot be resumed"))
    ] = False
    """Set it to true to end the backup: the guest is thawed, everything is removed."""


class SnapshotStatus(Model):
    """A CSI snapshot and its identity in the storage system."""

    snapshot: Name | None = None
    """Name of the VolumeSnapshot, in the VM's namespace."""
    uid: Text | None = None
    """Its uid: another one of the same name is not it."""
    content: Name | None = None
    """Name of the VolumeSnapshotContent that it is bound to."""
    handle: Text | None = None
    """The snapshot's id at the CSI driver."""
    creation_time: datetime | None = None
    """When the storage system took it, by the driver's clock."""
    restore_size: Bytes | None = None
    """The least size of a volume made from it, in bytes."""
    kept_as_base: bool | None = None
    """It was left when the backup ended, so that the next one can ask the driver what changed since; a later
    backup that leaves its own removes it."""


class FallbackStatus(Model):
    """Why more was read than what changed (docs/changed-blocks.md)."""

    reason: Text
    """In one CamelCase word."""
    message: Text = ""
    """For people."""


class BaseStatus(Model):
    """The earlier backup of the volume from which its copy starts."""

    backup: Name
    """Name of the earlier VMBackup."""
    snapshot_id: Annotated[Text, Field(alias="snapshotID")]
    """The earlier backup's snapshot in the repository."""
    handle: Text | None = None
    """Its snapshot of T1 at the CSI driver; absent where that was not kept."""
    restore_size: Bytes | None = None
    """Of that snapshot, in bytes."""


class StepStatus(Model):
    """One mover's work on one volume."""

    state: StepState = StepState.PENDING
    snapshot_id: Annotated[Text | None, Field(alias="snapshotID")] = None
    """What it made in the repository, a part of the backup; gone once that is committed."""
    change_source: Text | None = None
    """How it was known what had changed: CSI, CSIThroughExtents or Compare; absent where there was nothing to
    start from, so that everything was read."""
    fallback: FallbackStatus | None = None
    """Why more was read than what changed since the earlier backup, or between T1 and T2. Beside the change
    source CSI: the driver said what is allocated, not what changed."""
    bytes_total: Bytes | None = None
    """Size of the volume in bytes."""
    bytes_done: Bytes | None = None
    """Bytes of the volume that are dealt with, holes included."""
    bytes_reported: Bytes | None = None
    """Bytes that the driver reported as changed or allocated."""
    bytes_read: Bytes | None = None
    """Bytes that were read from the snapshot; holes are not."""
    bytes_added: Bytes | None = None
    """Bytes that the repository grew by: new chunks, compressed and encrypted."""
    bytes_changed: Bytes | None = None
    """Bytes of the chunks that differ from what was started from."""
    bytes_per_second: Bytes | None = None
    """While it runs, bytes of the volume per second; at the end, bytes that were read by the time it took."""
    eta: datetime | None = None
    """When it will be done at this speed."""
    retries: Annotated[int | None, Field(ge=0)] = None
    """How often the object store had to be asked again; absent where that was never."""


class CopyStatus(StepStatus):
    """The copy of a volume: from T1, but for images that are rewound, which are copied from T2."""


class ReconcileStatus(StepStatus):
    """The rewind of an image's copy from T2 to T1."""

    bytes_rewound: Bytes | None = None
    """Bytes of those that were put back to T1; all of them, when it is done."""
    chunks_changed: int | None = None
    """Number of the chunks that differed; a chunk has 512 KiB, in volumes above 256 GiB 1 MiB."""


class VolumeStatus(Model):
    """One volume of the VM."""

    name: Name
    """Its name in the VM's spec."""
    role: Role
    claim: Name
    """Name of its PVC."""
    claim_uid: Text | None = None
    """uid of the PVC: another one of the same name is not it."""
    persistent_volume: Name | None = None
    """Name of the PersistentVolume that the PVC is bound to."""
    volume_handle: Text | None = None
    """The volume's id at the CSI driver: another one behind the same PersistentVolume's name is not it."""
    driver: Name | None = None
    """The CSI driver."""
    storage_class: Text | None = None
    """Name of the PVC's StorageClass."""
    snapshot_class: Name | None = None
    """Name of the VolumeSnapshotClass that its snapshots are made with."""
    size_bytes: Bytes | None = None
    """Capacity of the PVC, in bytes."""
    strategy: Strategy | None = None
    """Of an image: how its copy reaches T1."""
    base: BaseStatus | None = None
    t1: SnapshotStatus | None = None
    """The snapshot of T1, the moment that the backup shows."""
    t2: SnapshotStatus | None = None
    """The later snapshot that an image is copied from; direct volumes have none."""
    copy_: Annotated[CopyStatus | None, Field(alias="copy")] = None
    reconcile: ReconcileStatus | None = None


class ProgressStatus(Model):
    """Over all movers that this backup needs."""

    bytes_done: Bytes = 0
    """Bytes that are dealt with; an image counts twice, for its copy and for its rewind."""
    bytes_total: Bytes = 0
    """Bytes that there are to deal with, counted the same way."""
    bytes_per_second: Bytes | None = None
    """Present speed of all copies together, in bytes per second."""
    eta: datetime | None = None
    """When all of it will be done at this speed."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share that is done; 100 only when every volume is finished."""


class RepositoryStatus(Model):
    """Where the backup is."""

    path: Text | None = None
    """Folder of the VM's repository in the BackupRepository's place: <prefix>/<namespace>/<vm>."""
    snapshot_id: Annotated[Text | None, Field(alias="snapshotID")] = None
    """The backup's snapshot in it, once it is committed: what restic and coeval restore by."""


class RestorableStatus(Model):
    """What may be relied on: there once the backup is Completed, and never before or otherwise."""

    point_in_time: datetime | None = None
    """T1: the moment that every disk of the backup shows."""
    consistency: Consistency | None = None
    """The consistency that was achieved for that moment; BestEffort: no common moment is proven."""


class Result(StrEnum):
    """How a backup ends."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class OutcomeStatus(Model):
    """How it will end once everything is cleaned up; written before the clean-up begins."""

    result: Result
    reason: Text
    """Why, as one word in CamelCase."""
    message: Text = ""
    """Why, for people."""
    decided_at: datetime | None = None
    """When this was decided; the clean-up comes after."""
    forgotten: Text | None = None
    """What became of partial copies in the repository."""


class TroubleStatus(Model):
    """What the API server refuses at present; it fails the backup when it stays."""

    reason: Text
    """Why, as one word in CamelCase."""
    message: Text = ""
    """What was refused, in the API server's words."""
    since: datetime
    """When it was refused first."""


class VMBackupStatus(Model):
    """What is known and what was done."""

    observed_generation: int | None = None
    """metadata.generation of the spec that this status is about."""
    phase: Phase = Phase.PENDING
    started_at: datetime | None = None
    """When the operator saw the backup first; spec.deadline counts from here."""
    completed_at: datetime | None = None
    """When it ended, whichever way, everything temporary removed."""
    point_in_time: datetime | None = None
    """T1, once it is taken. Only status.restorable says that there is a backup of it."""
    consistency: ConsistencyStatus | None = None
    quiesce: QuiesceStatus | None = None
    volumes: Annotated[list[VolumeStatus], Field(max_length=256)] | None = None
    """The volumes of the backup, and how far each is."""
    excluded_volumes: Annotated[list[Text], Field(max_length=256)] | None = None
    """Volumes of the VM that are not in the backup, each with the reason."""
    progress: ProgressStatus | None = None
    repository: RepositoryStatus | None = None
    restorable: RestorableStatus | None = None
    outcome: OutcomeStatus | None = None
    trouble: TroubleStatus | None = None
    blocked_since: datetime | None = None
    """Since when something stands in the way of the start."""
    conditions: Conditions | None = None
