"""What a reconcile of a BackupRepository looks at, and what it decides."""

from dataclasses import dataclass

from coeval.api.v1alpha1.backuprepository import BackupRepositorySpec, BackupRepositoryStatus
from coeval.controllers.mover_state import MoverJob


@dataclass(frozen=True, slots=True)
class World:
    """`claim` is the phase of the location's PVC, None where there is none. `jobs`: our probes, by name."""

    name: str
    uid: str
    generation: int
    deleting: bool
    spec: BackupRepositorySpec
    status: BackupRepositoryStatus
    claim: str | None = None
    jobs: tuple[MoverJob, ...] = ()


@dataclass(frozen=True, slots=True)
class RunProbe:
    """A Job `coeval repo probe` of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class RemoveProbe:
    """A probe Job whose word is in status, or which is about an earlier spec."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Status first, then the actions. `note`: (type, reason, message) of an Event."""

    status: BackupRepositoryStatus
    actions: tuple[RunProbe | RemoveProbe, ...] = ()
    requeue: float | None = None
    note: tuple[str, str, str] | None = None
