"""Storage in the simulated world: the snapshot controller, the CSI drivers, claims and volumes."""

import copy

from coeval.kube.kinds import (
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CONTENT,
)
from coeval.kube.port import Kind, Object

from tests.unit.controllers.scene import SHOP
from tests.unit.controllers.sim_world import HOME, Backend, World


class Storage:
    """Makes what was asked for, in its own time, and removes what is deleted."""

    def __init__(self, world: World) -> None:
        self.world, self.api, self.behaviour = world, world.api, world.behaviour

    def provide(self) -> None:
        """Snapshots, twins and claims."""
        self._snapshots()
        self._twins()
        self._claims()

    def _snapshots(self) -> None:
        """The snapshot controller and the drivers, for snapshots of claims."""
        for vs in self.api.peek(VOLUME_SNAPSHOT):
            claim = vs["spec"]["source"].get("persistentVolumeClaimName")
            if claim is None or "deletionTimestamp" in vs["metadata"]:
                continue
            meta, status = vs["metadata"], vs.get("status", {})
            if "creationTime" not in status:
                if self.behaviour.never_cut:
                    error = {"message": "rpc error: code = Unavailable desc = the array is busy"}
                    self.api.set_status(VOLUME_SNAPSHOT, meta["name"], SHOP, {"error": error})
                elif self.world.age(vs) >= self.behaviour.cut_after:
                    self._cut(vs, claim)
            elif (
                not status["readyToUse"]
                and not self.behaviour.never_ready
                and self.world.age(vs) >= self.behaviour.ready_after
            ):
                self.api.set_status(VOLUME_SNAPSHOT, meta["name"], SHOP, {"readyToUse": True})

    def _cut(self, vs: Object, claim: str) -> None:
        vs = copy.deepcopy(vs)
        meta = vs["metadata"]
        guest, handle = self.world.guest, f"handle-{meta['uid']}"
        self.world.backends[handle] = Backend(
            claim, guest.written, guest.window if guest.held else None, self.world.time
        )
        content = f"snapcontent-{meta['uid']}"
        ref = {"namespace": SHOP, "name": meta["name"], "uid": meta["uid"]}
        self.api.put(
            VOLUME_SNAPSHOT_CONTENT,
            {
                "metadata": {"name": content, "finalizers": ["bound"]},
                # As of a class that retains: what is removed with a backup must not depend on it.
                "spec": {
                    "volumeSnapshotRef": ref,
                    "deletionPolicy": "Retain",
                    "driver": "d",
                    "source": {"volumeHandle": claim},
                },
                "status": {"snapshotHandle": handle, "readyToUse": True},
            },
        )
        meta["finalizers"] = ["bound"]
        status = {
            "creationTime": self.world.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "readyToUse": False,
            "boundVolumeSnapshotContentName": content,
            "restoreSize": "1Gi",
        }
        self.api.put(VOLUME_SNAPSHOT, vs | {"status": status})

    def _twins(self) -> None:
        for vs in self.api.peek(VOLUME_SNAPSHOT):
            name = vs["spec"]["source"].get("volumeSnapshotContentName")
            content = self.api.find(VOLUME_SNAPSHOT_CONTENT, name) if name else None
            if content is not None and not vs.get("status") and "deletionTimestamp" not in vs["metadata"]:
                self._bind(copy.deepcopy(vs), content)

    def _bind(self, vs: Object, content: Object) -> None:
        """A pre-provisioned content and the VolumeSnapshot that it names."""
        name = content["metadata"]["name"]
        assert content["spec"]["deletionPolicy"] == "Retain", "a twin must never own the backend snapshot"
        content["spec"]["volumeSnapshotRef"]["uid"] = vs["metadata"]["uid"]
        content["metadata"]["finalizers"] = [
            "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
        ]
        self.api.put(VOLUME_SNAPSHOT_CONTENT, content)
        vs["metadata"]["finalizers"] = ["bound"]
        handle = content["spec"]["source"]["snapshotHandle"]
        ready = {"readyToUse": handle in self.world.backends, "boundVolumeSnapshotContentName": name}
        self.api.put(VOLUME_SNAPSHOT, vs | {"status": ready})

    def _claims(self) -> None:
        for pvc in self.api.peek(PERSISTENT_VOLUME_CLAIM):
            if pvc["metadata"]["namespace"] != HOME or pvc.get("status", {}).get("phase") == "Bound":
                continue
            source = pvc["spec"].get("dataSource", {}).get("name")
            if source is None or "deletionTimestamp" in pvc["metadata"]:
                continue
            twin = self.api.find(VOLUME_SNAPSHOT, source, HOME)
            if self.behaviour.stuck_provisioner and twin is not None:
                held = [*twin["metadata"].get("finalizers", [])]
                trap = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"
                if trap not in held and "deletionTimestamp" not in twin["metadata"]:
                    twin["metadata"]["finalizers"] = [*held, trap]
                    self.api.put(VOLUME_SNAPSHOT, twin)
            elif twin is not None and self.world.backend_of(source) is not None:
                self._provision(copy.deepcopy(pvc))

    def _provision(self, pvc: Object) -> None:
        name, uid = pvc["metadata"]["name"], pvc["metadata"]["uid"]
        volume: Object = {
            "metadata": {"name": f"pvc-{uid}"},
            "spec": {
                "claimRef": {"namespace": HOME, "name": name, "uid": uid},
                "persistentVolumeReclaimPolicy": "Retain",
            },
        }
        self.api.put(PERSISTENT_VOLUME, volume)
        pvc["spec"]["volumeName"] = f"pvc-{uid}"
        self.api.put(PERSISTENT_VOLUME_CLAIM, pvc | {"status": {"phase": "Bound"}})

    def remove(self) -> None:
        """Finalizers of others go when what they wait for is gone."""
        for kind in (VOLUME_SNAPSHOT, VOLUME_SNAPSHOT_CONTENT):
            for obj in self.api.peek(kind):
                meta = obj["metadata"]
                if "deletionTimestamp" not in meta or not meta.get("finalizers"):
                    continue
                if kind is VOLUME_SNAPSHOT and "persistentVolumeClaimName" in obj["spec"]["source"]:
                    self._remove_backend(obj)
                trap = [f for f in meta["finalizers"] if f.startswith("provisioner.")]
                if trap != meta["finalizers"]:
                    self._set_finalizers(kind, obj, trap)

        for volume in self.api.peek(PERSISTENT_VOLUME):
            ref = volume["spec"].get("claimRef", {})
            claim = self.api.find(PERSISTENT_VOLUME_CLAIM, ref["name"], ref["namespace"]) if ref else volume
            gone = claim is None or claim["metadata"]["uid"] != ref.get("uid", claim["metadata"]["uid"])
            if gone and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                self.api.remove(PERSISTENT_VOLUME, volume["metadata"]["name"])

    def _remove_backend(self, vs: Object) -> None:
        name = vs.get("status", {}).get("boundVolumeSnapshotContentName")
        content = self.api.find(VOLUME_SNAPSHOT_CONTENT, name) if name else None
        if content is not None and content["spec"]["deletionPolicy"] == "Delete":
            self.world.backends.pop(f"handle-{vs['metadata']['uid']}", None)
            self._set_finalizers(VOLUME_SNAPSHOT_CONTENT, content, [])
            self.api.remove(VOLUME_SNAPSHOT_CONTENT, content["metadata"]["name"])

    def _set_finalizers(self, kind: Kind, obj: Object, finalizers: list[str]) -> None:
        self.api.put(kind, obj | {"metadata": obj["metadata"] | {"finalizers": finalizers}})
