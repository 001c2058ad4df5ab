"""Reconcile a VMBackup: observe, decide, write the status, act, write what came of it."""

import dataclasses
import logging

from coeval.api.v1alpha1.vmbackup import VMBackupStatus
from coeval.controllers.ports import Clock, Key, Recorder
from coeval.controllers.settings import Settings
from coeval.controllers.vmbackup import status as statuses
from coeval.controllers.vmbackup import story
from coeval.controllers.vmbackup.act import Actor
from coeval.controllers.vmbackup.decide import decide, record
from coeval.controllers.vmbackup.observe import Observer
from coeval.controllers.vmbackup.world import holds_guest
from coeval.kube.kinds import VM_BACKUP
from coeval.kube.port import ApiError, Conflict, KubeApi, Object

log = logging.getLogger(__name__)


class VMBackupController:
    """One reconcile at a time per key; everything it must remember is in the status or in the cluster."""

    def __init__(self, api: KubeApi, recorder: Recorder, clock: Clock, settings: Settings) -> None:
        self._api = api
        self._recorder = recorder
        self._clock = clock
        self._settings = settings
        self._observer = Observer(api, settings)
        self._actor = Actor(api, clock, settings)

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Bring it one step further. Seconds until the next look; None: only when something changes."""
        namespace, name = Key(*key)
        raw = await self._api.get(VM_BACKUP, name, namespace)
        if raw is None:
            return None
        try:
            return await self._step(raw)
        except ApiError as error:
            if not _may_hold_guest(raw):
                raise
            return self._soon(raw, error)

    async def _step(self, raw: Object) -> float | None:
        world = await self._observer.observe(raw, self._clock.now())
        plan = decide(world, self._clock.now(), self._settings)
        try:
            # Before the actions: what is intended is on record when it is done (a freeze above all).
            raw = await statuses.write(self._api, raw, plan.status)
        except Conflict:
            return 0.0
        _tell(raw, world.backup.status, plan.status)
        for note in plan.notes:
            await self._recorder.event(raw, type=note.type, reason=note.reason, message=note.message)
        if not plan.actions:
            return plan.requeue
        backup = dataclasses.replace(world.backup, status=plan.status)
        outcome = await self._actor.act(world, backup, plan.actions)
        if outcome.facts or plan.status.trouble is not None:
            known = record(plan.status, outcome.facts, self._clock.now())
            try:
                await statuses.write_facts(self._api, raw, known)
                _tell(raw, plan.status, known)
            except Conflict:
                return 0.0
            except ApiError as error:
                outcome.error = outcome.error or error
        if outcome.error is None:
            return plan.requeue
        if holds_guest(plan.status):
            return self._soon(raw, outcome.error)
        raise outcome.error

    @staticmethod
    def _soon(raw: Object, error: ApiError) -> float:
        """The queue would wait longer and longer; a guest that is held cannot."""
        meta = raw["metadata"]
        log.warning(
            "looking again at once, for the guest may be held",
            extra={"object": f"{meta['namespace']}/{meta['name']}", "error": str(error)},
        )
        return 1.0


def _tell(raw: Object, old: VMBackupStatus, new: VMBackupStatus) -> None:
    meta, spec = raw["metadata"], raw["spec"]
    of = {"object": f"{meta['namespace']}/{meta['name']}", "vm": spec["virtualMachine"]}
    for line in story.told(old, new):
        log.info(line.event, extra=of | line.fields)


def _may_hold_guest(raw: Object) -> bool:
    quiesce = (raw.get("status") or {}).get("quiesce") or {}
    return "intentAt" in quiesce and "releaseSeenAt" not in quiesce
