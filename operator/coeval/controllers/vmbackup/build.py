"""The objects of a plan: pure, plain JSON out. Nothing of the user's labels and annotations is copied."""

import json
from datetime import UTC, datetime
from typing import Any

import yaml

from coeval.api.v1alpha1.vmbackup import Role, VolumeStatus
from coeval.controllers import movers, places
from coeval.controllers.settings import Settings
from coeval.controllers.vmbackup.plan import MakeClaim, MakeTwin, RunMover, TakeSnapshot, Verb
from coeval.controllers.vmbackup.world import Backup, Repository
from coeval.csi import handover, snapshots
from coeval.domain.naming import MANAGED_BY
from coeval.kube.kinds import CONFIG_MAP, VM_BACKUP
from coeval.kube.port import Object

BACKUP_UID = "coeval.dev/backup-uid"
BACKUP = "coeval.dev/backup"
STEP = "coeval.dev/step"
# Tells this backup's snapshots in the repository from those of an earlier VMBackup of the same name.
UID_TAG = "backup-uid"

_RUNTIME_METADATA = frozenset(
    {"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink", "finalizers"}
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def labels(backup: Backup) -> dict[str, str]:
    """On everything that we make for a backup; what is looked for by them is found again after any crash."""
    return dict([MANAGED_BY, (BACKUP_UID, backup.uid)])


def metadata(backup: Backup, name: str, step: str) -> Object:
    """Of a child in the operator's namespace, where an owner in another namespace is not allowed."""
    return {
        "name": name,
        "labels": {**labels(backup), STEP: step},
        "annotations": {BACKUP: f"{backup.namespace}/{backup.name}"},
    }


def snapshot(backup: Backup, action: TakeSnapshot) -> Object:
    """In the VM's namespace, owned by the VMBackup."""
    meta = metadata(backup, action.name, action.moment.value)
    meta["ownerReferences"] = [
        {
            "apiVersion": VM_BACKUP.api_version,
            "kind": VM_BACKUP.kind,
            "name": backup.name,
            "uid": backup.uid,
            "controller": True,
        }
    ]
    return snapshots.of_claim(meta, action.claim, action.snapshot_class)


def twin(backup: Backup, action: MakeTwin, settings: Settings) -> tuple[Object, Object]:
    """Content and VolumeSnapshot."""
    meta = metadata(backup, action.name, "twin")
    class_name = action.volume.snapshot_class or ""
    content = handover.twin_content(
        meta,
        namespace=settings.namespace,
        driver=action.volume.driver or "",
        class_name=class_name,
        handle=action.handle,
        mode=mode(action.volume),
    )
    return content, handover.twin_snapshot(meta, class_name=class_name)


def claim(backup: Backup, action: MakeClaim) -> Object:
    """The claim that a mover reads."""
    return handover.claim_from(
        metadata(backup, action.name, "source"),
        snapshot=action.twin,
        storage_class=action.volume.storage_class or "",
        mode=mode(action.volume),
        size=action.size,
    )


def mover(backup: Backup, action: RunMover, repository: Repository, settings: Settings) -> Object:
    """The Job."""
    path = backup.status.repository.path if backup.status.repository else None
    place = places.place(repository.spec, path or "")
    source = None
    if action.claim is not None and action.volume is not None:
        source = movers.Source(action.claim, block=action.volume.role is Role.DIRECT)
    work = movers.Work(
        args=arguments(backup, action, place, source, settings.namespace),
        place=place,
        deadline=action.deadline,
        retries=2 if action.verb is Verb.FORGET else 3,
        source=source,
        manifests=action.manifests,
        asks=action.ask.service if action.ask else None,
    )
    return movers.job(metadata(backup, action.name, action.verb.value), work, settings)


def arguments(
    backup: Backup, action: RunMover, place: places.Place, source: movers.Source | None, namespace: str
) -> list[str]:
    """The command line of a mover (data-plane.md)."""
    verb = {
        Verb.COPY: ["volume", "copy"],
        Verb.RETIME: ["volume", "retime"],
        Verb.COMMIT: ["commit"],
        Verb.VERIFY: ["verify"],
        Verb.FORGET: ["repo", "forget"],
    }[action.verb]
    args = [*verb, *place.access(), "--result", movers.RESULT]
    tags = ["--tag", f"backup={backup.namespace}/{backup.name}", "--tag", f"{UID_TAG}={backup.uid}"]
    volume = action.volume
    if volume is not None and source is not None and action.as_of is not None:
        args += ["--name", volume.name, "--source", source.path, "--as-of", timestamp(action.as_of)]
        args += ["--progress", "json", *tags]
    for snapshot_id in action.snapshots:
        args += ["--snapshot", snapshot_id]
    match action.verb:
        case Verb.COPY:
            args += ["--init", *(["--interim"] if action.interim else [])]
            args += ["--parent", action.parent] if action.parent else []
            args += _changes(action, namespace)
        case Verb.RETIME:
            args += _changes(action, namespace) if action.ask or action.record_extents else ["--compare"]
        case Verb.COMMIT:
            args += [*tags, "--forget-parts"]
            for name in ("vm.yaml", "claims.yaml"):
                args += ["--manifest", f"/manifests/{name}"]
        case Verb.VERIFY:
            args += ["--progress", "json", *(["--sample", action.sample] if action.sample else [])]
        case Verb.FORGET if not action.snapshots:
            args += ["--tag", f"{UID_TAG}={backup.uid}"]
            args += ["--parts-only"] if action.parts_only else []
    return args


def _changes(action: RunMover, namespace: str) -> list[str]:
    """How it learns what changed. `namespace` is where our twins are."""
    args = ["--record-extents"] if action.record_extents else []
    if (ask := action.ask) is None:
        return args
    args += ["--changed-from", ask.through.value, "--metadata-address", ask.service.address]
    args += ["--metadata-ca", movers.METADATA_CA, "--metadata-token-file", movers.METADATA_TOKEN]
    args += ["--snapshot-namespace", namespace, "--snapshot-name", ask.twin]
    return [*args, "--base-handle", ask.base_handle] if ask.base_handle else args


def manifests(backup: Backup, name: str, machine: Object, claims: list[Object]) -> Object:
    """The definitions that a restore needs, without what belongs to this cluster alone."""
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": metadata(backup, name, "manifests"),
        "immutable": True,
        "data": {
            "vm.yaml": yaml.safe_dump(portable(machine), sort_keys=False),
            "claims.yaml": yaml.safe_dump_all([portable(c) for c in claims], sort_keys=False),
        },
    }


def portable(obj: Object) -> Object:
    """Without status and without what the API server or a controller wrote into metadata."""
    plain: Object = json.loads(json.dumps(obj))
    plain.pop("status", None)
    meta = {k: v for k, v in plain.get("metadata", {}).items() if k not in _RUNTIME_METADATA}
    # An owner of the old cluster would have the restored object removed as an orphan.
    meta.pop("ownerReferences", None)
    if isinstance(meta.get("annotations"), dict):
        meta["annotations"].pop(_LAST_APPLIED, None)
    plain["metadata"] = meta
    return plain


def mode(volume: VolumeStatus) -> str:
    """The volumeMode: image volumes are those on Filesystem claims, direct ones those on Block claims."""
    return "Block" if volume.role is Role.DIRECT else "Filesystem"


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status_json(status: Any) -> Object:
    """As it is stored."""
    dumped: Object = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped
