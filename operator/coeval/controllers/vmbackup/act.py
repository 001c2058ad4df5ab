"""Do a plan's actions, in order. Each may be done twice; of those that matter, what came of it comes back."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from coeval.controllers.ports import Clock
from coeval.controllers.settings import Settings
from coeval.controllers.vmbackup import build, removal
from coeval.controllers.vmbackup.plan import (
    Action,
    AddFinalizer,
    Delete,
    DropFinalizer,
    Fact,
    KeepSnapshot,
    MakeClaim,
    MakeTwin,
    Quiesce,
    Quiesced,
    Refused,
    Release,
    Released,
    RemoveFinalizer,
    RunMover,
    SaveManifests,
    TakeSnapshot,
    Thing,
)
from coeval.controllers.vmbackup.world import FINALIZER, Backup, World
from coeval.domain import naming
from coeval.kube.kinds import (
    CONFIG_MAP,
    JOB,
    PERSISTENT_VOLUME_CLAIM,
    VIRTUAL_MACHINE,
    VM_BACKUP,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CONTENT,
)
from coeval.kube.port import ApiError, Conflict, Forbidden, Invalid, Kind, KubeApi, NotFound, Object
from coeval.kubevirt import quiesce

log = logging.getLogger(__name__)

_KINDS = {
    Thing.JOB: JOB,
    Thing.CLAIM: PERSISTENT_VOLUME_CLAIM,
    Thing.SNAPSHOT: VOLUME_SNAPSHOT,
    Thing.CONTENT: VOLUME_SNAPSHOT_CONTENT,
    Thing.MANIFESTS: CONFIG_MAP,
}


@dataclass(slots=True)
class Outcome:
    """What was done. `error` is the call that stopped it; the facts before it count all the same."""

    facts: list[Fact]
    error: ApiError | None = None


class Actor:
    """The effects of a VMBackup's plans."""

    def __init__(self, api: KubeApi, clock: Clock, settings: Settings) -> None:
        self._api = api
        self._clock = clock
        self._settings = settings

    async def act(self, world: World, backup: Backup, actions: Sequence[Action]) -> Outcome:
        """`backup` has the status as it was just written, which the objects may draw on."""
        outcome = Outcome([])
        for action in actions:
            try:
                fact = await self._one(world, backup, action)
            except (Invalid, Forbidden) as error:
                # The others may still be done: one volume's quota is no reason to stop another's copy.
                what = f"{type(action).__name__} {getattr(action, 'name', '')}".strip()
                fact = Refused(what, naming.reason(error.reason, type(error).__name__), error.message)
            except ApiError as error:
                outcome.error = error
                return outcome
            if fact is not None:
                outcome.facts.append(fact)
        return outcome

    async def _one(self, world: World, backup: Backup, action: Action) -> Fact | None:
        match action:
            case Quiesce():
                return await self._quiesce(backup, action)
            case Release():
                return await self._release(backup, action)
            case AddFinalizer() | RemoveFinalizer():
                await self._finalizers(backup, add=isinstance(action, AddFinalizer))
            case SaveManifests():
                return await self._save_manifests(backup, action)
            case TakeSnapshot():
                await self._create(VOLUME_SNAPSHOT, build.snapshot(backup, action), backup.namespace)
            case MakeTwin():
                content, snapshot = build.twin(backup, action, self._settings)
                await self._create(VOLUME_SNAPSHOT_CONTENT, content, None)
                await self._create(VOLUME_SNAPSHOT, snapshot, self._settings.namespace)
            case MakeClaim():
                await self._create(
                    PERSISTENT_VOLUME_CLAIM, build.claim(backup, action), self._settings.namespace
                )
            case RunMover():
                await self._run(world, backup, action)
            case Delete():
                await self._delete(action)
            case KeepSnapshot():
                await removal.release_snapshot(self._api, action.name, backup.namespace, action.uid)
            case DropFinalizer():
                await self._drop_finalizer(action)
        return None

    async def _quiesce(self, backup: Backup, action: Quiesce) -> Fact:
        sent = self._clock.now()
        reply = await quiesce.hold(self._api, action.method, backup.namespace, action.machine, action.timer)
        return Quiesced(reply.answer, sent, self._clock.now(), reply.reason, reply.message, reply.lasting)

    async def _release(self, backup: Backup, action: Release) -> Fact:
        sent = self._clock.now()
        reply = await quiesce.release(self._api, action.method, backup.namespace, action.machine)
        return Released(reply.answer, sent, self._clock.now(), reply.message)

    async def _run(self, world: World, backup: Backup, action: RunMover) -> None:
        if world.repository is None:
            return
        job = build.mover(backup, action, world.repository, self._settings)
        if await self._create(JOB, job, self._settings.namespace):
            of = {"object": f"{backup.namespace}/{backup.name}", "vm": backup.spec.virtual_machine}
            volume = {"volume": action.volume.name} if action.volume is not None else {}
            log.info("mover started", extra=of | {"verb": action.verb.value, "job": action.name} | volume)

    async def _create(self, kind: Kind, body: Object, namespace: str | None) -> bool:
        """False where it is there already: its name belongs to this purpose alone, so it is ours."""
        try:
            await self._api.create(kind, body, namespace)
        except Conflict as error:
            if error.reason != "AlreadyExists":
                raise
            return False
        return True

    async def _delete(self, action: Delete) -> None:
        await removal.release_storage(self._api, action)
        try:
            await self._api.delete(_KINDS[action.thing], action.name, action.namespace, uid=action.uid)
        except Conflict:
            return  # another object by now: not the one that was meant

    async def _drop_finalizer(self, action: DropFinalizer) -> None:
        kind = _KINDS[action.thing]
        obj = await self._api.get(kind, action.name, action.namespace)
        if obj is None or obj["metadata"]["uid"] != action.uid:
            return
        kept = [f for f in obj["metadata"].get("finalizers", []) if f != action.finalizer]
        await self._patch_finalizers(kind, obj, kept)

    async def _finalizers(self, backup: Backup, *, add: bool) -> None:
        obj = await self._api.get(VM_BACKUP, backup.name, backup.namespace)
        if obj is None or obj["metadata"]["uid"] != backup.uid:
            return
        present = obj["metadata"].get("finalizers", [])
        if (FINALIZER in present) == add or (add and "deletionTimestamp" in obj["metadata"]):
            return
        wanted = [*present, FINALIZER] if add else [f for f in present if f != FINALIZER]
        await self._patch_finalizers(VM_BACKUP, obj, wanted)

    async def _patch_finalizers(self, kind: Kind, obj: Object, finalizers: list[str]) -> None:
        meta = obj["metadata"]
        # The list is replaced as a whole, so nobody may have changed it meanwhile.
        body = {"metadata": {"finalizers": finalizers, "resourceVersion": meta["resourceVersion"]}}
        try:
            await self._api.patch(kind, meta["name"], body, meta.get("namespace"))
        except (Conflict, NotFound):
            return  # the next look decides anew

    async def _save_manifests(self, backup: Backup, action: SaveManifests) -> Fact | None:
        machine = await self._api.get(VIRTUAL_MACHINE, action.machine, backup.namespace)
        if machine is None:
            return Refused(
                f"VirtualMachine {action.machine}",
                "VirtualMachineNotFound",
                "it was deleted before its definition was kept; start a new backup when it is there again",
            )
        claims = []
        for name in action.claims:
            claim = await self._api.get(PERSISTENT_VOLUME_CLAIM, name, backup.namespace)
            if claim is not None:
                claims.append(claim)
        await self._create(
            CONFIG_MAP,
            build.manifests(backup, action.name, machine, claims),
            self._settings.namespace,
        )
        return None
