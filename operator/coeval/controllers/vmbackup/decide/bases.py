"""Earlier backups to start from: which one, what is kept for the next, what that makes superfluous."""

from coeval.api.v1alpha1.vmbackup import BaseStatus, KeepBase, Result, VolumeStatus
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.world import World
from coeval.domain.storage import MetadataService, Snapshot


def choose(world: World, volume: VolumeStatus) -> BaseStatus | None:
    """The newest completed backup of the same volume, before all one whose snapshot of T1 is still there."""
    found: BaseStatus | None = None
    for earlier in sorted(world.earlier, key=lambda e: e.point_in_time, reverse=True):
        before = next((v for v in earlier.volumes if _same(v, volume)), None)
        if before is None:
            continue
        base = BaseStatus(backup=earlier.name, snapshot_id=earlier.snapshot_id)
        if before.t1 is not None and _kept(world, before) is not None:
            return base.model_copy(
                update={"handle": before.t1.handle, "restore_size": before.t1.restore_size}
            )
        found = found or base
    return found


def keep(draft: Draft) -> None:
    """Mark the snapshots that outlive this backup: of drivers that can be asked later what changed."""
    if draft.world.backup.spec.changed_blocks.keep_base is KeepBase.NEVER:
        return
    for volume in draft.volumes:
        service = draft.world.metadata_services.get(volume.driver or "")
        if volume.t1 is not None and isinstance(service, MetadataService):
            draft.volume(volume.name, t1=volume.t1.model_copy(update={"kept_as_base": True}))


def kept(draft: Draft) -> list[Snapshot]:
    """Snapshots of T1 that this backup leaves behind; they would go with an object that is being deleted."""
    outcome = draft.status.outcome
    if outcome is None or outcome.result is not Result.COMPLETED or draft.world.backup.deleting:
        return []
    names = {v.t1.snapshot: v.t1.uid for v in draft.volumes if v.t1 is not None and v.t1.kept_as_base}
    return [s for s in draft.world.snapshots.values() if names.get(s.name) == s.uid]


def superseded(draft: Draft) -> list[Snapshot]:
    """Of earlier backups, what the snapshots kept by this one make superfluous."""
    ours = {s.name for s in kept(draft) if s.ready and not s.deleting}
    moment = draft.status.point_in_time
    found = []
    for volume in draft.volumes:
        if volume.t1 is None or volume.t1.snapshot not in ours:
            continue
        for earlier in draft.world.earlier:
            if moment is None or earlier.point_in_time >= moment:
                continue
            befores = [v for v in earlier.volumes if v.name == volume.name]
            found += [s for v in befores if (s := _snapshot(draft.world, v)) is not None]
    return found


def _same(before: VolumeStatus, now: VolumeStatus) -> bool:
    def identity(volume: VolumeStatus) -> tuple[object, ...]:
        claim = volume.name, volume.role, volume.claim_uid
        return *claim, volume.persistent_volume, volume.driver, volume.volume_handle

    return identity(before) == identity(now)


def _kept(world: World, volume: VolumeStatus) -> Snapshot | None:
    """The snapshot of T1 that an earlier backup has kept, if it is still the same one."""
    snapshot = _snapshot(world, volume)
    if snapshot is None or volume.t1 is None or snapshot.deleting or not snapshot.ready:
        return None
    return snapshot if snapshot.content == volume.t1.content and volume.t1.handle else None


def _snapshot(world: World, volume: VolumeStatus) -> Snapshot | None:
    if volume.t1 is None or not volume.t1.kept_as_base:
        return None
    snapshot = world.base_snapshots.get(volume.t1.snapshot or "")
    return snapshot if snapshot is not None and snapshot.uid == volume.t1.uid else None
