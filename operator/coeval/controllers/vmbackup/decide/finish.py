"""The way out of every backup: remove what was made, in an order in which nothing is needed any more.

Movers first, then the claims that they read, then our twins with their contents, then the original snapshots:
the backend snapshots go with the originals alone (csi.md, "Twins"). Absence is not taken for removal: the end
is only declared on a live look that found nothing of ours.
"""

from collections.abc import Iterable
from typing import Protocol

from coeval.api.v1alpha1.vmbackup import (
    DeletionPolicy,
    OutcomeStatus,
    Phase,
    RestorableStatus,
    Result,
    StepState,
    TroubleStatus,
)
from coeval.controllers.mover_state import MoverJob
from coeval.controllers.vmbackup.decide import bases
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.plan import (
    Delete,
    DropFinalizer,
    KeepSnapshot,
    RemoveFinalizer,
    RunMover,
    Thing,
    Verb,
)
from coeval.controllers.vmbackup.world import holds_guest
from coeval.domain import naming
from coeval.domain.storage import Content, Snapshot

AS_SOURCE = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"
BOUND_CONTENT = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
# A content that is removed within moments of its creation may stay for ever (velero#9699).
_SETTLED_AFTER = 10.0
_NOTHING_WRITTEN = frozenset({"WrongPassword", "RepositoryNotFound"})
_GONE_ALREADY = frozenset({"SnapshotNotFound", "RepositoryNotFound"})


class _Piece(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def deleting(self) -> bool: ...


def clean_up(draft: Draft) -> None:
    """One more round; it is done when a round finds nothing."""
    world, ours = draft.world, draft.settings.namespace
    forget = naming.child(world.backup.uid, Verb.FORGET.value)
    movers = [j for j in world.jobs.values() if j.name != forget]
    _remove(draft, Thing.JOB, movers, ours)
    if movers or any(p.job != forget for p in world.pods):
        draft.wait("waiting for the movers to end", 1.0)
        return
    forgotten = _forget_parts(draft, forget)
    if _remove(draft, Thing.CLAIM, world.twin_claims.values(), ours):
        draft.wait("waiting for our claims to go", 1.0)
        return
    if _remove_twins(draft):
        draft.wait("waiting for our views of the snapshots to go", 1.0)
        return
    # What outlives us has to go with its storage whenever it goes, whatever its class says.
    for snapshot in bases.kept(draft):
        if _retained(draft, snapshot):
            draft.act(KeepSnapshot(snapshot.name, snapshot.uid))
            draft.again(1.0)  # not at once, for it may be refused
    if _remove(draft, Thing.SNAPSHOT, _originals(draft), world.backup.namespace):
        draft.wait(f"waiting for VolumeSnapshots in {world.backup.namespace} to go", 1.0)
        return
    if not forgotten:
        draft.wait("removing partial copies from the repository", 2.0)
        return
    _remove(draft, Thing.JOB, world.jobs.values(), ours)
    _remove(draft, Thing.MANIFESTS, world.manifests.values(), ours)
    if world.jobs or world.pods or world.manifests:
        draft.wait("waiting for the last of our objects to go", 1.0)


def settle(draft: Draft) -> None:
    """Declare the end, once nothing is left and the guest is released. Terminal phases never change."""
    outcome, world = draft.status.outcome, draft.world
    left = (
        world.jobs,
        world.pods,
        world.twin_claims,
        world.twins,
        world.twin_contents,
        _originals(draft),
        world.manifests,
    )
    if outcome is None or draft.actions or any(left) or holds_guest(draft.status):
        return
    if _forget_needed(draft, outcome) and outcome.forgotten is None:
        return
    result = outcome.result
    draft.set(
        phase=Phase(result.value),
        completed_at=draft.now.replace(microsecond=0),
        trouble=None,
    )
    message = _last_words(draft, outcome)
    if result is Result.COMPLETED:
        consistency = draft.status.consistency
        draft.set(
            restorable=RestorableStatus(
                point_in_time=draft.status.point_in_time,
                consistency=consistency.achieved if consistency is not None else None,
            )
        )
        draft.condition("Ready", "True", outcome.reason, message)
        draft.condition("Stalled", "False", outcome.reason)
        draft.note("Normal", outcome.reason, message)
    else:
        draft.condition("Ready", "False", outcome.reason, message)
        # kstatus reads Ready=False alone as "in progress" for ever; a cancelled backup has ended, too.
        draft.condition("Stalled", "True", outcome.reason, message)
    draft.condition("Reconciling", "False", result.value)
    draft.again(0.0)


def after_the_end(draft: Draft) -> None:
    """The finalizer stays only while deleting the object has to delete data, too."""
    backup, status = draft.world.backup, draft.status
    if not backup.finalizer:
        return
    snapshot = status.repository.snapshot_id if status.repository else None
    keeps_data = backup.spec.deletion_policy is DeletionPolicy.RETAIN or snapshot is None
    if keeps_data:
        draft.act(RemoveFinalizer())
    elif backup.deleting and snapshot is not None:
        _delete_data(draft, snapshot)


def _delete_data(draft: Draft, snapshot: str) -> None:
    world, ours = draft.world, draft.settings.namespace
    name = naming.child(world.backup.uid, "delete")
    job = world.jobs.get(name)
    outcome = draft.status.outcome
    if outcome is not None and outcome.forgotten == "Deleted":
        if not _remove(draft, Thing.JOB, world.jobs.values(), ours) and not world.pods:
            draft.act(RemoveFinalizer())
        draft.again(1.0)
    elif job is None and world.repository is None:
        draft.note(
            "Warning",
            "RepositoryNotFound",
            f"the BackupRepository {world.backup.spec.repository} is gone, so the snapshot {snapshot} in it "
            "could not be removed",
        )
        draft.act(RemoveFinalizer())
    elif job is None:
        draft.act(RunMover(name, Verb.FORGET, draft.settings.forget_deadline, snapshots=(snapshot,)))
        draft.again(2.0)
    elif job.succeeded or _said(job) in _GONE_ALREADY:
        if outcome is not None:
            draft.set(outcome=outcome.model_copy(update={"forgotten": "Deleted"}))
        draft.again(0.0)
    elif job.failed is not None and draft.since(job.created) > draft.settings.forget_deadline:
        draft.note(
            "Warning",
            "DeletionFailed",
            f"the snapshot {snapshot} was not removed, trying again: {_words(job)}",
        )
        _remove(draft, Thing.JOB, [job], ours)
        draft.again(1.0)
    else:
        draft.again(10.0 if job.failed else 2.0)


def _forget_needed(draft: Draft, outcome: OutcomeStatus) -> bool:
    """Anything may be in the repository that is not the finished backup."""
    if outcome.result is Result.COMPLETED:
        return False  # the commit has removed its parts itself
    started = [
        v.copy_ for v in draft.volumes if v.copy_ is not None and v.copy_.state is not StepState.PENDING
    ]
    if outcome.reason in _NOTHING_WRITTEN:
        return any(c.snapshot_id is not None for c in started)
    return bool(started)


def _forget_parts(draft: Draft, name: str) -> bool:
    """True when there is nothing to forget, it is forgotten, or it could not be: then the message says so."""
    outcome, world = draft.status.outcome, draft.world
    if outcome is None or outcome.forgotten is not None or not _forget_needed(draft, outcome):
        return True
    job = world.jobs.get(name)
    if job is None and world.repository is None:
        _forgotten(
            draft, outcome, f"not removed, for the BackupRepository {world.backup.spec.repository} is gone"
        )
    elif job is None and (refusal := _refused_for_long(draft, outcome)) is not None:
        _forgotten(draft, outcome, f"not removed: {refusal.reason}: {refusal.message}")
    elif job is None:
        # What was committed and then failed its verification stays for examination; all else goes, and so
        # does a commit whose Job was ended before it could be seen.
        kept = draft.status.repository is not None and draft.status.repository.snapshot_id is not None
        parts_only = kept and outcome.result is Result.FAILED
        draft.act(RunMover(name, Verb.FORGET, draft.settings.forget_deadline, parts_only=parts_only))
        draft.again(1.0)
    elif job.succeeded or _said(job) in _GONE_ALREADY:
        _forgotten(draft, outcome, "removed")
    elif job.failed is not None:
        _forgotten(draft, outcome, f"not removed: {_words(job)}")
    return draft.status.outcome is not None and draft.status.outcome.forgotten is not None


def _refused_for_long(draft: Draft, outcome: OutcomeStatus) -> TroubleStatus | None:
    """A quota or a policy that lets no Job in must not keep the backup from its end."""
    trouble, patience = draft.status.trouble, draft.settings.expose_deadline
    tried = draft.since(outcome.decided_at or draft.now) > draft.settings.removal_grace
    return trouble if trouble is not None and tried and draft.since(trouble.since) > patience else None


def _forgotten(draft: Draft, outcome: OutcomeStatus, what: str) -> None:
    draft.set(outcome=outcome.model_copy(update={"forgotten": what[:1000]}))
    draft.again(0.0)


def _remove_twins(draft: Draft) -> bool:
    world, ours = draft.world, draft.settings.namespace
    if _remove(draft, Thing.SNAPSHOT, world.twins.values(), ours):
        for twin in world.twins.values():
            if twin.deleting and AS_SOURCE in twin.finalizers:
                # Left behind by a claim that was never provisioned (csi.md, the trap). All our claims are
                # gone by the live look that this plan rests on, so nothing reads the twin.
                draft.act(DropFinalizer(Thing.SNAPSHOT, twin.name, ours, twin.uid, AS_SOURCE))
        return True
    ripe = [c for c in world.twin_contents.values() if _settled(draft, c)]
    _remove(draft, Thing.CONTENT, ripe, None)
    for content in world.twin_contents.values():
        if BOUND_CONTENT in content.finalizers and _forgotten_by_its_controller(draft, content):
            draft.act(DropFinalizer(Thing.CONTENT, content.name, None, content.uid, BOUND_CONTENT))
    return bool(world.twin_contents)


def _originals(draft: Draft) -> list[Snapshot]:
    """Those that still concern us.

    While a driver answers that it is busy or full, nothing can remove a snapshot that it has not finished
    (csi.md 6). Its removal is asked for, its controllers see it through without us, and a backup that has
    long failed must not look as if it still worked.
    """
    keep, outcome = bases.kept(draft), draft.status.outcome
    doomed = [s for s in draft.world.snapshots.values() if s not in keep]
    # What earlier backups have left may be refused to us; the next one tries again.
    if outcome is not None and draft.since(outcome.decided_at or draft.now) < draft.settings.removal_grace:
        doomed += bases.superseded(draft)
    return [s for s in doomed if not _let_go(draft, s)]


def _retained(draft: Draft, snapshot: Snapshot) -> bool:
    content = draft.world.contents.get(snapshot.content or "")
    return content is not None and content.retains


def _let_go(draft: Draft, snapshot: Snapshot) -> bool:
    return snapshot.deleted_at is not None and draft.since(snapshot.deleted_at) > draft.settings.removal_grace


def _forgotten_by_its_controller(draft: Draft, content: Content) -> bool:
    """A twin that goes within a second of its binding: the snapshot controller looks again after 15 minutes.

    The content is ours and retains, its VolumeSnapshot is gone by the live look that this plan rests on.
    """
    return content.deleted_at is not None and draft.since(content.deleted_at) > _SETTLED_AFTER


def _settled(draft: Draft, content: Content) -> bool:
    return BOUND_CONTENT in content.finalizers or draft.since(content.created) > _SETTLED_AFTER


def _remove(draft: Draft, thing: Thing, pieces: Iterable[_Piece], namespace: str | None) -> bool:
    """Ask for the removal of each; True while there is any."""
    pieces = list(pieces)
    draft.act(*(Delete(thing, p.name, p.uid, namespace) for p in pieces if not p.deleting))
    return bool(pieces)


def _said(job: MoverJob) -> str | None:
    said = job.error() if job.failed is not None else None
    return said[0] if said else None


def _words(job: MoverJob) -> str:
    said = job.error()
    return f"{said[0]}: {said[1]}" if said else job.story()


def _last_words(draft: Draft, outcome: OutcomeStatus) -> str:
    status = draft.status
    repository = status.repository
    words = [_left_to_the_driver(draft)]
    if outcome.result is Result.COMPLETED:
        entry = f"snapshot {repository.snapshot_id} of {repository.path}" if repository else "the repository"
        words.insert(0, f"{len(draft.volumes)} volumes as of one moment are in {entry}")
        return "; ".join(filter(None, words))
    words.insert(0, outcome.message)
    if repository is not None and repository.snapshot_id is not None:
        kept = "it is kept for examination" if outcome.result is Result.FAILED else "it was removed, too"
        words.append(f"the snapshot {repository.snapshot_id} had been committed; {kept}")
    if outcome.forgotten is not None and outcome.forgotten != "removed":
        words.append(f"partial copies in the repository were {outcome.forgotten}")
    return "; ".join(filter(None, words))


def _left_to_the_driver(draft: Draft) -> str | None:
    names = sorted(s.name for s in draft.world.snapshots.values() if _let_go(draft, s))
    if not names:
        return None
    return (
        f"the CSI driver has not finished the removal of the VolumeSnapshots {', '.join(names)} in "
        f"{draft.world.backup.namespace}, which go by themselves when it does"
    )
