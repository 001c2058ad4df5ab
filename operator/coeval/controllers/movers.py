"""The Job of a mover, as every controller makes it: restricted, no API access, one command of `coeval`."""

from dataclasses import dataclass
from typing import Any

from coeval.controllers.places import Place
from coeval.controllers.settings import Settings
from coeval.domain.storage import MetadataService
from coeval.kube.port import Object

CONTAINER = "mover"
RESULT = "/dev/termination-log"
KUBEVIRT_USER = 107
METADATA_CA = "/changed-blocks/ca.crt"
METADATA_TOKEN = "/changed-blocks/token"  # noqa: S105  (a path)
ASKS = "coeval.dev/changed-blocks"
"""Label of movers that ask a SnapshotMetadataService, which need the network for it (networkpolicy.yaml)."""
_AUTHORITY = "coeval.dev/changed-blocks-ca"


@dataclass(frozen=True, slots=True)
class Source:
    """A claim to be read. Block: the device is /source; else the file system is at /source."""

    claim: str
    block: bool

    @property
    def path(self) -> str:
        """What the mover reads."""
        return "/source" if self.block else "/source/disk.img"


@dataclass(frozen=True, slots=True)
class Work:
    """What one mover does. `deadline` in seconds, over all tries; `retries` after the first try."""

    args: list[str]
    place: Place
    deadline: int
    retries: int = 3
    source: Source | None = None
    manifests: str | None = None
    asks: MetadataService | None = None


def job(metadata: Object, work: Work, settings: Settings) -> Object:
    """The Job. Its metadata's labels go to the pods, too, so that they are found the same way."""
    pod_labels = {**metadata.get("labels", {}), **work.place.labels}
    annotations = dict(metadata.get("annotations", {}))
    if work.asks is not None:
        pod_labels[ASKS] = "asked"
        annotations[_AUTHORITY] = work.asks.authority
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": work.retries,
            "activeDeadlineSeconds": work.deadline,
            # Wrong usage and damage do not heal; an eviction or a drain is not the mover's fault.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER,
                            "operator": "In",
                            "values": [2, 3],
                        },
                    },
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                ]
            },
            "template": {
                "metadata": {"labels": pod_labels, "annotations": annotations},
                "spec": _pod(work, settings),
            },
        },
    }


def _pod(work: Work, settings: Settings) -> Object:
    as_root = settings.block_mover_as_root and work.source is not None and work.source.block
    user = 0 if as_root else KUBEVIRT_USER
    volumes: list[Object] = [
        *work.place.volumes,
        {
            "name": "secrets",
            "secret": {
                "secretName": work.place.password.name,
                "items": [{"key": work.place.password.key, "path": "password"}],
                "defaultMode": 0o440,
            },
        },
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts: list[Object] = [
        *work.place.mounts,
        {"name": "secrets", "mountPath": "/secrets", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (the pod's own)
    ]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": work.args,
        "env": work.place.env,
        "terminationMessagePath": RESULT,
        "terminationMessagePolicy": "File",
        "resources": {
            "requests": dict(settings.mover_requests),
            "limits": dict(settings.mover_limits),
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    if work.source is not None:
        volumes.append(
            {"name": "source", "persistentVolumeClaim": {"claimName": work.source.claim, "readOnly": True}}
        )
        if work.source.block:
            container["volumeDevices"] = [{"name": "source", "devicePath": work.source.path}]
        else:
            mounts.append({"name": "source", "mountPath": "/source", "readOnly": True})
    if work.manifests is not None:
        volumes.append({"name": "manifests", "configMap": {"name": work.manifests}})
        mounts.append({"name": "manifests", "mountPath": "/manifests", "readOnly": True})
    if work.asks is not None:
        volumes.append(_access(work.asks))
        mounts.append({"name": "changed-blocks", "mountPath": "/changed-blocks", "readOnly": True})
    return {
        "serviceAccountName": settings.mover_service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": not as_root,
            "runAsUser": user,
            "runAsGroup": KUBEVIRT_USER,
            "fsGroup": KUBEVIRT_USER,
            # A repository has many files; walking them all at every start would take longer than the backup.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }


def _access(service: MetadataService) -> Object:
    """A token that is good for this service alone, which the kubelet renews, and who vouches for the service.

    The certificate comes from the pod's own annotation: a ConfigMap would be one more thing to clean up.
    """
    field = {"fieldPath": f"metadata.annotations['{_AUTHORITY}']"}
    sources = [
        {"serviceAccountToken": {"path": "token", "audience": service.audience}},
        {"downwardAPI": {"items": [{"path": "ca.crt", "fieldRef": field}]}},
    ]
    return {"name": "changed-blocks", "projected": {"sources": sources, "defaultMode": 0o440}}
