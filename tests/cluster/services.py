"""Which processes a cluster runs, in which order, and how one sees that each is ready."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.layout import (
    API_IP,
    CONTAINERD_SOCKET,
    DRIVERS,
    KUBELET_DIR,
    MARKER,
    NODE,
    NODE_IP,
    SERVICE_NETWORK,
    Cluster,
    Driver,
)
from tests.cluster.paths import REPOSITORY, cache, states

ISSUER = "https://kubernetes.default.svc"
ETCD = "http://127.0.0.1:2379"


@dataclass(frozen=True)
class Service:
    """One process that the init keeps running.

    `ready` is `unix:<path>` or `tcp:<host>:<port>` (someone accepts), `https:<url>` (answers 200), or empty.
    It is started once everything in `after` is ready, and again whenever it ends.
    """

    name: str
    argv: tuple[str, ...]
    ready: str = ""
    after: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()


def write(cluster: Cluster, services: list[Service]) -> None:
    """For the init, which imports nothing of ours."""
    cluster.services.write_text(json.dumps([dataclasses.asdict(service) for service in services], indent=1))


def environment(cluster: Cluster) -> dict[str, str]:
    """Of every process of the cluster: programs by name, and the mark by which `down` knows its own."""
    return {
        "HOME": str(Path.home()),
        "LANG": "C.UTF-8",
        "PATH": f"{cluster.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "COEVAL_CACHE": str(cache()),
        "COEVAL_STATE": str(states()),
        MARKER: str(cluster.state),
    }


def everything(cluster: Cluster, listener: int) -> list[Service]:
    """All services; `listener` is the descriptor of the socket on the host's loopback."""
    services = [*control_plane(cluster), *node(cluster), forwarder(listener), snapshot_controller(cluster)]
    for driver in DRIVERS:
        services += driver_and_sidecars(cluster, driver)
    return services


def control_plane(cluster: Cluster) -> list[Service]:
    """etcd, API server, controller manager, scheduler."""
    pki, config, program = cluster.pki, cluster.config, cluster.bin
    etcd = Service(
        "etcd",
        (
            f"{program}/etcd",
            "--name=node",
            "--data-dir=/var/lib/etcd",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=node=http://127.0.0.1:2380",
            "--unsafe-no-fsync=true",
        ),
        ready="tcp:127.0.0.1:2379",
    )
    api = Service(
        "kube-apiserver",
        (
            f"{program}/kube-apiserver",
            f"--etcd-servers={ETCD}",
            "--etcd-prefix=/registry",
            "--secure-port=443",
            f"--advertise-address={NODE_IP}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            # Webhooks and aggregated APIs are asked at their pods' addresses: there is no kube-proxy.
            "--enable-aggregator-routing=true",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer={ISSUER}",
            f"--api-audiences={ISSUER}",
            f"--service-account-key-file={pki}/service-account.pub",
            f"--service-account-signing-key-file={pki}/service-account.key",
            f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-uid-headers=X-Remote-Uid",
            f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
            f"--proxy-client-key-file={pki}/front-proxy-client.key",
        ),
        ready=f"https://{API_IP}:443/readyz",
        after=("etcd",),
    )
    manager = Service(
        "kube-controller-manager",
        (
            f"{program}/kube-controller-manager",
            f"--kubeconfig={config}/controller-manager.kubeconfig",
            f"--authentication-kubeconfig={config}/controller-manager.kubeconfig",
            f"--authorization-kubeconfig={config}/controller-manager.kubeconfig",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki}/service-account.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--leader-elect=false",
            "--controllers=*",
            "--pvclaimbinder-sync-period=5s",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ),
        after=("kube-apiserver",),
    )
    scheduler = Service(
        "kube-scheduler",
        (
            f"{program}/kube-scheduler",
            f"--kubeconfig={config}/scheduler.kubeconfig",
            f"--authentication-kubeconfig={config}/scheduler.kubeconfig",
            f"--authorization-kubeconfig={config}/scheduler.kubeconfig",
            "--leader-elect=false",
        ),
        after=("kube-apiserver",),
    )
    return [etcd, api, manager, scheduler]


def node(cluster: Cluster) -> list[Service]:
    """containerd and kubelet."""
    containerd = Service(
        "containerd",
        (f"{cluster.bin}/containerd", f"--config={cluster.config}/containerd.toml"),
        ready=f"unix:{CONTAINERD_SOCKET}",
    )
    kubelet = Service(
        "kubelet",
        (
            f"{cluster.bin}/kubelet",
            f"--config={cluster.config}/kubelet.yaml",
            f"--kubeconfig={cluster.config}/kubelet.kubeconfig",
            f"--root-dir={KUBELET_DIR}",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_IP}",
        ),
        ready="tcp:127.0.0.1:10248",
        after=("containerd", "kube-apiserver"),
    )
    return [containerd, kubelet]


def forwarder(listener: int) -> Service:
    """From the host's loopback to the API server."""
    argv = (sys.executable, "-m", "tests.cluster.forward", str(listener), API_IP, "443")
    return Service("forwarder", argv, after=("kube-apiserver",), fds=(listener,))


def snapshot_controller(cluster: Cluster) -> Service:
    """One for all drivers. It ends until its CRDs are there, and is started again."""
    argv = (
        f"{cluster.bin}/snapshot-controller",
        f"--kubeconfig={cluster.config}/csi.kubeconfig",
        "--feature-gates=CSIVolumeGroupSnapshot=true",
        "--retry-interval-start=200ms",
        "--retry-interval-max=10s",
    )
    return Service("snapshot-controller", argv, after=("kube-apiserver",))


def driver_and_sidecars(cluster: Cluster, driver: Driver) -> list[Service]:
    """A driver process and what speaks to Kubernetes for it."""
    serving = Service(
        f"driver-{driver.short}",
        (
            sys.executable,
            "-m",
            "tests.cluster.csi",
            f"--driver-name={driver.name}",
            f"--store={cluster.store(driver)}",
            f"--kubelet-dir={KUBELET_DIR}",
            f"--endpoint=unix://{driver.socket}",
            f"--node-id={NODE}",
        ),
        ready=f"unix:{driver.socket}",
        # Its registration waits for kubelet's folders.
        after=("kubelet",),
    )
    common = (f"--csi-address={driver.socket}", f"--kubeconfig={cluster.config}/csi.kubeconfig")
    retries = ("--retry-interval-start=200ms", "--retry-interval-max=10s")
    provisioner = ("--extra-create-metadata", "--timeout=60s", "--default-fstype=ext4", *retries)
    groups = "--feature-gates=CSIVolumeGroupSnapshot=true"
    metadata = (
        f"--tls-cert={cluster.pki}/snapshot-metadata.crt",
        f"--tls-key={cluster.pki}/snapshot-metadata.key",
        f"--port={driver.metadata_port}",
        f"--http-endpoint=127.0.0.1:{driver.metadata_port + 1000}",
    )
    arguments = {
        "csi-provisioner": provisioner,
        "csi-resizer": ("--timeout=60s", *retries),
        "csi-snapshotter": ("--timeout=60s", groups, *retries),
        "csi-snapshot-metadata": metadata,
    }
    sidecars = [
        Service(f"{name}-{driver.short}", (f"{cluster.bin}/{name}", *common, *more), after=(serving.name,))
        for name, more in arguments.items()
    ]
    return [serving, *sidecars]
