"""What came of the actions, put into status: pure."""

from collections.abc import Sequence
from datetime import datetime

from coeval.api.v1alpha1.moment import QuiesceStatus, Window
from coeval.api.v1alpha1.vmbackup import TroubleStatus, VMBackupStatus
from coeval.controllers.vmbackup.plan import Fact, Quiesced, Refused, Released
from coeval.domain.guest import Answer


def record(status: VMBackupStatus, facts: Sequence[Fact], now: datetime) -> VMBackupStatus:
    """The status with these facts. Without a refusal, an earlier one is over."""
    refusals = [f for f in facts if isinstance(f, Refused)]
    if not refusals and status.trouble is not None:
        status = status.model_copy(update={"trouble": None})
    for fact in facts:
        if isinstance(fact, Quiesced):
            status = _quiesced(status, fact)
        elif isinstance(fact, Released):
            status = _released(status, fact)
    if refusals:
        first = refusals[0]
        since = status.trouble.since if status.trouble is not None else now
        trouble = TroubleStatus(
            reason=first.reason, message=f"{first.what}: {first.message}"[:4000], since=since
        )
        status = status.model_copy(update={"trouble": trouble})
    return status


def _quiesced(status: VMBackupStatus, fact: Quiesced) -> VMBackupStatus:
    quiesce = status.quiesce or QuiesceStatus()
    if fact.answer is Answer.OK:
        status = _window(status, quiesce_sent=fact.sent_at, quiesce_returned=fact.returned_at)
        return _quiesce(status, answer=Answer.OK.value, returned_at=fact.returned_at)
    method = quiesce.method or "None"
    if fact.answer is Answer.AMBIGUOUS:
        return _quiesce(
            status,
            answer=Answer.AMBIGUOUS.value,
            abandoned="QuiesceAmbiguous",
            message=f"it is not known whether {method} took effect: {fact.message}"[:4000],
        )
    refused = dict(quiesce.refused or {})
    if fact.lasting:
        refused[method] = fact.message[:4000]
    status = _quiesce(
        status,
        answer=Answer.REFUSED.value,
        abandoned=fact.reason or "QuiesceRefused",
        message=f"{method} was refused: {fact.message}"[:4000],
        refused=refused or None,
    )
    if fact.answer is Answer.NOT_OURS:
        # Held by somebody else: there is nothing of ours to release.
        status = _quiesce(
            status,
            release_seen_at=fact.returned_at,
            message=f"the VM is paused by somebody else ({fact.message}); unpause or stop it"[:4000],
        )
    return status


def _released(status: VMBackupStatus, fact: Released) -> VMBackupStatus:
    quiesce = status.quiesce or QuiesceStatus()
    first = quiesce.release_sent_at or fact.sent_at
    status = _quiesce(status, release_sent_at=first, last_release_at=fact.sent_at)
    status = _window(status, release_sent=first)
    refused_twice = fact.answer is Answer.REFUSED and quiesce.answer == Answer.REFUSED
    if fact.answer in (Answer.OK, Answer.NOT_HELD) or refused_twice:
        status = _quiesce(status, released_at=quiesce.released_at or fact.returned_at)
    elif quiesce.abandoned is None:
        status = _quiesce(status, message=f"the release was not confirmed: {fact.message}"[:4000])
    if fact.answer is Answer.NOT_HELD and quiesce.answer == Answer.OK and quiesce.released_at is None:
        status = _quiesce(status, found_released=True)
    return status


def _quiesce(status: VMBackupStatus, **fields: object) -> VMBackupStatus:
    quiesce = (status.quiesce or QuiesceStatus()).model_copy(update=fields)
    return status.model_copy(update={"quiesce": quiesce})


def _window(status: VMBackupStatus, **fields: datetime) -> VMBackupStatus:
    if status.consistency is None:
        return status
    window = (status.consistency.window or Window()).model_copy(update=fields)
    return status.model_copy(update={"consistency": status.consistency.model_copy(update={"window": window})})
