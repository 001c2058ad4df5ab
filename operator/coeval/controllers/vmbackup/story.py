"""What a change of a VMBackup's status says in the operator's log: a line per transition. Pure.

The status is written first: what is told here has happened, or is about to be tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coeval.api.v1alpha1.moment import ConsistencyStatus, QuiesceStatus
from coeval.api.v1alpha1.vmbackup import (
    OutcomeStatus,
    StepState,
    StepStatus,
    VMBackupStatus,
)
from coeval.controllers.conditions import find
from coeval.controllers.vmbackup.world import TERMINAL

_ENDED = (StepState.DONE, StepState.FAILED)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log. Fields without a value are left out."""

    event: str
    fields: dict[str, Any] = field(default_factory=dict)


def told(old: VMBackupStatus, new: VMBackupStatus) -> list[Line]:
    """The lines of this change, in the order in which things happened."""
    lines = [
        *_phase(old, new),
        *_quiesce(old.quiesce or QuiesceStatus(), new.quiesce or QuiesceStatus(), new.consistency),
        *_moment(old, new),
        *_volumes(old, new),
        *_repository(old, new),
        *_trouble(old, new),
        *_end(old, new),
    ]
    return [
        Line(line.event, {k: _plain(v) for k, v in line.fields.items() if v is not None}) for line in lines
    ]


def _plain(value: object) -> object:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _phase(old: VMBackupStatus, new: VMBackupStatus) -> Iterator[Line]:
    if old.started_at is None and new.started_at is not None:
        yield Line("backup seen")
    ended = new.phase in TERMINAL
    if old.phase is not new.phase and not ended:
        yield Line("phase", {"phase": new.phase.value, "was": old.phase.value})
    was, now = find(old.conditions, "Ready"), find(new.conditions, "Ready")
    told_elsewhere = ended or new.outcome is not None or now is None or now.reason == new.phase.value
    if now is not None and not told_elsewhere and (was is None or was.reason != now.reason):
        yield Line("backup blocked", {"reason": now.reason, "text": now.message})


def _quiesce(old: QuiesceStatus, new: QuiesceStatus, consistency: ConsistencyStatus | None) -> Iterator[Line]:
    """Of a guest that is held: intent, hold, release, and the proof of it."""
    window = consistency.window if consistency is not None else None
    attempt = {"method": new.method, "attempt": new.attempts}
    if new.intent_at is not None and old.intent_at != new.intent_at:
        timer = window.safety_timer_seconds if window is not None else None
        yield Line("quiesce intended", {**attempt, "at": new.intent_at, "safety_timer_seconds": timer})
    if new.returned_at is not None and old.returned_at != new.returned_at:
        yield Line("quiesced", {**attempt, "at": new.returned_at, "answer": new.answer})
    if new.abandoned is not None and old.abandoned != new.abandoned:
        yield Line("moment given up", {**attempt, "reason": new.abandoned, "text": new.message})
    if new.release_sent_at is not None and old.release_sent_at != new.release_sent_at:
        yield Line("release sent", {**attempt, "at": new.release_sent_at})
    if new.release_seen_at is not None and old.release_seen_at != new.release_seen_at:
        held = new.returned_at and new.release_sent_at and new.release_sent_at - new.returned_at
        seconds = round(held.total_seconds(), 3) if held else None
        yield Line("guest released", {**attempt, "at": new.release_seen_at, "held_seconds": seconds})


def _moment(old: VMBackupStatus, new: VMBackupStatus) -> Iterator[Line]:
    reached = new.consistency
    if new.point_in_time is not None and old.point_in_time is None and reached is not None:
        yield Line(
            "moment taken",
            {
                "point_in_time": new.point_in_time,
                "consistency": reached.achieved and reached.achieved.value,
                "method": reached.method,
                "proven": reached.proven,
            },
        )


def _volumes(old: VMBackupStatus, new: VMBackupStatus) -> Iterator[Line]:
    before = {v.name: v for v in old.volumes or ()}
    for volume in new.volumes or ():
        was = before.get(volume.name)
        yield from _step(volume.name, "copy", was.copy_ if was else None, volume.copy_)
        yield from _step(volume.name, "retime", was.reconcile if was else None, volume.reconcile)


def _step(volume: str, verb: str, old: StepStatus | None, new: StepStatus | None) -> Iterator[Line]:
    if new is None or new.state not in _ENDED or (old is not None and old.state is new.state):
        return
    said: dict[str, Any] = {
        "verb": verb,
        "volume": volume,
        "state": new.state.value,
        "snapshot": new.snapshot_id,
        "change_source": new.change_source,
        "fallback": new.fallback.reason if new.fallback else None,
        "bytes_total": new.bytes_total,
        "bytes_read": new.bytes_read,
        "bytes_changed": new.bytes_changed,
        "bytes_added": new.bytes_added,
    }
    yield Line("mover ended", said)


def _repository(old: VMBackupStatus, new: VMBackupStatus) -> Iterator[Line]:
    was, now = old.repository, new.repository
    if now is not None and now.snapshot_id is not None and (was is None or was.snapshot_id is None):
        yield Line("mover ended", {"verb": "commit", "snapshot": now.snapshot_id, "path": now.path})
    before, verified = find(old.conditions, "Verified"), find(new.conditions, "Verified")
    if verified is not None and (before is None or before.status != verified.status):
        yield Line("mover ended", {"verb": "verify", "verified": verified.status, "reason": verified.reason})


def _trouble(old: VMBackupStatus, new: VMBackupStatus) -> Iterator[Line]:
    if new.trouble is not None and (old.trouble is None or old.trouble.reason != new.trouble.reason):
        yield Line("API server refuses", {"reason": new.trouble.reason, "text": new.trouble.message})


def _end(old: VMBackupStatus, new: VMBackupStatus) -> Iterator[Line]:
    outcome = new.outcome
    if outcome is None:
        return
    if old.outcome is None:
        yield Line("outcome decided", _said(outcome))
    if outcome.forgotten is not None and (old.outcome is None or old.outcome.forgotten != outcome.forgotten):
        yield Line("mover ended", {"verb": "forget", "partial_copies": outcome.forgotten})
    if new.phase in TERMINAL and old.phase not in TERMINAL:
        ran = new.completed_at and new.started_at and new.completed_at - new.started_at
        yield Line("backup ended", _said(outcome) | {"seconds": ran.total_seconds() if ran else None})


def _said(outcome: OutcomeStatus) -> dict[str, Any]:
    return {"result": outcome.result.value, "reason": outcome.reason, "text": outcome.message or None}
