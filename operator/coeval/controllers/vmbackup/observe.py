"""Look at the cluster, live, and only at what the stage needs: raw JSON in, a World out."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from coeval.api.v1alpha1.backuprepository import BackupRepositorySpec
from coeval.api.v1alpha1.vmbackup import Result, VMBackupSpec, VMBackupStatus
from coeval.controllers import mover_watch
from coeval.controllers.settings import Settings
from coeval.controllers.vmbackup import build
from coeval.controllers.vmbackup.world import (
    FINALIZER,
    TERMINAL,
    Backup,
    Earlier,
    Piece,
    Repository,
    Rival,
    Stage,
    TwinClaim,
    World,
    holds_guest,
    stage,
)
from coeval.csi import metadata
from coeval.csi import snapshots as csi
from coeval.csi.snapshots import time_of
from coeval.domain.guest import Instance, Machine
from coeval.domain.naming import MANAGED_BY
from coeval.domain.storage import Claim, Content, MetadataService, Snapshot
from coeval.kube.kinds import (
    BACKUP_REPOSITORY,
    CONFIG_MAP,
    MIGRATION,
    NAMESPACE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    SNAPSHOT_METADATA_SERVICE,
    STORAGE_CLASS,
    VIRTUAL_MACHINE,
    VIRTUAL_MACHINE_INSTANCE,
    VM_BACKUP,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CLASS,
    VOLUME_SNAPSHOT_CONTENT,
)
from coeval.kube.port import ApiError, Forbidden, KubeApi, Object
from coeval.kubevirt import graph, quiesce

_RESIZING = frozenset({"Resizing", "FileSystemResizePending"})


class Observer:
    """Live reads; nothing is kept between two looks."""

    def __init__(self, api: KubeApi, settings: Settings) -> None:
        self._api = api
        self._settings = settings

    async def observe(self, raw: Object, now: datetime) -> World:
        """The world as this backup's stage needs it."""
        backup = backup_of(raw)
        at = backup.stage
        found: dict[str, Any] = {"backup": backup}
        if at is Stage.TERMINAL:
            if backup.deleting and backup.finalizer:
                found |= await self._ours(backup, now)
                found["repository"] = await self._repository(backup)
            return World(**found)
        if not backup.finalizer:
            return World(**found)
        if at in (Stage.PREFLIGHT, Stage.MOMENT) or backup.holds_guest:
            # In the window each call costs the guest time: its agent is asked only before.
            ask_agent = at is Stage.PREFLIGHT or not _attempt_open(backup.status)
            found |= await self._guest(backup, ask_agent=ask_agent)
        if at is Stage.PREFLIGHT:
            others = await self._others(backup)
            found["rivals"] = tuple(filter(None, map(_rival, others)))
            found |= await self._bases(backup, others)
            found |= await self._classes()
        if at in (Stage.PREFLIGHT, Stage.TRANSFER, Stage.FINISH):
            found["repository"] = await self._repository(backup)
        if at in (Stage.PREFLIGHT, Stage.MOMENT, Stage.TRANSFER):
            found["claims"] = await self._claims(backup, _wanted_claims(backup, found))
        if at is not Stage.PREFLIGHT:
            found |= await self._snapshots(backup)
        if at in (Stage.TRANSFER, Stage.FINISH):
            found |= await self._ours(backup, now)
        if at is Stage.TRANSFER:
            found["metadata_services"] = await self._metadata_services(backup)
        if at is Stage.FINISH and _keeps(backup.status):
            found |= await self._bases(backup, await self._others(backup))
        return World(**found)

    async def _guest(self, backup: Backup, *, ask_agent: bool) -> dict[str, Any]:
        name, namespace = backup.spec.virtual_machine, backup.namespace
        vm = await self._api.get(VIRTUAL_MACHINE, name, namespace)
        vmi = await self._api.get(VIRTUAL_MACHINE_INSTANCE, name, namespace)
        machine: Machine | None = graph.machine(vm) if vm is not None else None
        instance: Instance | None = None
        if vmi is not None:
            migrations = await self._api.list(MIGRATION, namespace)
            instance = graph.instance(vmi, migrations)
            if ask_agent and instance.running and instance.agent_since is not None:
                freezable = await self._freezable(namespace, name)
                instance = graph.instance(vmi, migrations, freezable)
        return {"machine": machine, "instance": instance}

    async def _freezable(self, namespace: str, name: str) -> bool | None:
        try:
            return graph.freezable(await quiesce.guest_os_info(self._api, namespace, name))
        except ApiError:
            return None  # not known; the freeze itself will tell

    async def _others(self, backup: Backup) -> list[Object]:
        """Every other VMBackup of the same VM."""
        return [
            other
            for other in await self._api.list(VM_BACKUP, backup.namespace)
            if other["metadata"]["uid"] != backup.uid
            and (other.get("spec") or {}).get("virtualMachine") == backup.spec.virtual_machine
        ]

    async def _bases(self, backup: Backup, others: Iterable[Object]) -> dict[str, Any]:
        """Completed backups in the same repository, and the snapshots that they have left.

        One that is being deleted takes its snapshots with it, and perhaps its data.
        """
        parsed = [
            (
                o["metadata"]["name"],
                o["metadata"]["uid"],
                VMBackupStatus.model_validate(o.get("status") or {}),
            )
            for o in others
            if (o.get("spec") or {}).get("repository") == backup.spec.repository
            and "deletionTimestamp" not in o["metadata"]
        ]
        earlier = {uid: e for name, uid, status in parsed if (e := _earlier(name, status)) is not None}
        snapshots: dict[str, Snapshot] = {}
        if any(_keeps(status) for _, uid, status in parsed if uid in earlier):
            for raw in await self._api.list(VOLUME_SNAPSHOT, backup.namespace, labels=dict([MANAGED_BY])):
                if raw["metadata"]["labels"].get(build.BACKUP_UID) in earlier:
                    snapshots[raw["metadata"]["name"]] = csi.snapshot(raw)
        return {"earlier": tuple(earlier.values()), "base_snapshots": snapshots}

    async def _metadata_services(self, backup: Backup) -> dict[str, MetadataService | str]:
        """Who can be asked about the volumes' changes, by driver."""
        found: dict[str, MetadataService | str] = {}
        for driver in sorted({v.driver for v in backup.status.volumes or () if v.driver}):
            try:
                raw = await self._api.get(SNAPSHOT_METADATA_SERVICE, driver)
            except Forbidden as error:  # a role that is older than the operator: no reason to stop a backup
                found[driver] = f"SnapshotMetadataService {driver} may not be read: {error.message}"[:4000]
                continue
            if raw is not None:
                found[driver] = metadata.service(raw)
        return found

    async def _classes(self) -> dict[str, Any]:
        return {
            "snapshot_classes": tuple(
                csi.snapshot_class(c) for c in await self._api.list(VOLUME_SNAPSHOT_CLASS)
            ),
            "storage_classes": frozenset(c["metadata"]["name"] for c in await self._api.list(STORAGE_CLASS)),
        }

    async def _repository(self, backup: Backup) -> Repository | None:
        raw = await self._api.get(BACKUP_REPOSITORY, backup.spec.repository)
        if raw is None:
            return None
        spec = BackupRepositorySpec.model_validate(raw["spec"])
        ready: Object = next(
            (c for c in (raw.get("status") or {}).get("conditions") or [] if c.get("type") == "Ready"), {}
        )
        # An answer about an earlier spec is no answer.
        current = (raw.get("status") or {}).get("observedGeneration") == raw["metadata"].get("generation")
        return Repository(
            name=raw["metadata"]["name"],
            ready=ready.get("status") == "True" and current,
            message=f"{ready.get('reason', 'Unknown')}: {ready.get('message', 'it was not probed yet')}",
            allowed=await self._allowed(spec, backup.namespace),
            spec=spec,
        )

    async def _allowed(self, spec: BackupRepositorySpec, namespace: str) -> bool:
        if spec.allowed_namespaces is None:
            return True
        home = await self._api.get(NAMESPACE, namespace)
        present = (home or {}).get("metadata", {}).get("labels") or {}
        return spec.allowed_namespaces.match_labels.items() <= present.items()

    async def _claims(self, backup: Backup, names: Iterable[str]) -> dict[str, Claim]:
        claims = {}
        for name in sorted(set(names)):
            raw = await self._api.get(PERSISTENT_VOLUME_CLAIM, name, backup.namespace)
            if raw is not None:
                claims[name] = await self._claim(raw)
        return claims

    async def _claim(self, raw: Object) -> Claim:
        spec, status = raw.get("spec") or {}, raw.get("status") or {}
        volume = spec.get("volumeName")
        pv = await self._api.get(PERSISTENT_VOLUME, volume) if volume else None
        size = (status.get("capacity") or {}).get("storage") or graph.dig(
            spec, "resources", "requests", "storage"
        )
        return Claim(
            name=raw["metadata"]["name"],
            uid=raw["metadata"]["uid"],
            phase=str(status.get("phase", "Pending")),
            mode=spec.get("volumeMode") or "Filesystem",
            volume=volume,
            driver=graph.dig(pv, "spec", "csi", "driver"),
            handle=graph.dig(pv, "spec", "csi", "volumeHandle"),
            storage_class=spec.get("storageClassName"),
            size=int(parse_quantity(size)) if size else 0,
            resizing=any(
                c.get("type") in _RESIZING and c.get("status") == "True"
                for c in status.get("conditions") or ()
            ),
            mount_options=tuple(graph.dig(pv, "spec", "mountOptions") or ()),
        )

    async def _snapshots(self, backup: Backup) -> dict[str, Any]:
        found = {
            s.name: s
            for s in map(
                csi.snapshot,
                await self._api.list(VOLUME_SNAPSHOT, backup.namespace, labels=build.labels(backup)),
            )
        }
        contents: dict[str, Content] = {}
        if backup.stage in (Stage.TRANSFER, Stage.FINISH):
            for name in _contents_wanted(backup.status, found):
                raw = await self._api.get(VOLUME_SNAPSHOT_CONTENT, name)
                if raw is not None:
                    contents[name] = csi.content(raw)
        return {"snapshots": found, "contents": contents}

    async def _ours(self, backup: Backup, now: datetime) -> dict[str, Any]:
        """Everything of this backup in the operator's namespace, found by label."""
        home, labels = self._settings.namespace, build.labels(backup)
        twins = await self._api.list(VOLUME_SNAPSHOT, home, labels=labels)
        contents = await self._api.list(VOLUME_SNAPSHOT_CONTENT, labels=labels)
        claims = await self._api.list(PERSISTENT_VOLUME_CLAIM, home, labels=labels)
        maps = await self._api.list(CONFIG_MAP, home, labels=labels)
        jobs, pods, warnings = await mover_watch.look(self._api, home, labels, now)
        return {
            "twins": {s.name: s for s in map(csi.snapshot, twins)},
            "twin_contents": {c.name: c for c in map(csi.content, contents)},
            "twin_claims": {c["metadata"]["name"]: _twin_claim(c, warnings) for c in claims},
            "jobs": jobs,
            "pods": pods,
            "manifests": {m["metadata"]["name"]: _piece(m) for m in maps},
        }


def backup_of(raw: Object) -> Backup:
    """The VMBackup, parsed."""
    meta = raw["metadata"]
    return Backup(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=int(meta.get("generation", 0)),
        created=time_of(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        finalizer=FINALIZER in (meta.get("finalizers") or ()),
        spec=VMBackupSpec.model_validate(raw["spec"]),
        status=VMBackupStatus.model_validate(raw.get("status") or {}),
    )


def _rival(raw: Object) -> Rival | None:
    status = VMBackupStatus.model_validate(raw.get("status") or {})
    at = stage(status)
    # One that only cleans up is in nobody's way, once its guest is released.
    if status.phase in TERMINAL or (at is Stage.FINISH and not holds_guest(status)):
        return None
    meta = raw["metadata"]
    return Rival(
        name=meta["name"],
        uid=meta["uid"],
        created=time_of(meta["creationTimestamp"]),
        started=at is not Stage.PREFLIGHT,
    )


def _attempt_open(status: VMBackupStatus) -> bool:
    return status.quiesce is not None and status.quiesce.intent_at is not None


def _wanted_claims(backup: Backup, found: Mapping[str, Any]) -> set[str]:
    machine, instance = found.get("machine"), found.get("instance")
    present = [*(machine.volumes if machine else ()), *(instance.volumes if instance else ())]
    if backup.stage is Stage.PREFLIGHT:
        return {v.claim for v in present if v.claim}
    return {v.claim for v in backup.status.volumes or ()}


def _earlier(name: str, status: VMBackupStatus) -> Earlier | None:
    """Complete but for its clean-up will do: it is about to free what those before it have kept."""
    snapshot = status.repository.snapshot_id if status.repository else None
    whole = status.outcome is not None and status.outcome.result is Result.COMPLETED
    if not whole or snapshot is None or status.point_in_time is None:
        return None
    return Earlier(name, status.point_in_time, snapshot, tuple(status.volumes or ()))


def _keeps(status: VMBackupStatus) -> bool:
    return any(v.t1 is not None and v.t1.kept_as_base for v in status.volumes or ())


def _contents_wanted(status: VMBackupStatus, found: Mapping[str, Snapshot]) -> set[str]:
    """Of snapshots whose handle is not in status yet, and of those that are kept."""
    known = {
        s.snapshot
        for v in status.volumes or ()
        for s in (v.t1, v.t2)
        if s is not None and s.handle is not None and not s.kept_as_base
    }
    return {s.content for s in found.values() if s.ready and s.content and s.name not in known}


def _twin_claim(raw: Object, warnings: Mapping[str, str]) -> TwinClaim:
    meta = raw["metadata"]
    return TwinClaim(
        name=meta["name"],
        uid=meta["uid"],
        created=time_of(meta["creationTimestamp"]),
        bound=graph.dig(raw, "status", "phase") == "Bound",
        deleting="deletionTimestamp" in meta,
        source=graph.dig(raw, "spec", "dataSource", "name"),
        trouble=warnings.get(meta["uid"]),
    )


def _piece(raw: Object) -> Piece:
    meta = raw["metadata"]
    return Piece(meta["name"], meta["uid"], "deletionTimestamp" in meta)
