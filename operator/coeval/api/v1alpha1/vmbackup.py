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
    """How an image volume reaches T1."""

    REWIND = "Rewind"


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


class CopyStatus(Model):
    """The copy of a volume (from T1 for direct volumes, from T2 for images)."""

    state: StepState = StepState.PENDING
    snapshot_id: Annotated[Text | None, Field(alias="snapshotID")] = None
    bytes_total: Bytes | None = None
    bytes_done: Bytes | None = None
    bytes_read: Bytes | None = None
    bytes_added: Bytes | None = None
    bytes_per_second: Bytes | None = None
    eta: datetime | None = None


class ReconcileStatus(Model):
    """The rewind of an image's copy from T2 to T1."""

    state: StepState = StepState.PENDING
    snapshot_id: Annotated[Text | None, Field(alias="snapshotID")] = None
    change_source: Text | None = None
    bytes_total: Bytes | None = None
    bytes_done: Bytes | None = None
    bytes_read: Bytes | None = None
    bytes_changed: Bytes | None = None
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


class RestorableStatus(Model):
    """What may be relied on: there once the backup is Completed, and never before or otherwise."""

    point_in_time: Annotated[
        datetime | None, Field(description="T1: the moment that every disk of the backup shows.")
    ] = None
    consistency: Annotated[
        Consistency | None, Field(description="The consistency that was achieved for that moment.")
    ] = None


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
    restorable: RestorableStatus | None = None
    outcome: OutcomeStatus | None = None
    trouble: TroubleStatus | None = None
    blocked_since: Annotated[
        datetime | None, Field(description="Since when something stands in the way of the start.")
    ] = None
    conditions: Conditions | None = None
