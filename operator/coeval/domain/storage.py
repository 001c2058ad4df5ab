"""Claims, snapshots and classes as the decisions see them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim and what is needed of its volume; `driver` and `handle` are of CSI alone."""

    name: str
    uid: str
    phase: str
    mode: str = "Filesystem"
    volume: str | None = None
    driver: str | None = None
    storage_class: str | None = None
    size: int = 0
    resizing: bool = False
    mount_options: tuple[str, ...] = ()
    handle: str | None = None


@dataclass(frozen=True, slots=True)
class SnapshotClass:
    """A VolumeSnapshotClass."""

    name: str
    driver: str
    default: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A VolumeSnapshot; `error` is the last one, which is never final: controllers try again and clear it."""

    name: str
    uid: str
    created: datetime
    creation_time: datetime | None = None
    ready: bool = False
    content: str | None = None
    restore_size: int | None = None
    error: str | None = None
    deleted_at: datetime | None = None
    finalizers: tuple[str, ...] = ()

    @property
    def deleting(self) -> bool:
        """Its removal was asked for."""
        return self.deleted_at is not None


@dataclass(frozen=True, slots=True)
class Content:
    """A VolumeSnapshotContent. `ref` is the (namespace, name, uid) that it is bound to."""

    name: str
    uid: str
    created: datetime
    ref: tuple[str, str, str] = ("", "", "")
    handle: str | None = None
    driver: str = ""
    retains: bool = False
    deleted_at: datetime | None = None
    finalizers: tuple[str, ...] = ()

    @property
    def deleting(self) -> bool:
        """Its removal was asked for."""
        return self.deleted_at is not None


@dataclass(frozen=True, slots=True)
class MetadataService:
    """Who answers what changed between two snapshots of a driver; `authority` is PEM text."""

    address: str
    audience: str
    authority: str


def choose_class(classes: Iterable[SnapshotClass], driver: str) -> SnapshotClass | str:
    """The class that snapshots of this driver take, or why there is none.

    One class of the driver: that one. Several: the default among them, as the snapshot controller itself
    would choose; more than one default is an error there too.
    """
    fitting = sorted((c for c in classes if c.driver == driver), key=lambda c: c.name)
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        return f"no VolumeSnapshotClass has the driver {driver}"
    defaults = [c for c in fitting if c.default]
    if len(defaults) == 1:
        return defaults[0]
    names = ", ".join(c.name for c in (defaults or fitting))
    if defaults:
        return f"more than one VolumeSnapshotClass is the default of the driver {driver}: {names}"
    return f"none of the VolumeSnapshotClasses of the driver {driver} is marked as default: {names}"
