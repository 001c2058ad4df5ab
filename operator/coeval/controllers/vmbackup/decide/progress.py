"""Progress of the whole backup, from the volumes' steps."""

from collections.abc import Iterator
from datetime import datetime

from coeval.api.v1alpha1.vmbackup import (
    CopyStatus,
    ProgressStatus,
    ReconcileStatus,
    StepState,
    StepStatus,
    VMBackupStatus,
    VolumeStatus,
)
from coeval.controllers.vmbackup.decide.step import rewinds
from coeval.domain.progress import Part, total


def with_progress(status: VMBackupStatus, now: datetime) -> ProgressStatus:
    """The sum over all movers; as it was where no number changed, for the time left moves with the clock."""
    parts = [part for volume in status.volumes or () for part in _parts(volume)]
    summed = total(parts, now)
    old = status.progress
    if old is not None and (old.bytes_done, old.bytes_total, old.bytes_per_second, old.percent) == (
        summed.done,
        summed.total,
        summed.per_second,
        summed.percent,
    ):
        return old
    return ProgressStatus(
        bytes_done=summed.done,
        bytes_total=summed.total,
        bytes_per_second=summed.per_second,
        eta=summed.eta,
        percent=summed.percent,
    )


def _parts(volume: VolumeStatus) -> Iterator[Part]:
    size = volume.size_bytes or 0
    copy = volume.copy_ or CopyStatus()
    yield _part(copy, size)
    if rewinds(volume):
        yield _part(volume.reconcile or ReconcileStatus(), size)


def _part(step: StepStatus, size: int) -> Part:
    return Part(
        done=step.bytes_done or 0,
        total=size if step.bytes_total is None else step.bytes_total,
        per_second=None if step.state is StepState.DONE else step.bytes_per_second,
        finished=step.state is StepState.DONE,
    )
