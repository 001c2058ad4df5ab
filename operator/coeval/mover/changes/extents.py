"""Where the blocks of a file lie on the device below its filesystem, as FIEMAP tells it.

A map is only good for saying "this is the same block": whatever is not plain data at a place that the
filesystem vouches for is marked as unknown, and a filesystem of which we do not know that its files are
exactly the device's bytes at these places is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coeval.mover.changes.unknown import ChangesUnknown, Reason
from coeval.mover.errors import SourceUnreadable

HOLE: Final = -1
UNKNOWN: Final = (1 << 64) - 1
"""In place of a device offset: data that may be anywhere, or is not the device's bytes as they are."""

MOST_EXTENTS: Final = 1 << 20
"""24 MiB of memory. A file in more pieces than these is compared: its blocks would be read one by one."""

MOUNTINFO: Final = Path("/proc/self/mountinfo")
_BLOCK_DEVICES: Final = Path("/sys/dev/block")
_EXT4: Final = Path("/proc/fs/ext4")
_SECTOR: Final = 512

# linux/fiemap.h, linux/fs.h. The head of struct fiemap: start, length, flags, mapped, count, reserved.
_FIEMAP: Final = 0xC020660B
_HEAD: Final = struct.Struct("=2Q4I")
_EXTENT: Final = struct.Struct("=3Q16xI12x")  # logical, physical, length, flags
_BATCH: Final = 512
_SYNC: Final = 1
_LAST: Final = 0x1
# The last extent, one put together of blocks by the kernel, one shared with other files (XFS): all plain.
# Every other flag (unknown, delayed, encoded, encrypted, not aligned, inline, in a tail, unwritten) is not.
_PLAIN: Final = _LAST | 0x1000 | 0x2000

_GETFLAGS: Final = 0x80086601
_JOURNAL_DATA: Final = 0x4000
_GETXATTR: Final = 0x801C581F
_XATTR: Final = struct.Struct("=I24x")
_REALTIME: Final = 0x1

_VERSION: Final = 1


@dataclass
class ExtentMap:
    """Extents (offset in the file, offset on the device or UNKNOWN, length), ascending; between them, holes.

    `size` is the file's, `device_size` the device's, in bytes.
    """

    size: int
    device_size: int
    filesystem: str
    logical: array[int] = field(default_factory=lambda: array("Q"))
    physical: array[int] = field(default_factory=lambda: array("Q"))
    length: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, logical: int, physical: int, length: int) -> None:
        """Put an extent at the end, joined with the one before where both go on."""
        if self.logical and self.logical[-1] + self.length[-1] == logical:
            before = self.physical[-1]
            follows = physical == UNKNOWN if before == UNKNOWN else before + self.length[-1] == physical
            if follows:
                self.length[-1] += length
                return
        if len(self.logical) >= MOST_EXTENTS:
            raise ChangesUnknown(Reason.TOO_FRAGMENTED, f"the file has more than {MOST_EXTENTS} extents")
        self.logical.append(logical)
        self.physical.append(physical)
        self.length.append(length)

    def pieces(self, limit: int) -> Iterator[tuple[int, int, int]]:
        """Cover [0, limit) with pieces (begin, end, device offset of the begin, HOLE or UNKNOWN)."""
        at = 0
        for logical, physical, length in zip(self.logical, self.physical, self.length, strict=True):
            if at >= limit:
                return
            if logical > at:
                yield at, min(logical, limit), HOLE
            at = logical + length
            if logical < limit:
                yield logical, min(at, limit), physical
        if at < limit:
            yield at, limit, HOLE

    def encode(self) -> bytes:
        """Write it as a line of JSON, then offsets and lengths, little-endian, a list after the other."""
        head = {
            "version": _VERSION,
            "size": self.size,
            "deviceSize": self.device_size,
            "filesystem": self.filesystem,
            "extents": len(self.logical),
        }
        lists = (_little(each).tobytes() for each in (self.logical, self.physical, self.length))
        return json.dumps(head).encode() + b"\n" + b"".join(lists)

    @classmethod
    def decode(cls, text: bytes) -> ExtentMap:
        """Read what `encode` wrote. Raises ChangesUnknown for what another version wrote."""
        line, _, rest = text.partition(b"\n")
        try:
            head = json.loads(line)
            count = int(head["extents"]) if head["version"] == _VERSION else -1
            if len(rest) != 24 * count:
                raise ValueError(f"{len(rest)} bytes of {count} extents")
            lists = [array("Q") for _ in range(3)]
            for number, each in enumerate(lists):
                each.frombytes(rest[8 * count * number : 8 * count * (number + 1)])
            logical, physical, length = (_little(each) for each in lists)
            return cls(head["size"], head["deviceSize"], head["filesystem"], logical, physical, length)
        except (KeyError, TypeError, ValueError) as error:
            raise ChangesUnknown(
                Reason.NO_EXTENT_MAP, f"the recorded extent map cannot be read: {error}"
            ) from error


def _little(values: array[int]) -> array[int]:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values


def read_extents(path: Path, mountinfo: Path = MOUNTINFO) -> ExtentMap:
    """Read the map of a file that nobody writes to. `mountinfo` is that of the mount namespace it lies in.

    Raises ChangesUnknown where the map would not prove anything, SourceUnreadable.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceUnreadable(f"--source {path}: {error.strerror}") from error
    try:
        status = os.fstat(file)
        device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        filesystem = _check_filesystem(file, device, mountinfo)
        found = ExtentMap(status.st_size, _device_size(device), filesystem)
        for logical, physical, length, flags in _fiemap(file):
            end = min(logical + length, found.size)  # what is allocated beyond the end is no content
            if logical < end:
                plain = not flags & ~_PLAIN and physical + length <= found.device_size
                found.add(logical, physical if plain else UNKNOWN, end - logical)
        return found
    except OSError as error:
        raise ChangesUnknown(Reason.FILESYSTEM_UNSUPPORTED, f"{path}: {error.strerror}") from error
    finally:
        os.close(file)


def _check_filesystem(file: int, device: str, mountinfo: Path) -> str:
    """Give the filesystem's type. Raises ChangesUnknown unless its files are the device's bytes."""
    kind = _mounted(device, mountinfo)
    if kind not in ("ext4", "xfs"):
        # Of btrfs, NFS, overlays and others FIEMAP gives addresses of their own, or none.
        raise ChangesUnknown(Reason.FILESYSTEM_UNSUPPORTED, f"the filesystem is {kind}; ext4 and XFS will do")
    if kind == "ext4":
        flags = struct.unpack("=I", fcntl.ioctl(file, _GETFLAGS, bytes(4)))[0]
        # The mount table leaves out what is the default of this one filesystem; this file does not.
        name = (_BLOCK_DEVICES / device).readlink().name
        if flags & _JOURNAL_DATA or "data=journal" in (_EXT4 / name / "options").read_text().split():
            # The snapshot's device then lacks what its journal holds, and so does the delta.
            raise ChangesUnknown(Reason.DATA_JOURNALED, "the filesystem journals data (data=journal)")
    elif _XATTR.unpack(fcntl.ioctl(file, _GETXATTR, bytes(_XATTR.size)))[0] & _REALTIME:
        raise ChangesUnknown(Reason.FILESYSTEM_UNSUPPORTED, "the file is on XFS's realtime device")
    return kind


def _mounted(device: str, mountinfo: Path) -> str:
    """Give the type of the filesystem with this device number (major:minor)."""
    for line in mountinfo.read_text().splitlines():
        fields, _, more = line.partition(" - ")
        if fields.split(" ")[2] == device:
            return more.split(" ")[0]
    return "not mounted here"


def _device_size(device: str) -> int:
    """Bytes. What encrypts or partitions the volume below the filesystem shows in a size of its own."""
    return int((_BLOCK_DEVICES / device / "size").read_text()) * _SECTOR


def _fiemap(file: int) -> Iterator[tuple[int, int, int, int]]:
    """Give logical, physical, length and flags of each extent, from the disk: what is delayed is written."""
    start = 0
    while True:
        buffer = bytearray(_HEAD.size + _BATCH * _EXTENT.size)
        _HEAD.pack_into(buffer, 0, start, (1 << 64) - 1 - start, _SYNC, 0, _BATCH, 0)
        fcntl.ioctl(file, _FIEMAP, buffer)
        mapped = _HEAD.unpack_from(buffer)[3]
        for number in range(mapped):
            logical, physical, length, flags = _EXTENT.unpack_from(buffer, _HEAD.size + number * _EXTENT.size)
            yield logical, physical, length, flags
            if flags & _LAST:
                return
            start = logical + length
        if not mapped:
            return
