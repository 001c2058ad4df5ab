"""Reconcile a BackupRepository: observe, decide, write the status, act."""

import logging

from coeval.api.v1alpha1.backuprepository import BackupRepositorySpec, BackupRepositoryStatus
from coeval.controllers import mover_watch, movers, places
from coeval.controllers.backuprepository.decide import decide
from coeval.controllers.backuprepository.world import RemoveProbe, RunProbe, World
from coeval.controllers.ports import Clock, Key, Recorder
from coeval.controllers.settings import Settings
from coeval.domain.naming import MANAGED_BY
from coeval.kube.kinds import BACKUP_REPOSITORY, JOB, PERSISTENT_VOLUME_CLAIM
from coeval.kube.port import Conflict, KubeApi, Object

log = logging.getLogger(__name__)

REPOSITORY_UID = "coeval.dev/repository-uid"
REPOSITORY = "coeval.dev/repository"


class BackupRepositoryController:
    """Keeps Ready true to what a mover would meet."""

    def __init__(self, api: KubeApi, recorder: Recorder, clock: Clock, settings: Settings) -> None:
        self._api = api
        self._recorder = recorder
        self._clock = clock
        self._settings = settings

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Bring it one step further. Seconds until the next look; None: only when something changes."""
        raw = await self._api.get(BACKUP_REPOSITORY, Key(*key).name)
        if raw is None:
            return None
        world = await self._observe(raw)
        plan = decide(world, self._clock.now(), self._settings)
        if plan.status != world.status:
            dumped = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
            try:
                await self._api.replace_status(BACKUP_REPOSITORY, raw | {"status": dumped})
            except Conflict:
                return 0.0
        if plan.note is not None:
            type_, reason, message = plan.note
            log.info("repository probed", extra={"object": world.name, "reason": reason, "text": message})
            await self._recorder.event(raw, type=type_, reason=reason, message=message)
        for action in plan.actions:
            await self._act(raw, world, action)
        return plan.requeue

    async def _observe(self, raw: Object) -> World:
        meta = raw["metadata"]
        spec = BackupRepositorySpec.model_validate(raw["spec"])
        volume = spec.location.volume
        claim = None
        if volume is not None:
            found = await self._api.get(
                PERSISTENT_VOLUME_CLAIM, volume.persistent_volume_claim, self._settings.namespace
            )
            claim = str((found.get("status") or {}).get("phase", "Pending")) if found is not None else None
        jobs, _, _ = await mover_watch.look(
            self._api, self._settings.namespace, _labels(meta["uid"]), self._clock.now()
        )
        return World(
            name=meta["name"],
            uid=meta["uid"],
            generation=int(meta.get("generation", 0)),
            deleting="deletionTimestamp" in meta,
            spec=spec,
            status=BackupRepositoryStatus.model_validate(raw.get("status") or {}),
            claim=claim,
            jobs=tuple(jobs.values()),
        )

    async def _act(self, raw: Object, world: World, action: RunProbe | RemoveProbe) -> None:
        namespace = self._settings.namespace
        try:
            if isinstance(action, RunProbe):
                await self._api.create(JOB, self._probe(raw, world, action.name), namespace)
            else:
                await self._api.delete(JOB, action.name, namespace, uid=action.uid)
        except Conflict:
            return  # it is there already, or it is another one by now: the next look tells

    def _probe(self, raw: Object, world: World, name: str) -> Object:
        place = places.place(world.spec, world.spec.location.prefix)
        metadata: Object = {
            "name": name,
            "labels": _labels(world.uid),
            "annotations": {REPOSITORY: world.name},
            # A cluster-scoped owner is allowed: the probe goes with its repository.
            "ownerReferences": [
                {
                    "apiVersion": BACKUP_REPOSITORY.api_version,
                    "kind": BACKUP_REPOSITORY.kind,
                    "name": world.name,
                    "uid": raw["metadata"]["uid"],
                    "controller": True,
                }
            ],
        }
        work = movers.Work(
            args=["repo", "probe", *place.access(), "--vms", "--result", movers.RESULT],
            place=place,
            deadline=self._settings.probe_deadline,
            retries=1,
        )
        return movers.job(metadata, work, self._settings)


def _labels(uid: str) -> dict[str, str]:
    return dict([MANAGED_BY, (REPOSITORY_UID, uid)])
