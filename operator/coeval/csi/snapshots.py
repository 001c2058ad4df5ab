"""Snapshot objects as the decisions want them, and the snapshots that we ask for."""

from datetime import datetime
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from coeval.domain.storage import Content, Snapshot, SnapshotClass
from coeval.kube.kinds import VOLUME_SNAPSHOT
from coeval.kube.port import Object

DEFAULT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"


def snapshot(obj: Object) -> Snapshot:
    """A VolumeSnapshot; its status may be absent."""
    meta, status = obj["metadata"], obj.get("status") or {}
    size = status.get("restoreSize")
    return Snapshot(
        name=meta["name"],
        uid=meta["uid"],
        created=time_of(meta["creationTimestamp"]),
        creation_time=time_of(status["creationTime"]) if status.get("creationTime") else None,
        ready=bool(status.get("readyToUse")),
        content=status.get("boundVolumeSnapshotContentName"),
        # Some drivers report none, or zero.
        restore_size=int(parse_quantity(size)) or None if size else None,
        error=(status.get("error") or {}).get("message"),
        deleted_at=_deleted_at(meta),
        finalizers=tuple(meta.get("finalizers") or ()),
    )


def content(obj: Object) -> Content:
    """A VolumeSnapshotContent."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    ref = spec.get("volumeSnapshotRef") or {}
    return Content(
        name=meta["name"],
        uid=meta["uid"],
        created=time_of(meta["creationTimestamp"]),
        ref=(ref.get("namespace", ""), ref.get("name", ""), ref.get("uid", "")),
        handle=status.get("snapshotHandle"),
        driver=spec.get("driver", ""),
        retains=spec.get("deletionPolicy") == "Retain",
        deleted_at=_deleted_at(meta),
        finalizers=tuple(meta.get("finalizers") or ()),
    )


def snapshot_class(obj: Object) -> SnapshotClass:
    """A VolumeSnapshotClass."""
    annotations = obj["metadata"].get("annotations") or {}
    return SnapshotClass(
        name=obj["metadata"]["name"],
        driver=obj.get("driver", ""),
        default=annotations.get(DEFAULT_CLASS) == "true",
    )


def of_claim(metadata: Object, claim: str, class_name: str) -> Object:
    """A VolumeSnapshot to be taken of a claim."""
    return {
        "apiVersion": VOLUME_SNAPSHOT.api_version,
        "kind": VOLUME_SNAPSHOT.kind,
        "metadata": metadata,
        "spec": {
            "volumeSnapshotClassName": class_name,
            "source": {"persistentVolumeClaimName": claim},
        },
    }


def _deleted_at(meta: Object) -> datetime | None:
    return time_of(meta["deletionTimestamp"]) if "deletionTimestamp" in meta else None


def time_of(text: Any) -> datetime:
    """RFC 3339 as the API server writes it."""
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
