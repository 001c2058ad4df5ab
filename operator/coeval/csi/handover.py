"""Twins: a second, pre-provisioned content for the same backend snapshot, to be read in our namespace.

Its deletionPolicy is Retain, so that the original in the VM's namespace stays the one owner of the backend
snapshot: whatever happens to a twin, nothing is destroyed with it (csi.md 4 and "Twins").
"""

from coeval.kube.kinds import PERSISTENT_VOLUME_CLAIM, VOLUME_SNAPSHOT, VOLUME_SNAPSHOT_CONTENT
from coeval.kube.port import Object


def twin_content(
    metadata: Object, *, namespace: str, driver: str, class_name: str, handle: str, mode: str
) -> Object:
    """The content; the VolumeSnapshot that it names has the same name, and binds it by its uid."""
    return {
        "apiVersion": VOLUME_SNAPSHOT_CONTENT.api_version,
        "kind": VOLUME_SNAPSHOT_CONTENT.kind,
        "metadata": metadata,
        "spec": {
            "deletionPolicy": "Retain",
            "driver": driver,
            "source": {"snapshotHandle": handle},
            "sourceVolumeMode": mode,
            "volumeSnapshotClassName": class_name,
            "volumeSnapshotRef": {"name": metadata["name"], "namespace": namespace},
        },
    }


def twin_snapshot(metadata: Object, *, class_name: str) -> Object:
    """The VolumeSnapshot of the content with the same name."""
    return {
        "apiVersion": VOLUME_SNAPSHOT.api_version,
        "kind": VOLUME_SNAPSHOT.kind,
        "metadata": metadata,
        "spec": {
            "volumeSnapshotClassName": class_name,
            "source": {"volumeSnapshotContentName": metadata["name"]},
        },
    }


def claim_from(metadata: Object, *, snapshot: str, storage_class: str, mode: str, size: int) -> Object:
    """A claim with a snapshot's bytes; `size` in bytes is not less than the snapshot needs."""
    return {
        "apiVersion": PERSISTENT_VOLUME_CLAIM.api_version,
        "kind": PERSISTENT_VOLUME_CLAIM.kind,
        "metadata": metadata,
        "spec": {
            # ReadOnlyMany would be enough, but many drivers refuse it; the mover mounts it read-only.
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "volumeMode": mode,
            "resources": {"requests": {"storage": str(size)}},
            "dataSource": {
                "apiGroup": VOLUME_SNAPSHOT.group,
                "kind": VOLUME_SNAPSHOT.kind,
                "name": snapshot,
            },
        },
    }
