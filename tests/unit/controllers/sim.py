"""The world around the operator, in virtual time: a guest that can be frozen, snapshots, claims, movers.

It is small, but it answers in the order and with the delays of the real thing, and it knows the truth: what
the guest had written when a snapshot was taken, and what a mover put into the repository.
"""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from coeval.controllers.ports import Key
from coeval.controllers.settings import Settings
from coeval.controllers.vmbackup.controller import VMBackupController
from coeval.kube import kinds
from coeval.kube.kinds import (
    CONFIG_MAP,
    JOB,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    VIRTUAL_MACHINE_INSTANCE,
    VM_BACKUP,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CONTENT,
)
from coeval.kube.port import ApiError, Conflict, Kind, Object

from tests.unit.controllers.scene import SHOP, set_up
from tests.unit.controllers.sim_repository import Entries, Entry
from tests.unit.fakeapi import FakeApi

START = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
HOME = "coeval-system"
KEY = Key(SHOP, "b")
TERMINAL = ("Completed", "Failed", "Cancelled")


class Stop(BaseException):
    """The operator is killed here."""


@dataclass
class Guest:
    """Writes a growing number to all its disks, but for the time that it is held."""

    frozen_until: datetime | None = None
    paused: bool = False
    window: int = 0
    written: float = 0.0
    agent: bool = True
    held_since: datetime | None = None
    longest_hold: timedelta = timedelta()

    @property
    def held(self) -> bool:
        return self.paused or self.frozen_until is not None


@dataclass
class Backend:
    """A snapshot in a storage system: when it was taken, and what was on the disk."""

    volume: str
    content: float
    window: int | None
    taken: datetime


@dataclass
class Behaviour:
    """What may go wrong, set by a test. Times in seconds."""

    cut_after: float = 0.2
    ready_after: float = 0.5
    never_cut: bool = False
    never_ready: bool = False
    job_takes: float = 4.0
    # A volume or verb → the error document of its mover.
    errors: dict[str, Object] = field(default_factory=dict)
    # Called before the real thing; may raise.
    freeze: Callable[["Sim"], None] | None = None
    pause: Callable[["Sim"], None] | None = None
    # So many thaws do nothing and get no answer.
    lose_thaws: int = 0
    thaw_error: str | None = None
    # A failed pod leaves its Job to try again.
    more_tries: bool = False
    stuck_provisioner: bool = False


class Api(FakeApi):
    """With what the simulated world needs: quick looks, and whether anything has changed."""

    def peek(self, kind: Kind) -> list[Object]:
        """All of a kind, not copied: to be read only."""
        return [o for (k, _, _), o in self._objects.items() if k is kind]

    def version(self) -> int:
        """Grows with every change."""
        return self._version


class Recorder:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    async def event(self, regarding: Object, *, type: str, reason: str, message: str) -> None:
        self.events.append((type, reason, message))


class Sim:
    """One namespace with one VM of two volumes on two drivers, and a BackupRepository."""

    def __init__(self, *, running: bool = True, spec: Object | None = None) -> None:
        self.now_ = START
        self.api = Api(now=self.now, subresource=self._subresource, namespaces=(HOME, SHOP))
        self.guest = Guest()
        self.backends: dict[str, Backend] = {}
        self.movers = Entries()
        self.behaviour = Behaviour()
        self.recorder = Recorder()
        self.settings = Settings()
        self.changes = 0
        self.reconciles = 0
        self._polled = START
        self._later: list[tuple[datetime, Callable[[], None]]] = []
        self._reports: dict[str, Object] = {}
        set_up(self.api, running=running, spec=spec or {})
        self._report()

    @property
    def repository(self) -> dict[str, Entry]:
        """Snapshot objects by id."""
        return self.movers.entries

    # Time.

    def now(self) -> datetime:
        return self.now_

    def advance(self, seconds: float) -> None:
        """Let time pass in steps that are small beside what happens meanwhile."""
        while seconds > 0:
            step = min(seconds, 0.25 if seconds < 5 else 1.0)
            self._tick(step)
            seconds -= step

    def _tick(self, step: float) -> None:
        self.now_ += timedelta(seconds=step)
        if not self.guest.held:
            self.guest.written += step
        self._note_hold()
        for entry in [e for e in self._later if e[0] <= self.now_]:
            self._later.remove(entry)
            entry[1]()
        if self.guest.frozen_until is not None and self.now_ >= self.guest.frozen_until:
            self._thaw()
        self._settle()

    def _note_hold(self) -> None:
        guest = self.guest
        if not guest.held:
            guest.held_since = None
        elif guest.held_since is None:
            guest.held_since = self.now_
        else:
            guest.longest_hold = max(guest.longest_hold, self.now_ - guest.held_since)

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Something happens by itself."""
        self._later.append((self.now_ + timedelta(seconds=seconds), do))

    # Running the operator.

    def controller(self) -> VMBackupController:
        return VMBackupController(self.api, self.recorder, self, self.settings)

    async def run(self, seconds: float = 1000.0, until: Callable[[], bool] | None = None) -> None:
        """Reconcile until the backup has ended (and has no more to do), or `until` says so."""
        controller, end = self.controller(), self.now_ + timedelta(seconds=seconds)
        while self.now_ < end:
            if until is not None and until():
                return
            self.reconciles += 1
            try:
                again = await controller.reconcile(KEY)
            except (ApiError, ExceptionGroup):
                again = 1.0
            if again is None and until is None and self.settled():
                return
            self.advance(min(2.0 if again is None else max(again, 0.02), 30.0))
        raise AssertionError(f"not settled after {seconds} s: {json.dumps(self.status(), indent=1)}")

    def settled(self) -> bool:
        backup = self.backup()
        return backup is None or backup.get("status", {}).get("phase") in TERMINAL

    def backup(self) -> Object | None:
        return self.api.find(VM_BACKUP, KEY.name, KEY.namespace)

    def status(self) -> Object:
        found: Object = (self.backup() or {}).get("status", {})
        return found

    def condition(self, type_: str) -> Object:
        return next((c for c in self.status().get("conditions", []) if c["type"] == type_), {})

    def patch_spec(self, **fields: Any) -> None:
        backup = self.backup()
        assert backup is not None
        self.api.put(VM_BACKUP, backup | {"spec": backup["spec"] | fields})

    def delete_backup(self) -> None:
        self.api.remove(VM_BACKUP, KEY.name, KEY.namespace)

    def ours(self) -> list[str]:
        """Everything that bears our label, wherever it is."""
        return [
            f"{o['kind']}/{o['metadata']['name']}"
            for o in self.api.all()
            if "coeval.dev/backup-uid" in o["metadata"].get("labels", {})
        ]

    def backend_times(self) -> list[datetime]:
        return sorted(b.taken for b in self.backends.values())

    def writes_since(self, version: int) -> int:
        """Changes of the VMBackup."""
        return int(int((self.backup() or {})["metadata"]["resourceVersion"]) > version)

    def lose_agent(self) -> None:
        self.guest.agent = False
        self._report()

    def freeze_report(self, kind: Kind, status: Object) -> None:
        """From now on the object says this, whatever is true."""
        self._reports[kind.kind] = status
        self.api.set_status(kind, "db", SHOP, status)

    def fork(self) -> "Sim":
        """The same world, apart from here on; the operator's memory is not in it."""
        hook, self.api.hook = self.api.hook, None
        calls, self.api.calls = self.api.calls, []
        # Kinds stay the same objects: comparing their fields would be most of the time.
        other = copy.deepcopy(self, {id(k): k for k in vars(kinds).values() if isinstance(k, Kind)})
        self.api.hook, self.api.calls = hook, calls
        return other

    # KubeVirt.

    def _subresource(self, method: str, path: str, body: Object | None) -> Any:
        verb = path.rsplit("/", 1)[1]
        self.changes += 1
        if verb == "guestosinfo":
            names = ("guest-fsfreeze-freeze", "guest-fsfreeze-thaw")
            return {"supportedCommands": [{"name": n, "enabled": True} for n in names]}
        assert method == "PUT"
        if self.api.find(VIRTUAL_MACHINE_INSTANCE, "db", SHOP) is None:
            raise ApiError(404, "NotFound", 'virtualmachineinstance.kubevirt.io "db" not found')
        if verb == "freeze":
            self._freeze(body or {})
        elif verb == "unfreeze":
            self._unfreeze()
        elif verb == "pause":
            if self.behaviour.pause is not None:
                self.behaviour.pause(self)
            if self.guest.paused:
                raise Conflict(409, "Conflict", "VMI is already paused")
            self._hold()
            self.guest.paused = True
            self._report()
        else:
            if not self.guest.paused:
                raise Conflict(409, "Conflict", "VMI is not paused")
            self.guest.paused = False
            self._report()
        return None

    def _freeze(self, body: Object) -> None:
        if self.behaviour.freeze is not None:
            self.behaviour.freeze(self)
        if self.guest.frozen_until is not None:
            return  # already frozen: success, and the timer runs on
        seconds = int(body["unfreezeTimeout"].removesuffix("s"))
        assert seconds > 0
        self.freeze_guest(seconds)

    def freeze_guest(self, seconds: int) -> None:
        self._hold()
        self.guest.frozen_until = self.now_ + timedelta(seconds=seconds)

    def _unfreeze(self) -> None:
        if self.behaviour.lose_thaws > 0:
            self.behaviour.lose_thaws -= 1
            raise ApiError(0, "Timeout", "no answer")
        if self.behaviour.thaw_error is not None:
            text, self.behaviour.thaw_error = self.behaviour.thaw_error, None
            raise ApiError(500, "InternalError", text)
        if self.guest.frozen_until is not None:
            self._thaw()

    def _hold(self) -> None:
        status = self.status()
        quiesce = status.get("quiesce", {})
        assert "intentAt" in quiesce and "releaseSeenAt" not in quiesce, "held without a word in status"
        self.guest.window += 1

    def _thaw(self) -> None:
        self.guest.frozen_until = None
        self.changes += 1

    def _report(self) -> None:
        """What virt-handler writes to the VMI, in its own time."""
        if self.api.find(VIRTUAL_MACHINE_INSTANCE, "db", SHOP) is None:
            return
        conditions = [{"type": "Ready", "status": "True"}]
        if self.guest.agent:
            conditions.append(
                {"type": "AgentConnected", "status": "True", "lastTransitionTime": "2026-11-23T09:00:00Z"}
            )
        if self.guest.paused:
            conditions.append({"type": "Paused", "status": "True"})
        frozen = "frozen" if self.guest.frozen_until is not None else None
        self.api.set_status(
            VIRTUAL_MACHINE_INSTANCE,
            "db",
            SHOP,
            {"conditions": conditions, "fsFreezeStatus": frozen}
            | self._reports.get(VIRTUAL_MACHINE_INSTANCE.kind, {}),
        )

    # Other controllers.

    def _settle(self) -> None:
        if (self.now_ - self._polled).total_seconds() >= 5:
            self._polled = self.now_
            self._report()
        self._snapshots()
        self._twins()
        self._claims()
        self._jobs()
        self._removals()

    def _age(self, obj: Object) -> float:
        born = datetime.fromisoformat(obj["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
        return (self.now_ - born).total_seconds()

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
                elif self._age(vs) >= self.behaviour.cut_after:
                    self._cut(vs, claim)
            elif (
                not status["readyToUse"]
                and not self.behaviour.never_ready
                and self._age(vs) >= self.behaviour.ready_after
            ):
                self.api.set_status(VOLUME_SNAPSHOT, meta["name"], SHOP, {"readyToUse": True})

    def _cut(self, vs: Object, claim: str) -> None:
        vs = copy.deepcopy(vs)
        meta = vs["metadata"]
        handle = f"handle-{meta['uid']}"
        self.backends[handle] = Backend(
            claim, self.guest.written, self.guest.window if self.guest.held else None, self.now_
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
            "creationTime": self.now_.strftime("%Y-%m-%dT%H:%M:%SZ"),
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
        ready = {"readyToUse": handle in self.backends, "boundVolumeSnapshotContentName": name}
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
            elif twin is not None and self._backend_of(source) is not None:
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

    def _backend_of(self, twin: str) -> Backend | None:
        content = self.api.find(VOLUME_SNAPSHOT_CONTENT, twin)
        return self.backends.get(content["spec"]["source"]["snapshotHandle"]) if content else None

    def _jobs(self) -> None:
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
            elif pod["status"]["phase"] == "Running" and self._age(pod) >= self.behaviour.job_takes:
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
        self.changes += 1
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
        backend = self._backend_of(pvc["spec"]["dataSource"]["name"])
        assert backend is not None
        return backend.content

    def _removals(self) -> None:
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
            self.backends.pop(f"handle-{vs['metadata']['uid']}", None)
            self._set_finalizers(VOLUME_SNAPSHOT_CONTENT, content, [])
            self.api.remove(VOLUME_SNAPSHOT_CONTENT, content["metadata"]["name"])

    def _set_finalizers(self, kind: Kind, obj: Object, finalizers: list[str]) -> None:
        self.api.put(kind, obj | {"metadata": obj["metadata"] | {"finalizers": finalizers}})


def leaks(sim: Sim) -> Iterator[str]:
    """What must not be there when a backup has ended."""
    if sim.guest.held:
        yield "the guest is held"
    yield from sim.ours()
    yield from (f"backend snapshot {handle}" for handle in sim.backends)
    yield from (
        f"{kind.kind} {o['metadata']['name']}"
        for kind in (CONFIG_MAP, JOB, POD, VOLUME_SNAPSHOT, VOLUME_SNAPSHOT_CONTENT)
        for o in sim.api.all(kind)
    )
    yield from (
        f"volume {o['metadata']['name']}"
        for o in sim.api.all(PERSISTENT_VOLUME)
        if o["spec"].get("claimRef", {}).get("namespace") == HOME
    )
    yield from (
        f"part {name} in the repository"
        for name, entry in sim.repository.items()
        if entry.tags & {"interim", "part"}
    )
