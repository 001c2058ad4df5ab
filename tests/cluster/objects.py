"""What the API server must hold before tests may begin: CRDs, drivers, classes, node labels."""

from __future__ import annotations

import base64
import subprocess
from typing import Any

import yaml

from tests.cluster import upstreams
from tests.cluster.layout import DRIVERS, NODE, NODE_IP, Cluster, Driver

Object = dict[str, Any]
WAIT = "--timeout=120s"


class ObjectsFailed(Exception):
    """kubectl refused or waited in vain; the message is kubectl's."""


def apply(cluster: Cluster) -> None:
    """CRDs first: the classes are instances of them."""
    crds = upstreams.program(upstreams.SIDECARS, "crds")
    kubectl(cluster, "apply", "--server-side", "-f", str(crds))
    kubectl(cluster, "wait", "--for=condition=Established", WAIT, "-f", str(crds))
    manifest = [each for driver in DRIVERS for each in driver_objects(driver)]
    manifest += [metadata_service(cluster, driver) for driver in DRIVERS]
    kubectl(cluster, "apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(manifest))


def wait(cluster: Cluster) -> None:
    """Until a pod with volumes of every driver could start."""
    kubectl(cluster, "wait", "--for=create", WAIT, f"node/{NODE}")
    labels = [f"node-role.kubernetes.io/{role}=" for role in ("control-plane", "worker")]
    kubectl(cluster, "label", "--overwrite", f"node/{NODE}", *labels)
    kubectl(cluster, "wait", "--for=condition=Ready", WAIT, f"node/{NODE}")
    for driver in DRIVERS:
        registered = f'--for=jsonpath={{.spec.drivers[?(@.name=="{driver.name}")].name}}={driver.name}'
        kubectl(cluster, "wait", registered, WAIT, f"csinode/{NODE}")
    kubectl(cluster, "wait", "--for=create", WAIT, "--namespace=default", "serviceaccount/default")


def driver_objects(driver: Driver) -> list[Object]:
    """CSIDriver, StorageClass and VolumeSnapshotClass of one driver."""
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIDriver",
            "metadata": {"name": driver.name},
            "spec": {"attachRequired": False, "podInfoOnMount": True, "fsGroupPolicy": "File"},
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": driver.short,
                # Examples name no class: they are to run on any cluster as they are.
                "annotations": {
                    "storageclass.kubernetes.io/is-default-class": str(driver is DRIVERS[0]).lower()
                },
            },
            "provisioner": driver.name,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
            "allowVolumeExpansion": True,
        },
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotClass",
            "metadata": {
                "name": driver.short,
                # Members of a group snapshot name no class: their driver's default is used.
                "annotations": {"snapshot.storage.kubernetes.io/is-default-class": "true"},
            },
            "driver": driver.name,
            "deletionPolicy": "Delete",
        },
    ]


def metadata_service(cluster: Cluster, driver: Driver) -> Object:
    """Where changed blocks are asked for. Its name is the driver's, by which clients find it."""
    return {
        "apiVersion": "cbt.storage.k8s.io/v1beta1",
        "kind": "SnapshotMetadataService",
        "metadata": {"name": driver.name},
        "spec": {
            "address": f"{NODE_IP}:{driver.metadata_port}",
            "audience": driver.name,
            "caCert": base64.b64encode((cluster.pki / "ca.crt").read_bytes()).decode(),
        },
    }


def kubectl(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    """Its output; ObjectsFailed with what it said otherwise."""
    command = [str(cluster.bin / "kubectl"), f"--kubeconfig={cluster.kubeconfig}", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ObjectsFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
