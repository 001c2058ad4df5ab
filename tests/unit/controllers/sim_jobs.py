"""The Job controller and the kubelet in the simulated world: pods that come, run and end as movers do."""

import json

from coeval.kube.kinds import JOB, PERSISTENT_VOLUME_CLAIM, POD
from coeval.kube.port import Object

from tests.unit.controllers.sim_repository import Entries, one
from tests.unit.controllers.sim_world import HOME, World


class Jobs:
    """Every Job has one pod, which works on `movers`."""

    def __init__(self, world: World, movers: Entries) -> None:
        self.world, self.api, self.behaviour = world, world.api, world.behaviour
        self.movers = movers

    def work(self) -> None:
        """One step of every Job."""
        for job in self.api.peek(JOB):
            name, conditions = job["metadata"]["name"], job.get("status", {}).get("conditions")
            if conditions or "deletionTimestamp" in job["metadata"]:
                continue
            pod = self.api.find(POD, f"{name}-x", HOME)
            claims = [
                v["persistentVolumeClaim"]["claimName"]
                for v in job["spec"]["template"]["spec"]["volumes"]
                if "persistentVolumeClaim" in v and v["name"] == "source"
            ]
            if pod is None:
                self._start_pod(job)
            elif any(self._phase_of(c) != "Bound" for c in claims):
                continue
            elif pod["status"]["phase"] == "Pending":
                self.api.set_status(POD, pod["metadata"]["name"], HOME, {"phase": "Running"})
                line = {"progress": {"bytesDone": 1 << 29, "bytesTotal": 1 << 30, "bytesPerSecond": 1 << 28}}
                self.api.pod_logs[HOME, pod["metadata"]["name"], "mover"] = json.dumps(line) + "\n"
            elif pod["status"]["phase"] == "Running" and self.world.age(pod) >= self.behaviour.job_takes:
                self._finish(job, pod, claims[0] if claims else None)

    def _phase_of(self, claim: str) -> str:
        found = self.api.find(PERSISTENT_VOLUME_CLAIM, claim, HOME)
        return str(((found or {}).get("status") or {}).get("phase"))

    def _start_pod(self, job: Object) -> None:
        meta = job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
        labels = job["spec"]["template"]["metadata"]["labels"] | {
            "batch.kubernetes.io/job-name": meta["name"]
        }
        self.api.put(
            POD,
            {
                "metadata": {"name": f"{meta['name']}-x", "labels": labels, "ownerReferences": [owner]},
                "status": {"phase": "Pending"},
            },
            HOME,
        )

    def _finish(self, job: Object, pod: Object, claim: str | None) -> None:
        args = job["spec"]["template"]["spec"]["containers"][0]["args"]
        content = self._read(claim) if claim is not None else None
        result = self.movers.run(args, content, self.behaviour.errors)
        if "error" not in result:
            result |= self._told(args, content)
        self.world.changes += 1
        failed = "error" in result
        state = {"terminated": {"exitCode": 1 if failed else 0, "message": json.dumps(result)}}
        self.api.set_status(
            POD,
            pod["metadata"]["name"],
            HOME,
            {"phase": "Failed" if failed else "Succeeded", "containerStatuses": [{"state": state}]},
        )
        if failed and self.behaviour.more_tries:
            return
        condition = (
            {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "no more tries"}
            if failed
            else {"type": "Complete", "status": "True"}
        )
        self.api.set_status(JOB, job["metadata"]["name"], HOME, {"conditions": [condition]})

    def _read(self, claim: str) -> float:
        pvc = self.api.find(PERSISTENT_VOLUME_CLAIM, claim, HOME)
        assert pvc is not None
        backend = self.world.backend_of(pvc["spec"]["dataSource"]["name"])
        assert backend is not None
        return backend.content

    def _told(self, args: list[str], content: float | None) -> Object:
        """What the driver answers: right only if the snapshots are what the mover takes them for."""
        twin, handle = one(args, "--snapshot-name"), one(args, "--base-handle")
        if twin is None:
            return {"change_source": "Compare"}
        later = self.world.backend_of(twin)
        assert later is not None, "asked about a snapshot that is not there"
        base = self.world.backends.get(handle) if handle else None
        if handle and base is None:
            return {"change_source": "Compare", "fallback": {"reason": "SnapshotUnknown", "message": ""}}
        start = one(args, "--parent") or one(args, "--snapshot")
        started = self.movers.entries[start].volumes[one(args, "--name") or ""] if start else None
        # A copy moves from the base to the later one, a rewind the other way.
        read, other = (base, later) if "retime" in args else (later, base)
        assert read is not None and read.content == content, "the answer is about another moment"
        assert other is None or other.content == started, "the answer counts from another moment"
        assert base is None or base.volume == later.volume
        source = "CSIThroughExtents" if "csi-through-extents" in args else "CSI"
        return {"change_source": source}
