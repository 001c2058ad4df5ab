"""CSI Controller: file work on the store; of the node it only needs the quiet moment for a copy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.cluster.csi import capabilities, devices, loop
from tests.cluster.csi.catalog import HANDLE, Record, Shelf, Snapshot, Volume, clone, new_handle
from tests.cluster.csi.faults import Fault, Faults
from tests.cluster.csi.protos import load
from tests.cluster.csi.rpc import CsiError, Locks, need

pb: Any = load("csi")

STEP: Final = 1 << 20
"""Sizes are whole MiB, rounded up as on most real storage: a volume may be bigger than was asked for."""
DEFAULT_SIZE: Final = 1 << 30


class Controller:
    """`root` is where the store is mounted. `locks` (by volume handle) are shared with the Node service."""

    def __init__(self, root: Path, locks: Locks, faults: Faults) -> None:
        self._root = root
        self._locks = locks
        self._faults = faults
        self.volumes = Shelf(root / "volumes", Volume)
        self.snapshots = Shelf(root / "snapshots", Snapshot)

    # Volumes

    def CreateVolume(self, request: Any, fault: Fault) -> Any:
        need(request, "name", "volume_capabilities")
        mode = capabilities.common_mode(request.volume_capabilities)
        source = _source_handle(request.volume_content_source)
        existing = self.volumes.named(request.name)
        if existing is not None:
            if (
                existing.mode != mode
                or existing.source != source
                or not _fits(existing, request.capacity_range)
            ):
                raise CsiError(
                    "AlreadyExists", f"volume {request.name} exists with other size, mode or source"
                )
            return pb.CreateVolumeResponse(volume=_volume_message(existing))
        if not source:
            size = self._size(request.capacity_range, DEFAULT_SIZE)
            volume = self._new_volume(
                request, fault, size=size, mode=mode, source="", fill=lambda fd: os.ftruncate(fd, size)
            )
            return pb.CreateVolumeResponse(volume=_volume_message(volume))
        volume = self._from_source(request, mode, source, fault)
        return pb.CreateVolumeResponse(volume=_volume_message(volume))

    def _from_source(self, request: Any, mode: str, handle: str, fault: Fault) -> Volume:
        record: Volume | Snapshot
        if request.volume_content_source.HasField("snapshot"):
            snapshot = self.snapshots.get(handle)
            if snapshot is None:
                raise CsiError("NotFound", f"snapshot {handle} does not exist")
            if not self._ready(snapshot):
                raise CsiError("Unavailable", f"snapshot {handle} is not ready to use")
            record, image = snapshot, self.snapshots.image(handle)
        else:
            record, image = self._volume(handle), self.volumes.image(handle)
        size = self._size(request.capacity_range, record.size_bytes)
        if size < record.size_bytes:
            raise CsiError("OutOfRange", f"{size} bytes are less than the {record.size_bytes} of {handle}")

        def fill(fd: int) -> None:
            # Snapshots never change; a volume that is cloned is held still as for a snapshot.
            if isinstance(record, Volume):
                self._copy_volume(record, fd, fault)
            else:
                with image.open("rb") as file:
                    clone(file.fileno(), fd)
            os.ftruncate(fd, size)

        return self._new_volume(request, fault, size=size, mode=mode, source=handle, fill=fill)

    def _new_volume(
        self, request: Any, fault: Fault, *, size: int, mode: str, source: str, fill: Callable[[int], None]
    ) -> Volume:
        handle = new_handle("vol")

        def make(fd: int) -> Volume:
            fill(fd)
            return Volume(handle, request.name, size, mode, source)

        return self.volumes.add(handle, make, fault.reached)

    def DeleteVolume(self, request: Any, _fault: Fault) -> Any:
        need(request, "volume_id")
        with self._locks.of(request.volume_id):
            if self.volumes.get(request.volume_id) is not None:
                if loop.of_file(self.volumes.image(request.volume_id)):
                    raise CsiError("FailedPrecondition", f"volume {request.volume_id} is staged on the node")
                self.volumes.remove(request.volume_id)
        return pb.DeleteVolumeResponse()

    def ControllerExpandVolume(self, request: Any, _fault: Fault) -> Any:
        need(request, "volume_id")
        if not request.HasField("capacity_range"):
            raise CsiError("InvalidArgument", "capacity_range is missing")
        volume = self._volume(request.volume_id)
        size = self._size(request.capacity_range, volume.size_bytes)
        if size > volume.size_bytes:
            with self._locks.of(volume.handle):
                volume = replace(volume, size_bytes=size)
                self.volumes.grow(volume)
        return pb.ControllerExpandVolumeResponse(
            capacity_bytes=volume.size_bytes, node_expansion_required=True
        )

    def ListVolumes(self, request: Any, _fault: Fault) -> Any:
        page, token = _page(self.volumes.all(), request)
        entries = [pb.ListVolumesResponse.Entry(volume=_volume_message(volume)) for volume in page]
        return pb.ListVolumesResponse(entries=entries, next_token=token)

    def ValidateVolumeCapabilities(self, request: Any, _fault: Fault) -> Any:
        need(request, "volume_id", "volume_capabilities")
        volume = self._volume(request.volume_id)
        try:
            mode = capabilities.common_mode(request.volume_capabilities)
        except CsiError as error:
            return pb.ValidateVolumeCapabilitiesResponse(message=str(error))
        if mode != volume.mode:
            return pb.ValidateVolumeCapabilitiesResponse(message=f"the volume was made for {volume.mode}")
        confirmed = pb.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_capabilities=request.volume_capabilities,
            volume_context=request.volume_context,
            parameters=request.parameters,
        )
        return pb.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    def GetCapacity(self, request: Any, _fault: Fault) -> Any:
        try:
            for capability in request.volume_capabilities:
                capabilities.mode_of(capability)
        except CsiError:
            return pb.GetCapacityResponse(available_capacity=0)
        space = os.statvfs(self._root)
        return pb.GetCapacityResponse(available_capacity=space.f_bavail * space.f_frsize)

    # Snapshots

    def CreateSnapshot(self, request: Any, fault: Fault) -> Any:
        need(request, "name", "source_volume_id")
        existing = self.snapshots.named(request.name)
        if existing is None:
            existing = self._new_snapshot(request.name, self._volume(request.source_volume_id), fault)
        elif existing.volume != request.source_volume_id:
            raise CsiError("AlreadyExists", f"snapshot {request.name} is one of volume {existing.volume}")
        return pb.CreateSnapshotResponse(snapshot=self._snapshot_message(existing))

    def _new_snapshot(self, name: str, volume: Volume, fault: Fault) -> Snapshot:
        handle = new_handle("snap")

        def fill(fd: int) -> Snapshot:
            taken = self._copy_volume(volume, fd, fault)
            size = os.fstat(fd).st_size
            return Snapshot(handle, name, size, volume.mode, volume.handle, taken)

        return self.snapshots.add(handle, fill, fault.reached)

    def _copy_volume(self, volume: Volume, fd: int, fault: Fault) -> int:
        """Copy a volume's image as it is at one moment; gives a time (Unix ns) right after that moment.

        After, not before: whoever stops writing at or after creationTime may rely on it that nothing written
        later is in the snapshot. A time taken before the copy would promise that of writes which the copy
        still caught.
        """
        image = self.volumes.image(volume.handle)
        with ExitStack() as held:
            held.enter_context(self._locks.of(volume.handle))
            file = held.enter_context(image.open("rb"))
            held.enter_context(devices.quiesced(image, volume.mode, fault.reached))
            clone(file.fileno(), fd)
            return time.time_ns()

    def DeleteSnapshot(self, request: Any, _fault: Fault) -> Any:
        need(request, "snapshot_id")
        self.snapshots.remove(request.snapshot_id)
        return pb.DeleteSnapshotResponse()

    def ListSnapshots(self, request: Any, _fault: Fault) -> Any:
        matching = [
            snapshot
            for snapshot in self.snapshots.all()
            if request.snapshot_id in ("", snapshot.handle)
            and request.source_volume_id in ("", snapshot.volume)
        ]
        page, token = _page(matching, request)
        entries = [pb.ListSnapshotsResponse.Entry(snapshot=self._snapshot_message(one)) for one in page]
        return pb.ListSnapshotsResponse(entries=entries, next_token=token)

    def ControllerGetCapabilities(self, _request: Any, _fault: Fault) -> Any:
        capability = pb.ControllerServiceCapability
        kinds = (
            "CREATE_DELETE_VOLUME",
            "CREATE_DELETE_SNAPSHOT",
            "LIST_VOLUMES",
            "LIST_SNAPSHOTS",
            "GET_CAPACITY",
            "CLONE_VOLUME",
            "EXPAND_VOLUME",
            "SINGLE_NODE_MULTI_WRITER",
        )
        return pb.ControllerGetCapabilitiesResponse(
            capabilities=[capability(rpc=capability.RPC(type=kind)) for kind in kinds]
        )

    # Helpers

    def _volume(self, handle: str) -> Volume:
        volume = self.volumes.get(handle)
        if volume is None:
            raise CsiError("NotFound", f"volume {handle} does not exist")
        return volume

    def _size(self, wanted: Any, default: int) -> int:
        """Bytes for a capacity range, in whole MiB. Raises CsiError OutOfRange if no such size fits."""
        if wanted.required_bytes < 0 or wanted.limit_bytes < 0:
            raise CsiError("InvalidArgument", "a capacity is negative")
        size = -(-(wanted.required_bytes or default) // STEP) * STEP
        if wanted.limit_bytes and size > wanted.limit_bytes:
            raise CsiError(
                "OutOfRange", f"{size} bytes, in whole MiB, exceed the limit of {wanted.limit_bytes}"
            )
        space = os.statvfs(self._root)
        if size > space.f_blocks * space.f_frsize:
            raise CsiError("OutOfRange", f"{size} bytes are more than the whole store has")
        return size

    def _ready(self, snapshot: Snapshot) -> bool:
        return not self._faults.of("CreateSnapshot", snapshot.volume).not_ready

    def _snapshot_message(self, snapshot: Snapshot) -> Any:
        message = pb.Snapshot(
            snapshot_id=snapshot.handle,
            source_volume_id=snapshot.volume,
            size_bytes=snapshot.size_bytes,
            ready_to_use=self._ready(snapshot),
        )
        message.creation_time.FromNanoseconds(snapshot.taken_ns)
        return message


def _source_handle(source: Any) -> str:
    kind = source.WhichOneof("type")
    if kind is None:
        return ""
    handle = str(source.snapshot.snapshot_id if kind == "snapshot" else source.volume.volume_id)
    if not handle:
        raise CsiError("InvalidArgument", "volume_content_source has no handle")
    return handle


def _fits(volume: Volume, wanted: Any) -> bool:
    return wanted.required_bytes <= volume.size_bytes and not 0 < wanted.limit_bytes < volume.size_bytes


def _volume_message(volume: Volume) -> Any:
    message = pb.Volume(volume_id=volume.handle, capacity_bytes=volume.size_bytes)
    if volume.source.startswith("snap-"):
        message.content_source.snapshot.snapshot_id = volume.source
    elif volume.source:
        message.content_source.volume.volume_id = volume.source
    return message


def _page(records: list[Record], request: Any) -> tuple[list[Record], str]:
    """One page and the token of the next: the last handle of this one, so deletions do not shift pages."""
    if request.max_entries < 0:
        raise CsiError("InvalidArgument", "max_entries is negative")
    if request.starting_token and not HANDLE.fullmatch(request.starting_token):
        raise CsiError("Aborted", f"starting_token {request.starting_token} is none of ours")
    rest = [record for record in records if record.handle > request.starting_token]
    page = rest[: request.max_entries or None]
    return page, page[-1].handle if len(page) < len(rest) else ""
