"""What a mover says, put into the status of its step."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from coeval.api.v1alpha1.vmbackup import (
    CopyStatus,
    FallbackStatus,
    ReconcileStatus,
    StepState,
    StepStatus,
)
from coeval.controllers.vmbackup.decide import jobs
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.decide.step import Step
from coeval.controllers.vmbackup.plan import Verb

_CONTRADICTED = "SampleContradicts"


def start(draft: Draft, step: Step, fallback: FallbackStatus | None) -> None:
    """On record before the Job is made: from here on something of ours may be in the repository."""
    _put(draft, step, _empty(step).model_copy(update={"state": StepState.RUNNING, "fallback": fallback}))


def progress(draft: Draft, step: Step, line: Mapping[str, Any] | None) -> None:
    """The last line of progress."""
    draft.again(draft.settings.work_poll)
    if line is None:
        return
    before = _present(step)
    new = before.model_copy(
        update={
            "state": StepState.RUNNING,
            "bytes_total": jobs.number(line, "bytesTotal"),
            "bytes_done": jobs.number(line, "bytesDone"),
            "bytes_read": jobs.number(line, "bytesRead"),
            "bytes_added": jobs.number(line, "bytesAdded"),
            "bytes_per_second": jobs.number(line, "bytesPerSecond"),
        }
    )
    if new != before:  # the time left is told anew only with new numbers, for the clock alone changes it
        left = jobs.number(line, "etaSeconds")
        eta = None if left is None else (draft.now + timedelta(seconds=left)).replace(microsecond=0)
        new = new.model_copy(update={"eta": eta})
    _put(draft, step, new)


def result(draft: Draft, step: Step, said: Mapping[str, Any]) -> None:
    """The step is done."""
    total = jobs.number(said, "bytes_total")
    snapshot = jobs.snapshot_of(draft, step.name(draft.world.backup.uid), said)
    if snapshot is None:
        return
    source = said.get("change_source")
    changed = jobs.number(said, "bytes_changed")
    fields: dict[str, Any] = {
        "state": StepState.DONE,
        "snapshot_id": snapshot,
        "change_source": str(source) if source else None,
        "fallback": _fallback(said) or _present(step).fallback,
        "bytes_total": total,
        "bytes_done": total,
        "bytes_reported": jobs.number(said, "bytes_reported"),
        "bytes_read": jobs.number(said, "bytes_read"),
        "bytes_added": jobs.number(said, "bytes_added"),
        "bytes_changed": changed,
        "bytes_per_second": _rate(said),
        "retries": jobs.number(said, "retries") or None,
    }
    if step.verb is Verb.RETIME:
        fields |= {"bytes_rewound": changed, "chunks_changed": jobs.number(said, "chunks_changed")}
    done = _empty(step).model_copy(update=fields)
    _put(draft, step, done)
    if done.fallback is not None and done.fallback.reason == _CONTRADICTED:
        draft.note(
            "Warning",
            _CONTRADICTED,
            f"the driver {step.volume.driver} left out blocks of volume {step.volume.name} that had changed, "
            "so everything was read and compared: this backup is right, but report it to the driver's makers",
        )
    draft.again(0.0)


def _fallback(said: Mapping[str, Any]) -> FallbackStatus | None:
    found = said.get("fallback")
    if not isinstance(found, Mapping):
        return None
    return FallbackStatus(reason=str(found.get("reason"))[:256], message=str(found.get("message", ""))[:4000])


def _rate(said: Mapping[str, Any]) -> int | None:
    read, seconds = jobs.number(said, "bytes_read"), said.get("seconds")
    if read is None or isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        return None
    return int(read / seconds)


def _present(step: Step) -> StepStatus:
    return (step.volume.copy_ if step.verb is Verb.COPY else step.volume.reconcile) or _empty(step)


def _empty(step: Step) -> StepStatus:
    return CopyStatus() if step.verb is Verb.COPY else ReconcileStatus()


def _put(draft: Draft, step: Step, status: StepStatus) -> None:
    draft.volume(step.volume.name, **{"copy_" if step.verb is Verb.COPY else "reconcile": status})
