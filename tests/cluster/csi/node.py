"""CSI Node: loop devices while staged, ext4 on them for Filesystem volumes, bind mounts for pods.

The kernel's loop and mount tables are the only record of what is staged, so there is nothing to repair after
a crash.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster.csi import capabilities, devices, loop, mounts
from tests.cluster.csi.catalog import Shelf, Volume
from tests.cluster.csi.faults import Fault
from tests.cluster.csi.loop import Loop
from tests.cluster.csi.protos import load
from tests.cluster.csi.rpc import CsiError, Locks, need

pb: Any = load("csi")


class Node:
    """`locks` (by volume handle) are shared with the Controller service."""

    def __init__(self, name: str, volumes: Shelf[Volume], locks: Locks) -> None:
        self._name = name
        self._volumes = volumes
        self._locks = locks

    def NodeStageVolume(self, request: Any, _fault: Fault) -> Any:
        need(request, "volume_id", "staging_target_path")
        mode = _mode(request)
        volume = self._volume(request.volume_id)
        image = self._volumes.image(volume.handle)
        with self._locks.of(volume.handle):
            device = loop.attach(image)
            if mode == "Filesystem":
                _stage_filesystem(volume, image, device, request)
        return pb.NodeStageVolumeResponse()

    def NodeUnstageVolume(self, request: Any, _fault: Fault) -> Any:
        need(request, "volume_id", "staging_target_path")
        with self._locks.of(request.volume_id):
            mounts.unmount(_path(request.staging_target_path))
            for device in self._loops(request.volume_id):
                if not loop.detach(device):
                    raise CsiError(
                        "FailedPrecondition", f"{device.path} of {request.volume_id} is still in use"
                    )
        return pb.NodeUnstageVolumeResponse()

    def NodePublishVolume(self, request: Any, _fault: Fault) -> Any:
        need(request, "volume_id", "target_path")
        mode = _mode(request)
        need(request, "staging_target_path")
        volume = self._volume(request.volume_id)
        image = self._volumes.image(volume.handle)
        read_only = request.readonly or capabilities.is_reader(request.volume_capability)
        staging, target = _path(request.staging_target_path), _path(request.target_path)
        with self._locks.of(volume.handle):
            device = devices.staged(image)
            if device is None:
                raise CsiError("FailedPrecondition", f"volume {volume.handle} is not staged")
            _check_single_writer(request.volume_capability, device, {staging, target})
            if mode == "Block":
                # A bind mount does not make a device read-only, so such a target gets a device of its own.
                used = loop.attach(image, read_only=True) if read_only else device
                _publish(
                    used.path, target, lambda: mounts.node_at(target) == used.device, read_only=read_only
                )
            else:
                mounted = mounts.at(staging)
                if mounted is None or mounted.device != device.device:
                    raise CsiError("FailedPrecondition", f"volume {volume.handle} is not staged at {staging}")

                def published() -> bool:
                    there = mounts.at(target)
                    return there is not None and (there.device, there.read_only) == (device.device, read_only)

                _publish(staging, target, published, read_only=read_only)
        return pb.NodePublishVolumeResponse()

    def NodeUnpublishVolume(self, request: Any, _fault: Fault) -> Any:
        need(request, "volume_id", "target_path")
        target = _path(request.target_path)
        with self._locks.of(request.volume_id):
            mounts.unmount(target)
            with suppress(FileNotFoundError):
                if target.is_dir():
                    target.rmdir()
                else:
                    target.unlink()
            for device in self._loops(request.volume_id):
                if device.read_only and not mounts.of_device(device.device):
                    loop.detach(device)
        return pb.NodeUnpublishVolumeResponse()

    def NodeExpandVolume(self, request: Any, _fault: Fault) -> Any:
        need(request, "volume_id", "volume_path")
        volume = self._volume(request.volume_id)
        with self._locks.of(volume.handle):
            devices_of = self._loops(volume.handle)
            if not devices_of:
                raise CsiError("FailedPrecondition", f"volume {volume.handle} is not staged")
            for device in devices_of:
                loop.update_size(device)
            device = devices_of[0]
            if devices.mount_of(device) is not None and devices.is_short(device):
                _grow_mounted(volume, device)
        return pb.NodeExpandVolumeResponse(capacity_bytes=volume.size_bytes)

    def NodeGetVolumeStats(self, request: Any, _fault: Fault) -> Any:
        need(request, "volume_id", "volume_path")
        volume = self._volume(request.volume_id)
        path = _path(request.volume_path)
        numbers = {device.device for device in self._loops(volume.handle)}
        mounted = mounts.at(path)
        if mounted is None:
            raise CsiError("NotFound", f"volume {volume.handle} is not at {path}")
        usage = pb.VolumeUsage
        if mounts.node_at(path) in numbers:
            return pb.NodeGetVolumeStatsResponse(usage=[usage(unit="BYTES", total=volume.size_bytes)])
        if mounted.device not in numbers:
            raise CsiError("NotFound", f"volume {volume.handle} is not at {path}")
        space = os.statvfs(path)
        unit = space.f_frsize
        in_bytes = usage(
            unit="BYTES",
            total=space.f_blocks * unit,
            available=space.f_bavail * unit,
            used=(space.f_blocks - space.f_bfree) * unit,
        )
        inodes = usage(
            unit="INODES", total=space.f_files, available=space.f_favail, used=space.f_files - space.f_ffree
        )
        return pb.NodeGetVolumeStatsResponse(usage=[in_bytes, inodes])

    def NodeGetCapabilities(self, _request: Any, _fault: Fault) -> Any:
        capability = pb.NodeServiceCapability
        kinds = ("STAGE_UNSTAGE_VOLUME", "EXPAND_VOLUME", "GET_VOLUME_STATS", "SINGLE_NODE_MULTI_WRITER")
        return pb.NodeGetCapabilitiesResponse(
            capabilities=[capability(rpc=capability.RPC(type=kind)) for kind in kinds]
        )

    def NodeGetInfo(self, _request: Any, _fault: Fault) -> Any:
        return pb.NodeGetInfoResponse(node_id=self._name)

    def _volume(self, handle: str) -> Volume:
        volume = self._volumes.get(handle)
        if volume is None:
            raise CsiError("NotFound", f"volume {handle} does not exist")
        return volume

    def _loops(self, handle: str) -> list[Loop]:
        """Devices of a volume; none of one that is gone, which keeps unstaging idempotent."""
        return loop.of_file(self._volumes.image(handle)) if self._volumes.get(handle) else []


def _mode(request: Any) -> str:
    if not request.HasField("volume_capability"):
        raise CsiError("InvalidArgument", "volume_capability is missing")
    return capabilities.mode_of(request.volume_capability)


def _path(path: str) -> Path:
    """As the mount table spells it; the path itself need not exist."""
    return Path(os.path.realpath(path))


def _stage_filesystem(volume: Volume, image: Path, device: Loop, request: Any) -> None:
    staging = _path(request.staging_target_path)
    there = mounts.at(staging)
    if there is not None and there.device == device.device:
        return
    if there is not None:
        raise CsiError("FailedPrecondition", f"something else is mounted at {staging}")
    found = devices.filesystem_on(device.path)
    if not found and (not volume.source or not devices.holds_data(image)):
        devices.make_ext4(device.path)
    elif found != "ext4":
        # The bytes of a restored volume are somebody's data: never format over what we do not know.
        raise CsiError(
            "FailedPrecondition", f"volume {volume.handle} holds {found or 'unknown data'}, no ext4"
        )
    elif devices.is_short(device):
        devices.grow_unmounted(device)
    staging.mkdir(parents=True, exist_ok=True)
    mounts.mount(device.path, staging, "ext4", list(request.volume_capability.mount.mount_flags))


def _grow_mounted(volume: Volume, device: Loop) -> None:
    """Linux wants CAP_SYS_RESOURCE for it, which root in a container need not have; staging needs none."""
    try:
        mounts.run("resize2fs", str(device.path))
    except OSError as error:
        # The code by which kubelet knows that it has to wait until the volume is not in use.
        message = f"the filesystem of {volume.handle} grows when it is staged again: {error}"
        raise CsiError("FailedPrecondition", message) from error


def _publish(source: Path, target: Path, published: Callable[[], bool], *, read_only: bool) -> None:
    """Bind `source` at `target`, once; what a killed attempt left there is replaced."""
    if published():
        return
    mounts.unmount(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISBLK(source.stat().st_mode):
        target.touch()
    else:
        target.mkdir(exist_ok=True)
    mounts.bind(source, target, read_only=read_only)


def _check_single_writer(capability: Any, device: Loop, allowed: set[Path]) -> None:
    """ReadWriteOncePod: one target and no other."""
    if capability.access_mode.mode != pb.VolumeCapability.AccessMode.SINGLE_NODE_SINGLE_WRITER:
        return
    others = [mount.point for mount in mounts.of_device(device.device) if mount.point not in allowed]
    if others:
        raise CsiError("FailedPrecondition", f"the volume has one writer already, at {others[0]}")
