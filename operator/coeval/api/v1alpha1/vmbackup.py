"""VMBackup: one backup of one VM, every disk as of the same moment (api.md)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from coeval.api.v1alpha1.common import Bytes, Conditions, Duration, Model, Name, ObjectName, Text
from coeval.api.v1alpha1.rules import immutable_but_for, rule

VolumeNames = Annotated[
    list[ObjectName],
    Field(min_length=1, max_length=256, json_schema_extra={"x-kubernetes-list-type": "set"}),
]


class Consistency(StrEnum):
    """The least that the user accepts; Auto is the best that can be proven, at least Crash."""

    AUTO = "Auto"
    FILESYSTEM = "Filesystem"
    CRASH = "Crash"
    BEST_EFFORT = "BestEffort"


class Strategy(StrEnum):
    """How an image volume's copy reaches T1 (architecture.md, "One engine").

    Rewind: copied from T2, then moved back to T1. RollForward: the copy of an earlier backup moved on to T1.
    Direct: all of T1 is read. Auto: RollForward where the driver says what changed since then, else Rewind.
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
    """For people; conditions are the API."""

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
    """Of a mover's step."""

    PENDING = "Pending"
    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"


class ImagesSpec(Model):
    """How image volumes are backed up."""

    strategy: Strategy = Strategy.REWIND


class ChangedBlocksSpec(Model):
    """What the next backup needs to read only what changed."""

    keep_base: Annotated[
        KeepBase,
        Field(
            description=(
                "Auto: where a volume's driver has a SnapshotMetadataService, the snapshot of T1 stays until "
                "a later backup has kept its own or this object is deleted. Never: no snapshot is kept."
            )
        ),
    ] = KeepBase.NEVER


class VolumesSpec(Model):
    """Which of the VM's volumes are backed up: all, but for `exclude`; or only `include`."""

    model_config = ConfigDict(
        json_schema_extra=rule(
            "!(has(self.include) && has(self.exclude))", "include and exclude may not both be given"
        )
    )

    include: VolumeNames | None = None
    exclude: VolumeNames | None = None


class VMBackupSpec(Model):
    """What the user asks for. Immutable, but for cancel."""

    model_config = ConfigDict(json_schema_extra=immutable_but_for("cancel"))

    virtual_machine: Annotated[
        ObjectName, Field(description="Name of the VirtualMachine, in the namespace of this object.")
    ]
    repository: Annotated[ObjectName, Field(description="Name of the BackupRepository.")]
    consistency: Consistency = Consistency.AUTO
    images: ImagesSpec = ImagesSpec()
    changed_blocks: ChangedBlocksSpec = ChangedBlocksSpec()
    volumes: VolumesSpec | None = None
    verify: Verify = Verify.SAMPLED
    deadline: Annotated[
        Duration, Field(description="The backup fails when it takes longer: 24h, 1h30m, 90s.")
    ] = "24h"
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    cancel: Annotated[
        bool,
        Field(
            description="Set it to true to end the backup: the guest is thawed, everything is removed.",
            json_schema_extra=rule("self || !oldSelf", "a cancelled backup cannot be resumed"),
        ),
    ] = False


class Window(Model):
    """The moments that the proof rests on, by the operator's own clock."""

    quiesce_sent: datetime | None = None
    quiesce_returned: datetime | None = None
    first_snapshot_created: datetime | None = None
    last_creation_time_seen: datetime | None = None
    release_sent: datetime | None = None
    safety_timer_seconds: int | None = None


class ConsistencyStatus(Model):
    """What was achieved for T1, by which method, on what evidence."""

    required: Consistency
    achieved: Consistency | None = None
    method: Text | None = None
    proven: bool = False
    window: Window | None = None
    evidence: Annotated[dict[str, Text], Field(max_length=64)] | None = None
    reason: Text | None = None


class QuiesceStatus(Model):
    """The freeze or pause: intent first, so that whoever comes next releases it."""

    method: Text | None = None
    intent_at: datetime | None = None
    returned_at: datetime | None = None
    release_sent_at: datetime | None = None
    release_seen_at: datetime | None = None
    attempts: int = 0
    clear_polls: int = 0
    last_clear_at: datetime | None = None
    instance_uid: Annotated[Text | None, Field(alias="instanceUID")] = None
    answer: Annotated[Text | None, Field(description="What the call answered: Ok, Refused, Ambiguous.")] = (
        None
    )
    last_release_at: datetime | None = None
    released_at: Annotated[
        datetime | None,
        Field(description="When a release call answered success; releaseSeenAt is the proof."),
    ] = None
    found_released: Annotated[
        bool, Field(description="The release call found the guest running: something else had released it.")
    ] = False
    abandoned: Annotated[
        Text | None, Field(description="Reason why the snapshots of this attempt are not used.")
    ] = None
    message: Text | None = None
    refused: Annotated[
        dict[str, Text] | None, Field(max_length=8, description="Methods that the guest refused, and why.")
    ] = None


class SnapshotStatus(Model):
    """A CSI snapshot and its identity in the storage system."""

    snapshot: Name | None = None
    uid: Text | None = None
    content: Name | None = None
    handle: Text | None = None
    creation_time: datetime | None = None
    restore_size: Bytes | None = None
    kept_as_base: Annotated[
        bool | None,
        Field(description="It outlives the backup: the next one asks the driver what changed since."),
    ] = None


class FallbackStatus(Model):
    """Why more was read than what changed."""

    reason: Text
    message: Text = ""


class BaseStatus(Model):
    """The earlier backup of the volume from which its copy starts."""

    backup: Annotated[Name, Field(description="Name of the earlier VMBackup.")]
    snapshot_id: Annotated[Text, Field(alias="snapshotID", description="Where the repository has it.")]
    handle: Annotated[
        Text | None,
        Field(description="Its snapshot of T1 at the driver; absent where that was not kept."),
    ] = None
    restore_size: Annotated[Bytes | None, Field(description="Of that snapshot, in bytes.")] = None


class StepStatus(Model):
    """One mover's work on one volume. Bytes are of the volume, but for what was added to the repository."""

    state: StepState = StepState.PENDING
    snapshot_id: Annotated[Text | None, Field(alias="snapshotID")] = None
    change_source: Annotated[
        Text | None,
        Field(
            description=(
                "How it was known what had changed: CSI, CSIThroughExtents or Compare; absent where "
                "there was nothing to start from, so that everything was read."
            )
        ),
    ] = None
    fallback: FallbackStatus | None = None
    bytes_total: Bytes | None = None
    bytes_done: Bytes | None = None
    bytes_reported: Annotated[
        Bytes | None, Field(description="What the driver reported as changed or allocated.")
    ] = None
    bytes_read: Bytes | None = None
    bytes_added: Annotated[
        Bytes | None, Field(description="New in the repository, compressed and encrypted.")
    ] = None
    bytes_changed: Annotated[
        Bytes | None, Field(description="In chunks that differ from what was started from.")
    ] = None
    bytes_per_second: Annotated[
        Bytes | None,
        Field(
            description=(
                "While it runs, of the volume, what needs no work left out; at the end, what was read by all "
                "the time that it took."
            )
        ),
    ] = None
    eta: datetime | None = None


class CopyStatus(StepStatus):
    """The copy of a volume: from T1, but for images that are rewound, which are copied from T2."""


class ReconcileStatus(StepStatus):
    """The rewind of an image's copy from T2 to T1."""

    bytes_rewound: Bytes | None = None
    chunks_changed: int | None = None


class VolumeStatus(Model):
    """One volume of the VM."""

    name: Name
    role: Role
    claim: Name
    claim_uid: Text | None = None
    persistent_volume: Name | None = None
    driver: Name | None = None
    storage_class: Text | None = None
    snapshot_class: Name | None = None
    size_bytes: Bytes | None = None
    strategy: Annotated[Strategy | None, Field(description="Of an image: how it reaches T1.")] = None
    base: BaseStatus | None = None
    t1: SnapshotStatus | None = None
    t2: SnapshotStatus | None = None
    copy_: Annotated[CopyStatus | None, Field(alias="copy")] = None
    reconcile: ReconcileStatus | None = None


class ProgressStatus(Model):
    """Over all movers that this backup needs."""

    bytes_done: Bytes = 0
    bytes_total: Bytes = 0
    bytes_per_second: Bytes | None = None
    eta: datetime | None = None
    percent: Annotated[int, Field(ge=0, le=100)] = 0


class RepositoryStatus(Model):
    """Where the backup is."""

    path: Text | None = None
    snapshot_id: Annotated[Text | None, Field(alias="snapshotID")] = None


class Result(StrEnum):
    """How a backup ends."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class OutcomeStatus(Model):
    """How it will end once everything is cleaned up; written before the clean-up begins."""

    result: Result
    reason: Text
    message: Text = ""
    decided_at: datetime | None = None
    forgotten: Annotated[
        Text | None, Field(description="What became of partial copies in the repository.")
    ] = None


class TroubleStatus(Model):
    """What the API server refuses at present; it fails the backup when it stays."""

    reason: Text
    message: Text = ""
    since: datetime


class VMBackupStatus(Model):
    """What is known and what was done."""

    observed_generation: int | None = None
    phase: Phase = Phase.PENDING
    started_at: datetime | None = None
    completed_at: datetime | None = None
    point_in_time: datetime | None = None
    consistency: ConsistencyStatus | None = None
    quiesce: QuiesceStatus | None = None
    volumes: Annotated[list[VolumeStatus], Field(max_length=256)] | None = None
    excluded_volumes: Annotated[list[Text], Field(max_length=256)] | None = None
    progress: ProgressStatus | None = None
    repository: RepositoryStatus | None = None
    outcome: OutcomeStatus | None = None
    trouble: TroubleStatus | None = None
    blocked_since: Annotated[
        datetime | None, Field(description="Since when something stands in the way of the start.")
    ] = None
    conditions: Conditions | None = None
