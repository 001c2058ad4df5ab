"""One mover's work on one volume."""

from dataclasses import dataclass

from coeval.api.v1alpha1.vmbackup import Role, SnapshotStatus, StepState, Strategy, VolumeStatus
from coeval.controllers.vmbackup.plan import Moment, Verb
from coeval.domain import naming


@dataclass(frozen=True, slots=True)
class Step:
    """One mover's work on one volume, and which snapshot it reads."""

    verb: Verb
    volume: VolumeStatus
    moment: Moment

    @property
    def source(self) -> SnapshotStatus:
        """The snapshot as status has it."""
        return (self.volume.t1 if self.moment is Moment.T1 else self.volume.t2) or SnapshotStatus()

    def name(self, uid: str) -> str:
        """Of the Job."""
        return naming.child(uid, self.verb.value, self.volume.name)

    def exposure(self, uid: str) -> str:
        """Of the twin, its content and the claim."""
        return exposure(uid, self.moment, self.volume)

    @property
    def done(self) -> bool:
        """Its result is in status."""
        return copied(self.volume) if self.verb is Verb.COPY else finished(self.volume)


def exposure(uid: str, moment: Moment, volume: VolumeStatus) -> str:
    """Of the twin, its content and the claim of one of a volume's snapshots."""
    return naming.child(uid, f"{moment.value}-twin", volume.name)


def rewinds(volume: VolumeStatus) -> bool:
    """It is copied from T2 and moved back to T1; all others are copied from T1."""
    return volume.role is Role.IMAGE and volume.strategy in (None, Strategy.REWIND)


def copied(volume: VolumeStatus) -> bool:
    """Its copy is in the repository."""
    return volume.copy_ is not None and volume.copy_.state is StepState.DONE


def finished(volume: VolumeStatus) -> bool:
    """Its copy is as of T1."""
    if not rewinds(volume):
        return copied(volume)
    return volume.reconcile is not None and volume.reconcile.state is StepState.DONE
