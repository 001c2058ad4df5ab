"""The world around the operator, in virtual time: a guest that can be frozen, snapshots, claims, movers.

It is small, but it answers in the order and with the delays of the real thing, and it knows the truth: what
the guest had written when a snapshot was taken, and what a mover put into the repository.
"""

import copy
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from coeval.controllers.ports import Key
from coeval.controllers.settings import Settings
from coeval.controllers.vmbackup.controller import VMBackupController
from coeval.kube import kinds
from coeval.kube.kinds import (
    CONFIG_MAP,
    JOB,
    PERSISTENT_VOLUME,
    POD,
    VM_BACKUP,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CONTENT,
)
from coeval.kube.port import ApiError, Kind, Object

from tests.unit.controllers.scene import SHOP, put_backup, set_up
from tests.unit.controllers.sim_jobs import Jobs
from tests.unit.controllers.sim_kubevirt import KubeVirt
from tests.unit.controllers.sim_repository import Entries, Entry
from tests.unit.controllers.sim_storage import Storage
from tests.unit.controllers.sim_world import HOME, START, World

TERMINAL = ("Completed", "Failed", "Cancelled")


class Stop(BaseException):
    """The operator is killed here."""


class Recorder:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    async def event(self, regarding: Object, *, type: str, reason: str, message: str) -> None:
        self.events.append((type, reason, message))


class Sim:
    """One namespace with one VM of two volumes on two drivers, and a BackupRepository."""

    def __init__(self, *, running: bool = True, spec: Object | None = None) -> None:
        self.world = World()
        self.api = self.world.api
        self.guest, self.behaviour, self.backends = (
            self.world.guest,
            self.world.behaviour,
            self.world.backends,
        )
        self.movers = Entries()
        self.kubevirt = KubeVirt(self.world, self._before)
        self.storage = Storage(self.world)
        self.jobs = Jobs(self.world, self.movers)
        self.recorder = Recorder()
        self.settings = Settings()
        self.reconciles = 0
        self._polled = START
        self._later: list[tuple[datetime, Callable[[], None]]] = []
        set_up(self.api, running=running, spec=spec or {})
        self.kubevirt.report()

    @property
    def repository(self) -> dict[str, Entry]:
        """Snapshot objects by id."""
        return self.movers.entries

    @property
    def changes(self) -> int:
        """What changed without the API server's knowing."""
        return self.world.changes

    # Time.

    def now(self) -> datetime:
        return self.world.time

    def advance(self, seconds: float) -> None:
        """Let time pass in steps that are small beside what happens meanwhile."""
        while seconds > 0:
            step = min(seconds, 0.25 if seconds < 5 else 1.0)
            self._tick(step)
            seconds -= step

    def _tick(self, step: float) -> None:
        self.world.time += timedelta(seconds=step)
        if not self.guest.held:
            self.guest.written += step
        self._note_hold()
        for entry in [e for e in self._later if e[0] <= self.now()]:
            self._later.remove(entry)
            entry[1]()
        if self.guest.frozen_until is not None and self.now() >= self.guest.frozen_until:
            self.kubevirt.thaw()
        self._settle()

    def _note_hold(self) -> None:
        guest = self.guest
        if not guest.held:
            guest.held_since = None
        elif guest.held_since is None:
            guest.held_since = self.now()
        else:
            guest.longest_hold = max(guest.longest_hold, self.now() - guest.held_since)

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Something happens by itself."""
        self._later.append((self.now() + timedelta(seconds=seconds), do))

    # Running the operator.

    def controller(self) -> VMBackupController:
        return VMBackupController(self.api, self.recorder, self, self.settings)

    async def run(self, seconds: float = 1000.0, until: Callable[[], bool] | None = None) -> None:
        """Reconcile until the backup has ended (and has no more to do), or `until` says so."""
        controller, end = self.controller(), self.now() + timedelta(seconds=seconds)
        while self.now() < end:
            if until is not None and until():
                return
            self.reconciles += 1
            try:
                again = await controller.reconcile(self.world.key)
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
        return self.api.find(VM_BACKUP, *reversed(self.world.key))

    def status(self) -> Object:
        found: Object = (self.backup() or {}).get("status", {})
        return found

    def condition(self, type_: str) -> Object:
        return next((c for c in self.status().get("conditions", []) if c["type"] == type_), {})

    def next_backup(self, name: str, **spec: Any) -> None:
        """Another VMBackup of the VM, which is reconciled from now on."""
        put_backup(self.api, name, spec)
        self.world.key = Key(SHOP, name)

    def patch_spec(self, **fields: Any) -> None:
        backup = self.backup()
        assert backup is not None
        self.api.put(VM_BACKUP, backup | {"spec": backup["spec"] | fields})

    def delete_backup(self) -> None:
        self.api.remove(VM_BACKUP, *reversed(self.world.key))

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
        self.kubevirt.report()

    def freeze_report(self, kind: Kind, status: Object) -> None:
        """From now on the object says this, whatever is true."""
        self.kubevirt.reports[kind.kind] = status
        self.api.set_status(kind, "db", SHOP, status)

    def fork(self) -> "Sim":
        """The same world, apart from here on; the operator's memory is not in it."""
        hook, self.api.hook = self.api.hook, None
        calls, self.api.calls = self.api.calls, []
        # Kinds stay the same objects: comparing their fields would be most of the time.
        other = copy.deepcopy(self, {id(k): k for k in vars(kinds).values() if isinstance(k, Kind)})
        self.api.hook, self.api.calls = hook, calls
        return other

    # The other parts.

    def freeze_guest(self, seconds: int) -> None:
        self.kubevirt.freeze_guest(seconds)

    def _before(self, verb: str) -> None:
        hook = self.behaviour.freeze if verb == "freeze" else self.behaviour.pause
        if hook is not None:
            hook(self)

    def _settle(self) -> None:
        if (self.now() - self._polled).total_seconds() >= 5:
            self._polled = self.now()
            self.kubevirt.report()
        self.storage.provide()
        self.jobs.work()
        self.storage.remove()


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
