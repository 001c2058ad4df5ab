"""Mounts and network of a cluster, set up by its init inside fresh namespaces: all of it ends with them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster.csi import store
from tests.cluster.layout import API_IP, KUBELET_DIR, NODE_IP, Cluster

SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What kubelet wants to see, and would set for the whole machine where it sees anything else."""

HIDDEN = ("/run", "/var/lib", "/var/log")
"""Folders of the machine that processes of the cluster do not see."""


def set_up(cluster: Cluster) -> None:
    """Called once, by PID 1 of the namespaces."""
    _mounts(cluster)
    _sysctls()
    _network()


def _mounts(cluster: Cluster) -> None:
    # kubelet hands mounts on to pods that ask for it (mountPropagation).
    _run("mount", "--make-rshared", "/")
    for folder in ("/run", "/var/lib"):
        _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder)
    disk = store.mount(cluster.disk)
    on_disk = {KUBELET_DIR: "kubelet", Path("/var/lib/containerd"): "containerd", Path("/var/log"): "log"}
    for target, name in on_disk.items():
        source = disk / name
        source.mkdir()
        target.mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(source), str(target))


def _sysctls() -> None:
    """Shows kubelet the values it wants, so that it sets none: those files are the machine's, not ours."""
    for name, value in SYSCTLS.items():
        shown = Path("/run/coeval/sysctl") / name
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.write_text(value + "\n")
        _run("mount", "--bind", str(shown), f"/proc/sys/{name}")


def _network() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for command in (
        "link set lo up",
        f"address add {API_IP}/32 dev lo",
        # kubelet refuses a loopback address as the node's.
        "link add br0 type bridge",
        f"address add {NODE_IP}/24 dev br0",
        "link set br0 up",
        # API server and kubelet look for a default route; this one leads nowhere.
        "route add default dev br0",
    ):
        _run("ip", *command.split())


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
