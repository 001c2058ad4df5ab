"""How a mover learns what changed: where it starts, whom it asks, or why it reads everything.

Here is what can be seen in the cluster; what only the volume or the driver can tell, the mover finds out, and
it reads everything where there is any doubt (architecture.md, "change source").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from coeval.api.v1alpha1.vmbackup import FallbackStatus, Role, SnapshotStatus, Strategy, VolumeStatus
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.decide.step import Step, exposure
from coeval.controllers.vmbackup.plan import Ask, AskedThrough, Moment
from coeval.domain.storage import MetadataService


class Doubt(StrEnum):
    """Why a driver is not asked what changed since an earlier snapshot (docs/changed-blocks.md)."""

    NO_METADATA_SERVICE = "NoMetadataService"
    METADATA_SERVICE_INVALID = "MetadataServiceInvalid"
    NO_EARLIER_BACKUP = "NoEarlierBackup"
    BASE_NOT_KEPT = "BaseNotKept"
    SIZE_DIFFERS = "SizeDiffers"
    VOLUME_REPLACED = "VolumeReplaced"
    RESIZE_PENDING = "ResizePending"
    DATA_JOURNALED = "DataJournaled"
    VIEW_NOT_READY = "ViewNotReady"


@dataclass(frozen=True, slots=True)
class Start:
    """Where a mover starts. `parent` is a snapshot in the repository; nobody is asked where `ask` is None."""

    parent: str | None = None
    ask: Ask | None = None
    record_extents: bool = False
    fallback: FallbackStatus | None = None


def of_copy(draft: Draft, step: Step) -> Start:
    """A copy starts from the earlier backup, if there is one."""
    volume, twin = step.volume, step.exposure(draft.world.backup.uid)
    parent = volume.base.snapshot_id if volume.base else None
    service = _service(draft, volume)
    image = volume.role is Role.IMAGE
    if isinstance(service, FallbackStatus):
        return Start(parent, fallback=service)
    if volume.strategy is Strategy.DIRECT:
        return Start(parent, record_extents=True)
    doubt = next(_doubts_of_base(draft, volume, step.source), None)
    if doubt is None and volume.base is not None:
        through = AskedThrough.EXTENTS if image else AskedThrough.DEVICE
        return Start(parent, Ask(through, service, twin, volume.base.handle), image)
    # What is allocated is told of the device alone: a file lies somewhere in it.
    return Start(parent, None if image else Ask(AskedThrough.DEVICE, service, twin), image, doubt)


def of_rewind(draft: Draft, step: Step) -> Start:
    """The rewind starts from the copy of T2. The extents of T1 are for the next backup."""
    volume, world = step.volume, draft.world
    service = _service(draft, volume)
    if isinstance(service, FallbackStatus):
        return Start(fallback=service)
    doubt = next(_doubts_of_rewind(draft, volume), None)
    if doubt is not None:
        return Start(record_extents=True, fallback=doubt)
    later = exposure(world.backup.uid, Moment.T2, volume)
    return Start(None, Ask(AskedThrough.EXTENTS, service, later, step.source.handle), record_extents=True)


def rolls_forward(draft: Draft, volume: VolumeStatus) -> bool:
    """The driver can tell what changed since the earlier backup of the volume."""
    known = isinstance(_service(draft, volume), MetadataService)
    return known and next(_doubts_of_base(draft, volume, volume.t1 or SnapshotStatus()), None) is None


def _service(draft: Draft, volume: VolumeStatus) -> MetadataService | FallbackStatus:
    found = draft.world.metadata_services.get(volume.driver or "")
    if isinstance(found, MetadataService):
        return found
    if found is not None:
        return _doubt(Doubt.METADATA_SERVICE_INVALID, found)
    return _doubt(
        Doubt.NO_METADATA_SERVICE, f"there is no SnapshotMetadataService of the driver {volume.driver}"
    )


def _doubts_of_base(draft: Draft, volume: VolumeStatus, source: SnapshotStatus) -> Iterator[FallbackStatus]:
    base = volume.base
    if base is None:
        yield _doubt(
            Doubt.NO_EARLIER_BACKUP,
            "no completed VMBackup of this volume in the same repository is there to start from",
        )
    elif base.handle is None:
        yield _doubt(
            Doubt.BASE_NOT_KEPT,
            f"VMBackup {base.backup} has not kept its snapshot of the volume, or it is gone "
            "(spec.changedBlocks.keepBase)",
        )
    elif base.restore_size != source.restore_size:
        yield _doubt(
            Doubt.SIZE_DIFFERS,
            f"the volume had {base.restore_size} bytes at VMBackup {base.backup} and has "
            f"{source.restore_size} now",
        )
    if volume.role is Role.IMAGE:
        yield from _doubts_of_claim(draft, volume)


def _doubts_of_rewind(draft: Draft, volume: VolumeStatus) -> Iterator[FallbackStatus]:
    t1, t2 = volume.t1 or SnapshotStatus(), volume.t2 or SnapshotStatus()
    later = draft.world.twins.get(exposure(draft.world.backup.uid, Moment.T2, volume))
    if later is None or later.deleting or not later.ready:
        yield _doubt(Doubt.VIEW_NOT_READY, "our view of the T2 snapshot was removed by somebody else")
    if t1.restore_size != t2.restore_size:
        yield _doubt(
            Doubt.SIZE_DIFFERS,
            f"the volume had {t1.restore_size} bytes at T1 and {t2.restore_size} at T2",
        )
    yield from _doubts_of_claim(draft, volume)


def _doubts_of_claim(draft: Draft, volume: VolumeStatus) -> Iterator[FallbackStatus]:
    """What makes a file's extents say less than it seems."""
    claim = draft.world.claims.get(volume.claim)
    if claim is None or (claim.uid, claim.volume) != (volume.claim_uid, volume.persistent_volume):
        yield _doubt(Doubt.VOLUME_REPLACED, f"PersistentVolumeClaim {volume.claim} is not what it was at T1")
        return
    if claim.resizing:
        yield _doubt(Doubt.RESIZE_PENDING, f"PersistentVolumeClaim {volume.claim} is being resized")
    if "data=journal" in ",".join(claim.mount_options).split(","):
        yield _doubt(
            Doubt.DATA_JOURNALED,
            f"PersistentVolume {volume.persistent_volume} is mounted with data=journal, so that its device "
            "does not have all of a file",
        )


def _doubt(reason: Doubt, message: str) -> FallbackStatus:
    return FallbackStatus(reason=reason.value, message=message)
