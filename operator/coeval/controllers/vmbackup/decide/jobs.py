"""Mover Jobs: start, watch, and tell a failure that retries will not heal from one that they may."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from coeval.controllers.mover_state import MoverJob, MoverPod
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.plan import Delete, RunMover, Thing
from coeval.domain.duration import seconds

# Another try meets the same: a key, a full or a damaged repository does not change by itself.
HOPELESS = frozenset(
    {
        "WrongPassword",
        "RepositoryNotFound",
        "RepositoryFull",
        "RepositoryDamaged",
        "BucketNotFound",
        "CredentialsRefused",
        "SourceSizeMismatch",
        "SnapshotNotFound",
        "InterimSnapshot",
        "InvalidRanges",
        "InvalidArgument",
    }
)
# Seconds in which a start is not worth a word.
_SLOW_START = 15.0
_WAY_OUT = {
    "WrongPassword": "put the password that the repository was made with into the BackupRepository's Secret",
    "RepositoryFull": "make room (forget and prune old backups, enlarge the volume), then start a new backup",
    "RepositoryDamaged": "check the repository (restic check --read-data) before you trust it",
    "BucketNotFound": "make it, or name another one in a new BackupRepository (its spec.location)",
    "CredentialsRefused": "correct the Secret that the BackupRepository names as its credentialsSecret",
    "RepositoryLocked": "another program holds the lock; end it, or remove a stale one (restic unlock)",
}


def deadline(draft: Draft) -> int:
    """Seconds that are left of spec.deadline, which bounds every mover too."""
    started = draft.status.started_at or draft.now
    end = started + timedelta(seconds=seconds(draft.world.backup.spec.deadline))
    return max(60, int((end - draft.now).total_seconds()))


def ensure(draft: Draft, wanted: RunMover) -> Mapping[str, Any] | None:
    """Start it if it is not there, watch it if it is; the result when it is done."""
    job = draft.world.jobs.get(wanted.name)
    if job is None:
        draft.act(wanted)
        draft.again(1.0)
        return None
    found = watch(draft, job)
    if found is None:
        draft.again(draft.settings.work_poll)
    return found


def watch(draft: Draft, job: MoverJob) -> Mapping[str, Any] | None:
    """The result of a Job that is done; None while it runs, or once it has failed the backup."""
    if job.deleting:
        draft.again(1.0)
        return None
    if job.succeeded:
        return _result(draft, job)
    said = job.error()
    if job.failed is not None:
        reason, message = said or ("MoverFailed", job.story())
        draft.fail(reason, _explained(draft, job, reason, message))
    elif said is not None and said[0] in HOPELESS:
        draft.fail(said[0], _explained(draft, job, *said))
    else:
        _stuck(draft, job)
        if said is not None:
            again = f"mover Job {job.name} is tried again after {said[0]}: {said[1]}"
            draft.wait(again, draft.settings.work_poll)
    return None


def progress(job: MoverJob) -> Mapping[str, Any] | None:
    """The last line of the pod that runs."""
    return next((p.progress for p in reversed(job.pods) if p.phase == "Running" and p.progress), None)


def number(values: Mapping[str, Any], key: str) -> int | None:
    """A count from a mover's JSON; None where it is missing or no sensible number."""
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
        return None
    return int(value)


def snapshot_of(draft: Draft, name: str, result: Mapping[str, Any]) -> str | None:
    """The id of the snapshot that a mover made; without one its word is not to be trusted at all."""
    snapshot = result.get("snapshot")
    if isinstance(snapshot, str) and snapshot:
        return snapshot
    draft.fail(
        "MoverResultInvalid", f"mover Job {name} ended well but named no snapshot: {dict(result)}"[:500]
    )
    return None


def _result(draft: Draft, job: MoverJob) -> Mapping[str, Any] | None:
    result = job.result()
    if result is None:
        # It was done, but its pod went before its words were read. Doing it again is safe; guessing is not.
        draft.act(Delete(Thing.JOB, job.name, job.uid, draft.settings.namespace))
        draft.again(1.0)
    return result


def _stuck(draft: Draft, job: MoverJob) -> None:
    """A pod that never starts: say why while it lasts, give up after a while."""
    pod = next((p for p in reversed(job.pods) if not p.deleting), None)
    if pod is None:
        _without_pod(draft, job)
    elif pod.phase == "Pending":
        _waited_for(draft, job, pod.created, _why_pending(draft, pod))


def _without_pod(draft: Draft, job: MoverJob) -> None:
    """Evicted, or never made. The Job's age says nothing: it may have worked for hours before that."""
    if job.pods:
        draft.wait(f"waiting for the evicted pod {job.pods[-1].name} to end", draft.settings.work_poll)
    elif job.trouble is not None:
        _waited_for(draft, job, job.created, job.trouble)
    elif draft.since(job.created) > _SLOW_START:
        draft.wait(f"waiting for a pod of mover Job {job.name}", draft.settings.work_poll)


def _waited_for(draft: Draft, job: MoverJob, since: datetime, why: str) -> None:
    waited = draft.since(since)
    if waited > draft.settings.expose_deadline:
        draft.fail(
            "MoverNotStarted",
            f"mover Job {draft.settings.namespace}/{job.name} has not started after "
            f"{draft.settings.expose_deadline:.0f} s: {why}",
        )
    elif waited > _SLOW_START:
        draft.wait(f"waiting for mover Job {job.name}: {why}", draft.settings.work_poll)


def _why_pending(draft: Draft, pod: MoverPod) -> str:
    troubles = [c.trouble for c in draft.world.twin_claims.values() if not c.bound and c.trouble]
    return "; ".join([pod.waiting or "the pod is Pending", *troubles])


def _explained(draft: Draft, job: MoverJob, reason: str, message: str) -> str:
    """With the names that a person needs to go and look, and what helps."""
    repository = draft.world.repository
    place = f"BackupRepository {repository.name} in {repository.spec.location}, " if repository else ""
    parts = [f"{place}mover Job {job.name}: {message}", _WAY_OUT.get(reason)]
    return "; ".join(filter(None, parts))
