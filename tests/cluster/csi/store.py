"""The store of one driver: an XFS filesystem with reflinks in a sparse file, and how to get rid of it.

A store directory holds `store.xfs` (the filesystem's image), `mnt` (where it is mounted), `lock` (held by the
driver that serves it) and, when a test wants faults, `faults.json`. The directory lies on an ordinary
filesystem that everybody sees; the mount belongs to the mount namespace in which it was made.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.cluster.csi import loop, mounts
from tests.cluster.csi.loop import Loop

IMAGE: Final = "store.xfs"
MOUNT_POINT: Final = "mnt"
KEPT: Final = {"ext4": "/proc/fs/ext4", "xfs": "/sys/fs/xfs"}
"""Where the kernel shows the filesystems that it has, by the names of their devices."""
MIN_SIZE: Final = 300 << 20
"""Bytes; mkfs.xfs refuses less."""


def create_store(path: Path, size_bytes: int) -> None:
    """Make the store directory and its filesystem; a finished one is left alone, a half-made one is redone.

    Raises ValueError below 300 MiB. The file is sparse: it takes what is written to it.
    """
    if size_bytes < MIN_SIZE:
        raise ValueError(f"store {path}: {size_bytes} bytes are too few, XFS needs {MIN_SIZE}")
    path.mkdir(parents=True, exist_ok=True)
    image = path / IMAGE
    if image.exists():
        return
    new = image.with_suffix(".new")
    with new.open("wb") as file:
        file.truncate(size_bytes)
    mounts.run("mkfs.xfs", "-q", "-f", "-m", "reflink=1", str(new))
    new.rename(image)


def mount(path: Path) -> Path:
    """Mount the store in this mount namespace, unless it is; gives the mount point.

    After a crash XFS replays its log here. Deleted data gives its space back to the machine (`discard`).
    """
    image, point = path / IMAGE, path / MOUNT_POINT
    device = loop.attach(image)
    there = mounts.at(point)
    if there is not None and there.device == device.device:
        return point
    point.mkdir(exist_ok=True)
    mounts.mount(device.path, point, "xfs", ["discard", "noatime"])
    return point


def unmount(path: Path) -> None:
    """Unmount the store in this mount namespace and detach it; OSError if volumes are still staged."""
    mounts.unmount(path / MOUNT_POINT)
    for device in loop.of_file(path / IMAGE):
        if not loop.detach(device):
            raise OSError(f"store {path}: {device.path} is still in use, {_users(device)}")


def cleanup(store_dir: Path) -> None:
    """Take away every mount and loop device that stands on this store, whoever made it; the files stay.

    Works from any mount namespace, also after the one of the cluster is gone, and is idempotent. Devices are
    found by what is behind them: the store's image, files of the filesystem on it (volumes), and devices on
    those (kubelet's). The innermost go first, because each holds the one below. OSError names what is still
    in use.
    """
    for root in _roots(store_dir):
        _remove(root, loop.attached())
    mounts.unmount(store_dir / MOUNT_POINT)
    left = _roots(store_dir)
    if left:
        told = "; ".join(f"{device.path}: {_users(device)}" for device in left)
        raise OSError(f"store {store_dir} is still in use, end its pods and driver first: {told}")


def _roots(store_dir: Path) -> list[Loop]:
    try:
        return loop.of_file(store_dir / IMAGE)
    except FileNotFoundError:
        return []


def _remove(device: Loop, among: list[Loop]) -> None:
    for child in loop.children(device, among):
        _remove(child, among)
    for place in reversed(mounts.of_device(device.device)):
        # A frozen filesystem would outlive its last mount.
        with suppress(OSError):
            mounts.thaw(place.point)
        mounts.unmount(place.point)
    # What a dying mount namespace still holds is gone a moment later; what lives is told by cleanup().
    if not loop.detach(device, timeout=1.0):
        _thaw_without_mount(device)
        loop.detach(device)


def _thaw_without_mount(device: Loop) -> None:
    """Thaw a filesystem that was frozen when its last mount went away with its namespace.

    The kernel keeps it, and the device with it; a new mount gives access to it again. Only if it is there:
    else this would mount, and change, whatever is on a device that somebody merely has open.
    """
    for filesystem, kept in KEPT.items():
        if not Path(kept, device.path.name).exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            point = Path(folder).resolve()
            mounts.mount(device.path, point, filesystem, [])
            try:
                mounts.thaw(point)
            finally:
                mounts.unmount(point)


def _users(device: Loop) -> str:
    """Who holds the device: mounts in other namespaces and loop devices on it, for the error message."""
    users = [str(child.path) for child in loop.children(device, loop.attached())]
    number = f"{os.major(device.device)}:{os.minor(device.device)}"
    for info in Path("/proc").glob("[0-9]*/mountinfo"):
        with suppress(OSError):
            if any(line.split(" ")[2] == number for line in info.read_text().splitlines()):
                users.append(f"mounted in the namespace of process {info.parent.name}")
                break
    return "held by " + (", ".join(users) or "an open file")
