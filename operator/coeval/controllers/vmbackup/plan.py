"""What decide hands to act: ordered actions, a status, when to look again; and the facts that come back."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from coeval.api.v1alpha1.vmbackup import VMBackupStatus, VolumeStatus
from coeval.domain.guest import Answer
from coeval.domain.storage import MetadataService


class Moment(StrEnum):
    """Which of the two snapshots of a volume."""

    T1 = "t1"
    T2 = "t2"


class Thing(StrEnum):
    """Kinds that we remove."""

    JOB = "Job"
    CLAIM = "PersistentVolumeClaim"
    SNAPSHOT = "VolumeSnapshot"
    CONTENT = "VolumeSnapshotContent"
    MANIFESTS = "ConfigMap"


class Verb(StrEnum):
    """What a mover does."""

    COPY = "copy"
    RETIME = "retime"
    COMMIT = "commit"
    VERIFY = "verify"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Nothing of ours is made before the finalizer is on the VMBackup."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Everything is cleaned up."""


@dataclass(frozen=True, slots=True)
class SaveManifests:
    """Keep the VM's and its claims' definitions in a ConfigMap for the commit."""

    name: str
    machine: str
    claims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quiesce:
    """Freeze or pause the guest. `timer`: its safety timer in seconds (freeze only)."""

    method: str
    machine: str
    timer: int


@dataclass(frozen=True, slots=True)
class Release:
    """Thaw or unpause the guest."""

    method: str
    machine: str


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """A VolumeSnapshot of a volume of the VM, in the VM's namespace."""

    name: str
    volume: str
    claim: str
    snapshot_class: str
    moment: Moment


@dataclass(frozen=True, slots=True)
class MakeTwin:
    """A read-only twin of a snapshot in our namespace: content and VolumeSnapshot, both of this name."""

    name: str
    volume: VolumeStatus
    handle: str


@dataclass(frozen=True, slots=True)
class MakeClaim:
    """A claim in our namespace with the bytes of a twin. `size` in bytes."""

    name: str
    twin: str
    volume: VolumeStatus
    size: int


class AskedThrough(StrEnum):
    """How a driver's answer about a device is read: as it is, or through the extents of a file in it."""

    DEVICE = "csi"
    EXTENTS = "csi-through-extents"


@dataclass(frozen=True, slots=True)
class Ask:
    """Whom a mover asks what differs between a snapshot (our twin of it) and an earlier one (its handle).

    Without a handle: what the snapshot has allocated.
    """

    through: AskedThrough
    service: MetadataService
    twin: str
    base_handle: str | None = None


@dataclass(frozen=True, slots=True)
class RunMover:
    """A mover Job. `claim` is the source, `snapshots` are ids of the repository, `deadline` is in seconds.

    `parent` is the snapshot that a copy starts from.
    FORGET without snapshots means everything that this backup wrote, or with `parts_only` all but its commit.
    """

    name: str
    verb: Verb
    deadline: int
    volume: VolumeStatus | None = None
    claim: str | None = None
    as_of: datetime | None = None
    interim: bool = False
    snapshots: tuple[str, ...] = ()
    sample: str | None = None
    manifests: str | None = None
    parts_only: bool = False
    parent: str | None = None
    ask: Ask | None = None
    record_extents: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove exactly this object: the uid is a precondition. `namespace` is None for cluster-scoped kinds."""

    thing: Thing
    name: str
    uid: str
    namespace: str | None


@dataclass(frozen=True, slots=True)
class KeepSnapshot:
    """See that a snapshot of ours which outlives its backup takes its storage with it when it goes."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DropFinalizer:
    """Take a foreign finalizer off an object of our own, which whoever put it there has forgotten."""

    thing: Thing
    name: str
    namespace: str | None
    uid: str
    finalizer: str


Action = (
    AddFinalizer
    | RemoveFinalizer
    | SaveManifests
    | Quiesce
    | Release
    | TakeSnapshot
    | MakeTwin
    | MakeClaim
    | RunMover
    | Delete
    | KeepSnapshot
    | DropFinalizer
)


@dataclass(frozen=True, slots=True)
class Note:
    """An Event for people."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The status is written first and says only what was observed or is intended; then the actions."""

    status: VMBackupStatus
    actions: tuple[Action, ...] = ()
    requeue: float | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Quiesced:
    """The answer to Quiesce. `lasting`: the guest will refuse this method again."""

    answer: Answer
    sent_at: datetime
    returned_at: datetime
    reason: str = ""
    message: str = ""
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """The answer to Release."""

    answer: Answer
    sent_at: datetime
    returned_at: datetime
    message: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The API server refuses to make something, and would again."""

    what: str
    reason: str
    message: str


Fact = Quiesced | Released | Refused
