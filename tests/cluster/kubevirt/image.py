"""The two images that KubeVirt runs from: its control plane, and what runs VMs on the node."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.build import directory
from tests.cluster.images import Image, cached_layer, debian_root
from tests.cluster.kubevirt.debian import packages
from tests.cluster.kubevirt.upstream import CONFIGURATION, CONTROL, KUBEVIRT, VERSION, program

CONTROL_IMAGE = f"localhost/kubevirt-control:{VERSION}"
NODE_IMAGE = f"localhost/kubevirt-node:{VERSION}"

_HERE = Path(__file__).parent
_SHIM = _HERE / "virtqemud"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_QEMU = 107
"""uid and gid of `qemu`, KubeVirt's own."""
_ON_THE_NODE = (
    "container-disk",
    "libvirt-hook-client",
    "node-labeller.sh",
    "virt-chroot",
    "virt-freezer",
    "virt-handler",
    "virt-launcher",
    "virt-launcher-monitor",
    "virt-probe",
    "virt-tail",
)


def control_image() -> Image:
    """virt-operator, virt-api and virt-controller: static programs and nothing else."""

    def make(root: Path) -> None:
        _install(root, (target.name for target in CONTROL))
        _accounts(root, "root:x:0:0::/root:/bin/sh\n", "root:x:0:\n")
        (root / "tmp").mkdir(mode=0o1777)
        (root / "tmp").chmod(0o1777)

    layer = cached_layer("kubevirt-control", _ingredients(), make)
    # The pods are runAsNonRoot and name no user, so the image must.
    return Image(CONTROL_IMAGE, (layer,), {"Env": [_PATH], "User": "1001"})


def node_image() -> Image:
    """virt-handler and virt-launcher with libvirt and QEMU."""
    base = debian_root("kubevirt-node", packages(_HERE / "packages.txt"), estimate=120)

    def make(root: Path) -> None:
        _install(root, _ON_THE_NODE)
        _may_bind_low_ports(root / "usr" / "bin" / "virt-launcher-monitor")
        _configuration(root)
        accounts = [(base / "root" / "etc" / name).read_text() for name in ("passwd", "group")]
        _accounts(root, *accounts)

    layer = cached_layer("kubevirt-node", [str(base).encode(), *_ingredients()], make)
    return Image(NODE_IMAGE, (base / "layer.tar", layer), {"Env": [_PATH], "User": "0"})


def _ingredients() -> list[bytes]:
    return [str(directory(KUBEVIRT)).encode(), Path(__file__).read_bytes(), _SHIM.read_bytes()]


def _install(root: Path, names: Iterable[str]) -> None:
    folder = root / "usr" / "bin"
    folder.mkdir(parents=True)
    for name in names:
        shutil.copyfile(program(name), folder / name)
        (folder / name).chmod(0o755)


def _configuration(root: Path) -> None:
    """KubeVirt's own configuration of libvirt, readable by the user that libvirt runs as."""
    libvirt = root / "etc" / "libvirt"
    (libvirt / "hooks").mkdir(parents=True)
    for name in CONFIGURATION.keys() & {"qemu.conf", "virtqemud.conf"}:
        shutil.copyfile(program(name), libvirt / name)
        (libvirt / name).chmod(0o644)
    hook = libvirt / "hooks" / "qemu"
    shutil.copyfile(program("qemu"), hook)
    hook.chmod(0o755)
    os.chown(hook, _QEMU, _QEMU)
    shim = root / "usr" / "sbin" / "virtqemud"
    shim.parent.mkdir(parents=True)
    shutil.copyfile(_SHIM, shim)
    shim.chmod(0o755)
    # Relative: virt-handler follows it from outside, through /proc/<pid>/root.
    (root / "var").mkdir()
    (root / "var" / "run").symlink_to("../run")


def _accounts(root: Path, passwd: str, group: str) -> None:
    """Adds user and group qemu, in place of whoever has that number."""
    users = [line for line in passwd.splitlines() if line.split(":")[2] != str(_QEMU)]
    groups = [line for line in group.splitlines() if line.split(":")[2] != str(_QEMU)]
    (root / "etc").mkdir(exist_ok=True)
    entry = f"qemu:x:{_QEMU}:{_QEMU}::/home/qemu:/bin/sh"
    (root / "etc" / "passwd").write_text("\n".join([*users, entry, ""]))
    (root / "etc" / "group").write_text("\n".join([*groups, f"qemu:x:{_QEMU}:", ""]))


def _may_bind_low_ports(path: Path) -> None:
    """`setcap cap_net_bind_service+ep`, by the attribute itself: header, permitted and inheritable, twice."""
    revision_2_effective, net_bind_service = 0x02000001, 1 << 10
    value = struct.pack("<5I", revision_2_effective, net_bind_service, 0, 0, 0)
    os.setxattr(path, "security.capability", value)
