"""The configuration files of one cluster: kubeconfigs, kubelet, containerd, CNI."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.layout import API_IP, CONTAINERD_SOCKET, KUBELET_DIR, NODE_IP, POD_NETWORK, Cluster

PAUSE_IMAGE = "localhost/coeval-pause:1"
CLIENTS = ("admin", "controller-manager", "scheduler", "kubelet", "csi")


def write(cluster: Cluster, host_port: int) -> None:
    """Writes everything below `config`, and the kubeconfig for the host's network, which asks `host_port`."""
    cni = cluster.config / "cni"
    cni.mkdir(parents=True)
    inside = f"https://{API_IP}:443"
    for user in CLIENTS:
        _write_private(cluster.config / f"{user}.kubeconfig", kubeconfig(cluster, user, inside))
    _write_private(cluster.kubeconfig, kubeconfig(cluster, "admin", f"https://127.0.0.1:{host_port}"))
    (cluster.config / "kubelet.yaml").write_text(yaml.safe_dump(kubelet(cluster)))
    (cluster.config / "containerd.toml").write_text(containerd(cluster))
    (cni / "10-coeval.conflist").write_text(json.dumps(pod_network(), indent=2))


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def kubeconfig(cluster: Cluster, user: str, server: str) -> str:
    """With the keys inside, so that the file can be handed on."""

    def data(file: str) -> str:
        return base64.b64encode((cluster.pki / file).read_bytes()).decode()

    client = {"client-certificate-data": data(f"{user}.crt"), "client-key-data": data(f"{user}.key")}
    name = f"coeval-{cluster.name}"
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": name, "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}}
            ],
            "users": [{"name": user, "user": client}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        }
    )


def kubelet(cluster: Cluster) -> dict[str, Any]:
    """Set for a small machine where we are root without every capability, on cgroup v1 or v2."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(cluster.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(cluster.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(cluster.pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cluster.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        # Lowering one's own score and raising the file limit take a capability that we may not have.
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "64Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "resolvConf": "",
        "readOnlyPort": 0,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "4s",
        # The cluster is alone on a small machine: registry and API answers come at once.
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "volumePluginDir": str(KUBELET_DIR / "volumeplugins"),
    }


def containerd(cluster: Cluster) -> str:
    """Configuration version 3; pause, CNI and runc come from the cluster's own folders."""
    return f"""\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
device_ownership_from_security_context = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{cluster.bin}"]
conf_dir = "{cluster.config / "cni"}"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = "{cluster.bin / "runc"}"
"""


def pod_network() -> dict[str, Any]:
    """Point-to-point links, no bridge and no iptables; addresses live with the mount namespace's /run."""
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_NETWORK}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/cni/networks",
                },
            }
        ],
    }
