"""Manifests of a VM with the guest in it: its claims, the Job that fills them, the VirtualMachine.

Disks have the names that the guest knows them by, which are also their serials and the names of the VM's
volumes: images a0, a1, … on Filesystem claims, direct disks b0, b1, … on Block claims. a0 is the boot disk.

    python -m tests.cluster.guest.vm NAME --namespace NAMESPACE | kubectl apply -f -
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from tests.cluster.guest.image import IMAGE
from tests.cluster.guest.judge import order
from tests.cluster.guest.upstream import DISK_MEBIBYTES

Object = dict[str, Any]

QEMU = 107
"""uid and gid that KubeVirt runs QEMU as, and that disk images belong to."""


@dataclass(frozen=True)
class Machine:
    """What varies from VM to VM."""

    name: str
    namespace: str
    images: int = 1
    directs: int = 1
    device: Literal["disk", "lun"] = "disk"
    """How direct disks are attached. To run, `lun` needs a real SCSI device: only a halted VM can have it."""
    running: bool = True
    image_class: str = "one"
    direct_class: str = "two"
    direct_mebibytes: int = 128
    parameters: dict[str, str] = field(default_factory=dict)
    """Words for the guest's init (see build/guest/init), as writer=idle, rate=20, agent=refuses."""
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def image_disks(self) -> list[str]:
        """Names of the image disks."""
        return [f"a{number}" for number in range(self.images)]

    @property
    def direct_disks(self) -> list[str]:
        """Names of the direct disks."""
        return [f"b{number}" for number in range(self.directs)]

    @property
    def disks(self) -> list[str]:
        """All names, in the order of the guest's sequence."""
        return order([*self.image_disks, *self.direct_disks])

    def claim(self, disk: str) -> str:
        """The PersistentVolumeClaim of a disk."""
        return f"{self.name}-{disk}"

    @property
    def populate_job(self) -> str:
        """The Job that must be Complete before the VM starts."""
        return f"{self.name}-populate"


def claims(machine: Machine) -> list[Object]:
    """One claim per disk. An image claim is twice its image: the file system takes some of it."""
    images = [
        _claim(machine, disk, machine.image_class, "Filesystem", 2 * DISK_MEBIBYTES)
        for disk in machine.image_disks
    ]
    directs = [
        _claim(machine, disk, machine.direct_class, "Block", machine.direct_mebibytes)
        for disk in machine.direct_disks
    ]
    return images + directs


def _claim(machine: Machine, disk: str, storage_class: str, mode: str, mebibytes: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(machine, machine.claim(disk)),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": mode,
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": f"{mebibytes}Mi"}},
        },
    }


def populate(machine: Machine) -> Object:
    """The Job that writes disk.img into the image claims: the boot disk to a0, blank ones to the others.

    It runs under restricted pod security as the user that QEMU will be. Direct disks need nothing: the guest
    formats what is blank.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(machine, machine.populate_job),
        "spec": {
            "backoffLimit": 2,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": QEMU,
                        "runAsGroup": QEMU,
                        "fsGroup": QEMU,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [_populate_container(machine, disk) for disk in machine.image_disks],
                    "volumes": [_volume(machine, disk) for disk in machine.image_disks],
                }
            },
        },
    }


def _populate_container(machine: Machine, disk: str) -> Object:
    parameters = {"disks": ",".join(machine.disks), **machine.parameters}
    words = " ".join(f"{key}={value}" for key, value in parameters.items())
    what = [f"-parameters={words}"] if disk == "a0" else ["-image=", f"-size={DISK_MEBIBYTES << 20}"]
    return {
        "name": disk,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-to=/volume/disk.img", *what],
        "volumeMounts": [{"name": disk, "mountPath": "/volume"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def virtual_machine(machine: Machine) -> Object:
    """The VirtualMachine: no network, screen or balloon, so it starts faster and has all that we need."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": _metadata(machine, machine.name),
        "spec": {
            "runStrategy": "Always" if machine.running else "Halted",
            "template": {
                "metadata": {"labels": {**machine.labels, "kubevirt.io/vm": machine.name}},
                "spec": {
                    # The guest does not listen to the power button: stopping is a power cut.
                    "terminationGracePeriodSeconds": 0,
                    "domain": {
                        "cpu": {"cores": 1},
                        "memory": {"guest": "256Mi"},
                        "devices": {
                            "disks": _devices(machine),
                            "autoattachPodInterface": False,
                            "autoattachGraphicsDevice": False,
                            "autoattachMemBalloon": False,
                        },
                    },
                    "volumes": [
                        _volume(machine, disk) for disk in [*machine.image_disks, *machine.direct_disks]
                    ],
                },
            },
        },
    }


def _devices(machine: Machine) -> list[Object]:
    """Image disks on virtio, direct disks on SCSI. A lun is the device itself and has its own serial."""
    images: list[Object] = [
        {"name": disk, "serial": disk, "disk": {"bus": "virtio"}} for disk in machine.image_disks
    ]
    images[0]["bootOrder"] = 1
    scsi: Object = {machine.device: {"bus": "scsi"}}
    directs = [
        {"name": disk, **({"serial": disk} if machine.device == "disk" else {}), **scsi}
        for disk in machine.direct_disks
    ]
    return images + directs


def _volume(machine: Machine, disk: str) -> Object:
    return {"name": disk, "persistentVolumeClaim": {"claimName": machine.claim(disk)}}


def _metadata(machine: Machine, name: str) -> Object:
    return {"name": name, "namespace": machine.namespace, "labels": dict(machine.labels)}


def main(arguments: list[str]) -> None:
    """Prints the manifests; the VM is Halted, start it when the Job is Complete."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--directs", type=int, default=1)
    options = parser.parse_args(arguments)
    machine = Machine(**vars(options), running=False)
    yaml.safe_dump_all([*claims(machine), populate(machine), virtual_machine(machine)], sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
