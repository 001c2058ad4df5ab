"""The names, addresses and paths of one cluster. Nothing here touches the machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.paths import states

NODE = "node-1"
NODE_IP = "10.99.0.1"
NODE_NETWORK = "10.99.0.0/24"
SERVICE_NETWORK = "10.0.0.0/24"
API_IP = "10.0.0.1"
"""The `kubernetes` ClusterIP: an address of lo, with the API server on 443, so no kube-proxy is needed."""
POD_NETWORK = "10.244.0.0/16"

KUBELET_DIR = Path("/var/lib/kubelet")
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")

MARKER = "COEVAL_CLUSTER_STATE"
"""Environment variable of every process of a cluster, its value the state folder; `down` goes by it."""


@dataclass(frozen=True)
class Driver:
    """One test CSI driver. `short` names its StorageClass and VolumeSnapshotClass."""

    short: str
    metadata_port: int
    """Of its csi-snapshot-metadata sidecar, on the node's address."""

    @property
    def name(self) -> str:
        """As Kubernetes knows it."""
        return f"{self.short}.csi.coeval.test"

    @property
    def socket(self) -> Path:
        """Where the driver serves CSI."""
        return KUBELET_DIR / "plugins" / self.name / "csi.sock"


DRIVERS = (Driver("one", 50051), Driver("two", 50052))


@dataclass(frozen=True)
class Cluster:
    """Paths of one cluster by its name; everything it owns carries that name."""

    name: str = "default"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?", self.name):
            raise ValueError(f"cluster name {self.name!r}: lower-case letters, digits and dashes, at most 30")

    @property
    def state(self) -> Path:
        """Everything the cluster writes; gone after `down`."""
        return states() / self.name

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def config(self) -> Path:
        return self.state / "config"

    @property
    def logs(self) -> Path:
        """One file per service."""
        return self.state / "log"

    @property
    def bin(self) -> Path:
        """Links to every program of the cluster, kubectl among them."""
        return self.state / "bin"

    @property
    def kubeconfig(self) -> Path:
        """Works from the host's network, through the forwarder."""
        return self.state / "kubeconfig"

    @property
    def services(self) -> Path:
        """What the init runs."""
        return self.state / "services.json"

    @property
    def status(self) -> Path:
        """What the init says of its services."""
        return self.state / "status.json"

    @property
    def stopped(self) -> Path:
        """A file here with a service's name keeps that service down."""
        return self.state / "stopped"

    @property
    def disk(self) -> Path:
        """Store of the node: containerd's and kubelet's files. At the end one file goes, not thousands."""
        return self.state / "node"

    def store(self, driver: Driver) -> Path:
        """Mount point of a driver's store, mounted only inside the cluster's mount namespace."""
        return self.state / "stores" / driver.short

    @property
    def cgroup(self) -> str:
        """Root of the pods' cgroups: those are global to the machine."""
        return f"coeval-{self.name}"

    @property
    def lock(self) -> Path:
        return states() / f".{self.name}.lock"
