"""When every part is as of T1: one entry in the repository that joins them, read back before it counts."""

from coeval.api.v1alpha1.vmbackup import RepositoryStatus, Role, Verify, VolumeStatus
from coeval.controllers.vmbackup.decide import bases, jobs
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.decide.preflight import manifests_name, save_manifests
from coeval.controllers.vmbackup.decide.step import rewinds
from coeval.controllers.vmbackup.plan import RunMover, Verb
from coeval.domain import naming


def advance(draft: Draft) -> None:
    """Commit, then verify, then the backup is complete."""
    _reconciled(draft)
    _commit(draft)


def _reconciled(draft: Draft) -> None:
    rewound = [v for v in draft.volumes if rewinds(v)]
    if not rewound:
        images = any(v.role is Role.IMAGE for v in draft.volumes)
        reason = "CopiedFromT1" if images else "NoImageVolumes"
        draft.condition("Reconciled", "True", reason, "every volume was copied from T1")
        return
    chunks = sum((v.reconcile.chunks_changed or 0) if v.reconcile else 0 for v in rewound)
    draft.condition(
        "Reconciled", "True", "Rewound", f"every image is as of T1; {chunks} chunks of T2 were put back"
    )


def _commit(draft: Draft) -> None:
    repository = draft.status.repository or RepositoryStatus()
    if repository.snapshot_id is not None:
        _verify(draft, repository.snapshot_id)
        return
    uid = draft.world.backup.uid
    manifests = manifests_name(uid)
    if manifests not in draft.world.manifests:
        draft.act(save_manifests(draft))
        draft.again(draft.settings.window_poll)
        return
    parts = tuple(_part(v) for v in draft.volumes)
    wanted = RunMover(
        name=naming.child(uid, Verb.COMMIT.value),
        verb=Verb.COMMIT,
        deadline=jobs.deadline(draft),
        as_of=draft.status.point_in_time,
        snapshots=parts,
        manifests=manifests,
    )
    result = jobs.ensure(draft, wanted)
    if result is None:
        return
    snapshot = jobs.snapshot_of(draft, wanted.name, result)
    if snapshot is None:
        return
    draft.set(repository=repository.model_copy(update={"snapshot_id": snapshot}))
    draft.note("Normal", "Committed", f"the backup is the snapshot {snapshot} of {repository.path}")
    draft.again(0.0)


def _verify(draft: Draft, snapshot: str) -> None:
    how = draft.world.backup.spec.verify
    if how is Verify.NONE:
        draft.condition("Verified", "Unknown", "NotRequested", "spec.verify is None")
        _complete(draft)
        return
    wanted = RunMover(
        name=naming.child(draft.world.backup.uid, Verb.VERIFY.value),
        verb=Verb.VERIFY,
        deadline=jobs.deadline(draft),
        snapshots=(snapshot,),
        sample="1%" if how is Verify.SAMPLED else None,
    )
    if jobs.ensure(draft, wanted) is not None:
        text = "a sample of the backup was" if how is Verify.SAMPLED else "the whole backup was"
        draft.condition("Verified", "True", how.value, f"{text} read back from the repository")
        _complete(draft)
    elif draft.status.outcome is not None:
        draft.condition("Verified", "False", draft.status.outcome.reason, draft.status.outcome.message)


def _complete(draft: Draft) -> None:
    bases.keep(draft)
    draft.complete()


def _part(volume: VolumeStatus) -> str:
    step = volume.reconcile if rewinds(volume) else volume.copy_
    if step is None or step.snapshot_id is None:
        raise AssertionError(f"volume {volume.name} is finished without a snapshot")
    return step.snapshot_id
