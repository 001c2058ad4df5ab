"""What the simulated world begins with."""

import base64

from coeval.kube.kinds import (
    BACKUP_REPOSITORY,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    SNAPSHOT_METADATA_SERVICE,
    STORAGE_CLASS,
    VIRTUAL_MACHINE,
    VIRTUAL_MACHINE_INSTANCE,
    VM_BACKUP,
    VOLUME_SNAPSHOT_CLASS,
)
from coeval.kube.port import Object

from tests.unit.fakeapi import FakeApi

SHOP = "shop"


def set_up(api: FakeApi, *, running: bool, spec: Object) -> None:
    """One VM of two volumes on two drivers, a repository that is Ready, and a VMBackup."""
    for driver in ("one", "two"):
        name = f"{driver}.csi.coeval.test"
        api.put(STORAGE_CLASS, {"metadata": {"name": driver}, "provisioner": name})
        api.put(VOLUME_SNAPSHOT_CLASS, {"metadata": {"name": driver}, "driver": name})
    for claim, driver, mode in (("db-root", "one", "Filesystem"), ("db-data", "two", "Block")):
        _volume(api, claim, driver, mode)
    api.put(
        BACKUP_REPOSITORY,
        {
            "metadata": {"name": "main"},
            "spec": {
                "location": {"volume": {"persistentVolumeClaim": "repo"}},
                "encryption": {"passwordSecret": {"name": "main-key", "key": "password"}},
            },
            "status": {
                "observedGeneration": 1,
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True",
                        "reason": "Probed",
                        "message": "",
                        "lastTransitionTime": "2026-11-23T09:00:00Z",
                    }
                ],
            },
        },
    )
    template = {
        "domain": {
            "devices": {
                "disks": [
                    {"name": "root", "disk": {"bus": "virtio"}},
                    {"name": "data", "disk": {"bus": "scsi"}},
                    {"name": "cloud", "disk": {}},
                ]
            }
        },
        "volumes": [
            {"name": "root", "persistentVolumeClaim": {"claimName": "db-root"}},
            {"name": "data", "dataVolume": {"name": "db-data"}},
            {"name": "cloud", "cloudInitNoCloud": {"userData": "#cloud-config"}},
        ],
    }
    api.put(
        VIRTUAL_MACHINE,
        {"metadata": {"name": "db"}, "spec": {"template": {"spec": template}}},
        SHOP,
    )
    if running:
        api.put(
            VIRTUAL_MACHINE_INSTANCE,
            {
                "metadata": {"name": "db"},
                "spec": template,
                "status": {"phase": "Running", "nodeName": "n1", "activePods": {"p1": "n1"}},
            },
            SHOP,
        )
    put_backup(api, "b", spec)


def put_backup(api: FakeApi, name: str, spec: Object) -> None:
    """A VMBackup of the VM."""
    body = {"metadata": {"name": name}, "spec": {"virtualMachine": "db", "repository": "main"} | spec}
    api.put(VM_BACKUP, body, SHOP)


def track_changes(api: FakeApi) -> None:
    """Both drivers can be asked what changed."""
    authority = base64.b64encode(b"-----BEGIN CERTIFICATE-----\n").decode()
    for driver in ("one", "two"):
        spec = {"address": f"{driver}.example.com:443", "audience": driver, "caCert": authority}
        api.put(SNAPSHOT_METADATA_SERVICE, {"metadata": {"name": f"{driver}.csi.coeval.test"}, "spec": spec})


def _volume(api: FakeApi, claim: str, driver: str, mode: str) -> None:
    name = f"pv-{claim}"
    api.put(
        PERSISTENT_VOLUME,
        {
            "metadata": {"name": name},
            "spec": {"csi": {"driver": f"{driver}.csi.coeval.test", "volumeHandle": f"volume-{claim}"}},
        },
    )
    api.put(
        PERSISTENT_VOLUME_CLAIM,
        {
            "metadata": {"name": claim},
            "spec": {"volumeMode": mode, "volumeName": name, "storageClassName": driver},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
        },
        SHOP,
    )
