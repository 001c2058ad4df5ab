"""Removal of a claim or a snapshot that is ours, with the storage behind it, whatever its class says.

A class with `Retain` protects data of users; for a copy that lives for one backup it means a volume or a
backend snapshot that nobody ever finds again. So the policy of what was made for us is set to Delete first.
"""

from coeval.controllers.vmbackup.plan import Delete, Thing
from coeval.kube.kinds import (
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CONTENT,
)
from coeval.kube.port import KubeApi, Object


async def release_storage(api: KubeApi, action: Delete) -> None:
    """See that what is behind the object goes with it. Raises ApiError; to be done before the deletion."""
    if action.thing is Thing.CLAIM:
        await _of_claim(api, action)
    elif action.thing is Thing.SNAPSHOT:
        await release_snapshot(api, action.name, action.namespace, action.uid)


async def _of_claim(api: KubeApi, action: Delete) -> None:
    claim = await api.get(PERSISTENT_VOLUME_CLAIM, action.name, action.namespace)
    name = str((claim or {}).get("spec", {}).get("volumeName") or "")
    volume = await api.get(PERSISTENT_VOLUME, name) if name else None
    if volume is None or (volume["spec"].get("claimRef") or {}).get("uid") != action.uid:
        return
    if volume["spec"].get("persistentVolumeReclaimPolicy") == "Retain":
        body: Object = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
        await api.patch(PERSISTENT_VOLUME, name, body)


async def release_snapshot(api: KubeApi, name: str, namespace: str | None, uid: str) -> None:
    """See that the backend snapshot goes with a VolumeSnapshot, whenever that goes. Raises ApiError."""
    snapshot = await api.get(VOLUME_SNAPSHOT, name, namespace)
    status: Object = (snapshot or {}).get("status") or {}
    bound = str(status.get("boundVolumeSnapshotContentName") or "")
    content = await api.get(VOLUME_SNAPSHOT_CONTENT, bound) if bound else None
    if content is None or (content["spec"].get("volumeSnapshotRef") or {}).get("uid") != uid:
        return
    # A twin's content names a backend snapshot that another content owns: that one must stay Retain.
    taken_for_it = "volumeHandle" in (content["spec"].get("source") or {})
    if taken_for_it and content["spec"].get("deletionPolicy") == "Retain":
        await api.patch(VOLUME_SNAPSHOT_CONTENT, bound, {"spec": {"deletionPolicy": "Delete"}})
