"""From the snapshots of T1 to one committed entry in the repository.

Per volume: twin of a snapshot → claim from the twin → mover Job → its result in status. Direct volumes, and
images that are not rewound, are copied from T1; when all of them are, the other images are snapshotted once
more (T2), copied, and rewound to T1 by a second Job.
"""

from coeval.api.v1alpha1.vmbackup import Role, SnapshotStatus, Strategy, VolumeStatus
from coeval.controllers.vmbackup.decide import changes, commit, jobs, results
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.decide.moment import snapshot_name
from coeval.controllers.vmbackup.decide.step import Step, copied, finished, rewinds
from coeval.controllers.vmbackup.plan import (
    Delete,
    MakeClaim,
    MakeTwin,
    Moment,
    RunMover,
    TakeSnapshot,
    Thing,
    Verb,
)
from coeval.domain.storage import Snapshot


def advance(draft: Draft) -> None:
    """Everything that can be done now, of all volumes."""
    if draft.world.repository is None:
        draft.fail(
            "RepositoryNotFound",
            f"the BackupRepository {draft.world.backup.spec.repository} was deleted while it was written to",
        )
        return
    if not _snapshots_ready(draft, Moment.T1, draft.volumes):
        return
    _choose_strategies(draft)
    slots = _Slots(draft)
    rewound = [v for v in draft.volumes if rewinds(v)]
    others = [v for v in draft.volumes if not rewinds(v)]
    for volume in others:
        _run(draft, Step(Verb.COPY, volume, Moment.T1), slots)
    if rewound and all(copied(v) for v in _fresh(draft, others)):
        _advance_images(draft, rewound, slots)
    if draft.status.outcome is None and all(finished(v) for v in draft.volumes):
        commit.advance(draft)


def _choose_strategies(draft: Draft) -> None:
    """Once per image, when it is known what T1's snapshot is like."""
    wanted = draft.world.backup.spec.images.strategy
    for volume in draft.volumes:
        if volume.role is not Role.IMAGE or volume.strategy is not None:
            continue
        chosen = wanted
        if wanted is Strategy.AUTO:
            known = changes.rolls_forward(draft, volume)
            chosen = Strategy.ROLL_FORWARD if known else Strategy.REWIND
        if volume.t2 is not None:  # begun before there was a choice
            chosen = Strategy.REWIND
        draft.volume(volume.name, strategy=chosen)


def _advance_images(draft: Draft, images: list[VolumeStatus], slots: "_Slots") -> None:
    if not _snapshots_ready(draft, Moment.T2, images):
        return
    for volume in _fresh(draft, images):
        if not copied(volume):
            _run(draft, Step(Verb.COPY, volume, Moment.T2), slots)
        elif not finished(volume):
            _run(draft, Step(Verb.RETIME, volume, Moment.T1), slots)


class _Slots:
    """How many movers of this backup may run at once: repositories and storage are shared with others."""

    def __init__(self, draft: Draft) -> None:
        running = sum(1 for j in draft.world.jobs.values() if not j.succeeded and j.failed is None)
        self.free = draft.settings.parallel_movers - running

    def take(self) -> bool:
        self.free -= 1
        return self.free >= 0


def _snapshots_ready(draft: Draft, moment: Moment, volumes: list[VolumeStatus]) -> bool:
    """Ask for what is missing of T2, and learn what the movers need; True when all are ready."""
    ready = True
    for volume in _fresh(draft, volumes):
        known = volume.t1 if moment is Moment.T1 else volume.t2
        if known is not None and known.handle is not None:
            continue
        ready = _learn(draft, moment, volume, known) and ready
    return ready and draft.status.outcome is None


def _learn(draft: Draft, moment: Moment, volume: VolumeStatus, known: SnapshotStatus | None) -> bool:
    name = (known.snapshot if known else None) or snapshot_name(draft, volume.name, moment)
    snapshot = draft.world.snapshots.get(name)
    if snapshot is None or (known is not None and known.uid not in (None, snapshot.uid)):
        if moment is Moment.T1 or known is not None:
            _lost(draft, volume, moment)
        else:
            _take_second(draft, volume, name)
        return False
    content = draft.world.contents.get(snapshot.content or "")
    if snapshot.ready and content is not None and content.handle is not None:
        # Both directions of the binding, or it is somebody else's snapshot.
        if content.ref != (draft.world.backup.namespace, snapshot.name, snapshot.uid):
            draft.fail(
                "SnapshotMisbound",
                f"VolumeSnapshot {snapshot.name} says that it is bound to {content.name}, which is bound to "
                f"{'/'.join(content.ref[:2])}; see the snapshot controller",
            )
            return False
        draft.volume(volume.name, **{moment.value: _status_of(snapshot, content.handle)})
        return True
    if draft.since(snapshot.created) > draft.settings.snapshot_deadline:
        draft.fail(
            "SnapshotNotReady",
            f"VolumeSnapshot {draft.world.backup.namespace}/{name} of volume {volume.name} is not ready to "
            f"use after {draft.settings.snapshot_deadline:.0f} s; last error: "
            f"{snapshot.error or 'none reported'}; see the CSI driver and its snapshot sidecar",
        )
        return False
    text = f"waiting for VolumeSnapshot {name}"
    draft.wait(f"{text}: {snapshot.error}" if snapshot.error else text, 1.0)
    return False


def _take_second(draft: Draft, volume: VolumeStatus, name: str) -> None:
    claim = draft.world.claims.get(volume.claim)
    if claim is None or (claim.uid, claim.volume) != (volume.claim_uid, volume.persistent_volume):
        draft.fail(
            "VolumeReplaced",
            f"volume {volume.name} is not on the same claim and PersistentVolume any more as at T1; "
            "start a new backup",
        )
        return
    draft.act(TakeSnapshot(name, volume.name, volume.claim, volume.snapshot_class or "", Moment.T2))
    draft.again(draft.settings.window_poll)


def _status_of(snapshot: Snapshot, handle: str) -> SnapshotStatus:
    return SnapshotStatus(
        snapshot=snapshot.name,
        uid=snapshot.uid,
        content=snapshot.content,
        handle=handle,
        creation_time=snapshot.creation_time,
        restore_size=snapshot.restore_size,
    )


def _lost(draft: Draft, volume: VolumeStatus, moment: Moment) -> None:
    draft.fail(
        "SnapshotLost",
        f"the {moment.value.upper()} snapshot of volume {volume.name} was deleted by somebody else before "
        "it was copied; start a new backup",
    )


def _run(draft: Draft, step: Step, slots: _Slots) -> None:
    """Bring one step further; its result goes to status once, and is never asked for again."""
    if draft.status.outcome is not None or step.done:
        return
    uid = draft.world.backup.uid
    job = draft.world.jobs.get(step.name(uid))
    if job is None:
        if slots.take():
            _expose(draft, step)
        else:
            draft.again(draft.settings.work_poll)
        return
    found = jobs.watch(draft, job)
    if found is None:
        results.progress(draft, step, jobs.progress(job))
    else:
        results.result(draft, step, found)


def _expose(draft: Draft, step: Step) -> None:
    """Twin, then claim and Job: the Job at once, for a class may bind only when a pod needs the claim."""
    world, uid = draft.world, draft.world.backup.uid
    name, source, volume = step.exposure(uid), step.source, step.volume
    claim = world.twin_claims.get(name)
    original = world.snapshots.get(source.snapshot or "")
    if (claim is None or not claim.bound) and (original is None or original.uid != source.uid):
        _lost(draft, volume, step.moment)
        return
    if claim is None:
        if not _twin_ready(draft, step, name):
            return
        size = source.restore_size or volume.size_bytes or 0
        draft.act(MakeClaim(name, name, volume, size))
    elif claim.deleting:
        draft.again(1.0)
        return
    start = changes.of_copy(draft, step) if step.verb is Verb.COPY else changes.of_rewind(draft, step)
    draft.act(_mover(draft, step, name, start))
    results.start(draft, step, start.fallback)
    draft.again(1.0)


def _twin_ready(draft: Draft, step: Step, name: str) -> bool:
    twin, content = draft.world.twins.get(name), draft.world.twin_contents.get(name)
    if (twin is not None and twin.deleting) or (content is not None and content.deleting):
        draft.again(1.0)
        return False
    if content is not None and content.ref[2] and (twin is None or twin.uid != content.ref[2]):
        # Bound to a twin that somebody deleted: such a content binds to no other one.
        draft.act(Delete(Thing.CONTENT, content.name, content.uid, None))
        draft.again(1.0)
        return False
    if twin is None or content is None:
        draft.act(MakeTwin(name, step.volume, step.source.handle or ""))
        draft.again(draft.settings.window_poll)
        return False
    if twin.ready:
        return True
    if draft.since(twin.created) > draft.settings.snapshot_deadline:
        draft.fail(
            "TwinNotReady",
            f"VolumeSnapshot {draft.settings.namespace}/{name}, our read-only view of a snapshot of volume "
            f"{step.volume.name}, is not ready after {draft.settings.snapshot_deadline:.0f} s; last error: "
            f"{twin.error or 'none reported'}; see the snapshot controller and the CSI driver",
        )
        return False
    draft.wait(f"waiting for our view of a snapshot of volume {step.volume.name}", 1.0)
    return False


def _mover(draft: Draft, step: Step, claim: str, start: changes.Start) -> RunMover:
    volume, t1 = step.volume, draft.status.point_in_time
    interim = step.verb is Verb.COPY and step.moment is Moment.T2
    base = volume.copy_.snapshot_id if step.verb is Verb.RETIME and volume.copy_ else None
    return RunMover(
        name=step.name(draft.world.backup.uid),
        verb=step.verb,
        deadline=jobs.deadline(draft),
        volume=volume,
        claim=claim,
        as_of=(step.source.creation_time or t1) if interim else t1,
        interim=interim,
        snapshots=(base,) if base else (),
        parent=start.parent,
        ask=start.ask,
        record_extents=start.record_extents,
    )


def _fresh(draft: Draft, volumes: list[VolumeStatus]) -> list[VolumeStatus]:
    """The same volumes as the draft has them now."""
    names = {v.name for v in volumes}
    return [v for v in draft.volumes if v.name in names]
