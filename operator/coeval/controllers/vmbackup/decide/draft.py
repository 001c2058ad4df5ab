"""The plan while it is being made: the one mutable thing of decide, thrown away at its end."""

from datetime import datetime
from typing import Any, Literal

from coeval.api.v1alpha1.moment import QuiesceStatus
from coeval.api.v1alpha1.vmbackup import OutcomeStatus, Phase, Result, StepState, VMBackupStatus, VolumeStatus
from coeval.controllers.conditions import with_condition
from coeval.controllers.settings import Settings
from coeval.controllers.vmbackup.decide.progress import with_progress
from coeval.controllers.vmbackup.decide.step import copied, finished
from coeval.controllers.vmbackup.plan import Action, Note, Plan
from coeval.controllers.vmbackup.world import TERMINAL, Stage, World, stage

_DOING = {
    Phase.PENDING: "checking what the backup needs",
    Phase.QUIESCING: "making the guest hold still",
    Phase.SNAPSHOTTING_T1: "taking the snapshots of T1",
    Phase.COPYING: "copying volumes to the repository",
    Phase.RECONCILING: "rewinding images from T2 to T1",
    Phase.COMMITTING: "committing and verifying the backup",
    Phase.CLEANING_UP: "cleaning up",
}


class Draft:
    """Collects actions and the new status."""

    def __init__(self, world: World, now: datetime, settings: Settings) -> None:
        self.world = world
        self.now = now
        self.settings = settings
        self.status: VMBackupStatus = world.backup.status
        self.actions: list[Action] = []
        self.notes: list[Note] = []
        self._requeue: float | None = None
        self.waiting_for: str | None = None
        self.blocked_by: tuple[str, str] | None = None

    @property
    def stage(self) -> Stage:
        """Where the draft has got to."""
        return stage(self.status)

    @property
    def doing(self) -> str:
        """The present step in words."""
        return self.waiting_for or _DOING.get(_phase(self.status), "working")

    def since(self, then: datetime) -> float:
        """Seconds that have passed."""
        return (self.now - then).total_seconds()

    def set(self, **fields: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def quiesce(self, **fields: Any) -> None:
        """Change fields of status.quiesce."""
        self.set(quiesce=(self.status.quiesce or QuiesceStatus()).model_copy(update=fields))

    def volume(self, name: str, **fields: Any) -> None:
        """Change fields of one volume."""
        self.set(
            volumes=[v.model_copy(update=fields) if v.name == name else v for v in self.status.volumes or ()]
        )

    @property
    def volumes(self) -> list[VolumeStatus]:
        """The volumes of the backup; empty before the preflight has passed."""
        return list(self.status.volumes or ())

    def act(self, *actions: Action) -> None:
        """To be done after the status is written, in this order."""
        self.actions.extend(actions)

    def again(self, seconds: float) -> None:
        """Look again after so many seconds at the latest."""
        seconds = max(0.0, seconds)
        self._requeue = seconds if self._requeue is None else min(self._requeue, seconds)

    def wait(self, what: str, seconds: float) -> None:
        """Look again later, and say what is waited for."""
        self.waiting_for = self.waiting_for or what
        self.again(seconds)

    def note(self, type_: str, reason: str, message: str) -> None:
        """An Event."""
        self.notes.append(Note(type_, reason, message))

    def condition(
        self, type_: str, status: Literal["True", "False", "Unknown"], reason: str, message: str = ""
    ) -> None:
        """Set a condition."""
        self.set(
            conditions=with_condition(
                self.status.conditions,
                type_,
                status,
                reason,
                message,
                now=self.now,
                generation=self.world.backup.generation,
            )
        )

    def complete(self) -> None:
        """The backup is good; what is left is to clean up."""
        self._end(Result.COMPLETED, "BackupCompleted", "")

    def fail(self, reason: str, message: str) -> None:
        """It will not get better by itself. The first reason stays."""
        if self.status.outcome is None:
            self.note("Warning", reason, message)
        self._end(Result.FAILED, reason, message)

    def cancel(self, reason: str, message: str) -> None:
        """The user wants it no more."""
        if self.status.outcome is None:
            self.note("Normal", reason, message)
        self._end(Result.CANCELLED, reason, message)

    def _end(self, result: Result, reason: str, message: str) -> None:
        if self.status.outcome is None:
            self.set(
                outcome=OutcomeStatus(
                    result=result, reason=reason, message=message[:4000], decided_at=self.now
                )
            )
            if result is not Result.COMPLETED:
                self._stop_steps()
            self.again(0.0)

    def _stop_steps(self) -> None:
        """No step of a backup that ends early goes on."""
        for volume in self.volumes:
            for field, step in (("copy_", volume.copy_), ("reconcile", volume.reconcile)):
                if step is not None and step.state is StepState.RUNNING:
                    self.volume(volume.name, **{field: step.model_copy(update={"state": StepState.FAILED})})

    def first_touch(self) -> None:
        """What every status has from the first look on: without conditions kstatus would call it current."""
        self.set(
            observed_generation=self.world.backup.generation,
            started_at=self.status.started_at or self.now.replace(microsecond=0),
        )

    def derive(self) -> None:
        """Phase, conditions and progress from what is known."""
        if self.status.phase in TERMINAL:
            return
        phase = _phase(self.status)
        self.set(phase=phase)
        if self.status.volumes is not None:
            self.set(progress=with_progress(self.status, self.now))
        reason, message = self.blocked_by or (phase.value, self.doing)
        if self.status.outcome is not None and self.status.outcome.result is not Result.COMPLETED:
            reason, message = self.status.outcome.reason, self.status.outcome.message
        if self.status.trouble is not None and self.blocked_by is None:
            message = f"{message}; at present: {self.status.trouble.message}"
        self.condition("Ready", "False", reason, message)
        self.condition("Reconciling", "True", phase.value, self.doing)
        self.condition("Stalled", "False", "Progressing")

    def plan(self) -> Plan:
        """The finished plan."""
        if self.status.trouble is not None and not self.actions:
            # Nothing is asked of the API server any more, so nothing can be refused.
            self.set(trouble=None)
        return Plan(self.status, tuple(self.actions), self._requeue, tuple(self.notes))


def _phase(status: VMBackupStatus) -> Phase:
    at = stage(status)
    if at is Stage.TERMINAL:
        return status.phase
    if at is Stage.MOMENT:
        quiesce = status.quiesce
        holding = quiesce is not None and quiesce.returned_at is not None and quiesce.abandoned is None
        return Phase.SNAPSHOTTING_T1 if holding else Phase.QUIESCING
    if at is Stage.TRANSFER:
        return _phase_of_transfer(status.volumes or [])
    return Phase.PENDING if at is Stage.PREFLIGHT else Phase.CLEANING_UP


def _phase_of_transfer(volumes: list[VolumeStatus]) -> Phase:
    if any(v.t1 is None or v.t1.handle is None for v in volumes):
        return Phase.SNAPSHOTTING_T1
    if not all(copied(v) for v in volumes):
        return Phase.COPYING
    if not all(finished(v) for v in volumes):
        return Phase.RECONCILING
    return Phase.COMMITTING
