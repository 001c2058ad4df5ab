"""Loop devices by ioctl: attached once per file, found by the inode or the device behind them.

`losetup` cannot clear the autoclear flag of a device that it re-uses, and names are no identity: the file
behind a loop device may live in a mount namespace that is gone. Inode and device numbers stay true.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOP_CLR_FD: Final = 0x4C01
LOOP_SET_STATUS64: Final = 0x4C04
LOOP_GET_STATUS64: Final = 0x4C05
LOOP_SET_CAPACITY: Final = 0x4C07
LOOP_CONFIGURE: Final = 0x4C0A
LOOP_CTL_GET_FREE: Final = 0x4C82
LOOP_MAJOR: Final = 7
SECTOR: Final = 512

READ_ONLY: Final = 1
AUTOCLEAR: Final = 4
DIRECT_IO: Final = 16

# struct loop_info64 of linux/loop.h: device, inode, rdevice, offset, sizelimit; number, encrypt_type,
# encrypt_key_size, flags; file_name, crypt_name, encrypt_key; init.
INFO: Final = struct.Struct("=5Q4I64s64s32s2Q")
# struct loop_config: fd, block_size, info, reserved.
CONFIG: Final = struct.Struct(f"=2I{INFO.size}s8Q")


@dataclass(frozen=True)
class Loop:
    """One attached loop device and what is behind it.

    `file_device` and `file_inode` are st_dev and st_ino of the backing file; `behind` is its st_rdev, which
    is not 0 when that file is itself a block device.
    """

    number: int
    file_device: int
    file_inode: int
    behind: int
    flags: int

    @property
    def path(self) -> Path:
        return Path(f"/dev/loop{self.number}")

    @property
    def device(self) -> int:
        """Its own device number, the st_dev of a filesystem on it."""
        return os.makedev(LOOP_MAJOR, self.number)

    @property
    def read_only(self) -> bool:
        return bool(self.flags & READ_ONLY)

    def backs(self, file: os.stat_result) -> bool:
        return (self.file_device, self.file_inode) == (file.st_dev, file.st_ino)


@contextmanager
def _opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _status(fd: int, number: int) -> Loop | None:
    info = bytearray(INFO.size)
    try:
        fcntl.ioctl(fd, LOOP_GET_STATUS64, info)
    except OSError as error:
        if error.errno == errno.ENXIO:  # not attached
            return None
        raise
    device, inode, behind, _offset, _limit, _number, _type, _key, flags, *_rest = INFO.unpack(info)
    return Loop(number, device, inode, behind, flags)


def read(number: int) -> Loop | None:
    """What device `number` is attached to; None if it is free."""
    try:
        with _opened(Path(f"/dev/loop{number}")) as fd:
            return _status(fd, number)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):
            return None
        raise


def attached() -> list[Loop]:
    """Every loop device of this machine that is attached, whichever mount namespace did it."""
    # /sys tells the attached ones without opening the free ones, which would make the kernel keep them busy.
    numbers = sorted(int(path.parent.name[len("loop") :]) for path in Path("/sys/block").glob("loop*/loop"))
    return [loop for number in numbers if (loop := read(number)) is not None]


def of_file(file: Path) -> list[Loop]:
    """The loop devices attached to this file."""
    status = file.stat()
    return [loop for loop in attached() if loop.backs(status)]


def children(parent: Loop, among: list[Loop]) -> list[Loop]:
    """Loops that hold `parent`: attached to a file on its filesystem, or to the device itself (kubelet's)."""
    return [loop for loop in among if parent.device in (loop.file_device, loop.behind)]


def attach(file: Path, *, read_only: bool = False) -> Loop:
    """Attach `file`, or re-use the device that already is attached to it in the same way.

    Sectors are always 512 bytes. Left to itself the kernel gives 4096 to a device on a file that shares
    blocks, so a disk would change its sector size by being restored, or staged again after a snapshot. With
    512 such a file's I/O goes through the page cache, that of others is direct; a flush reaches the disk both
    ways.
    """
    for loop in of_file(file):
        if loop.read_only == read_only:
            return _kept(loop)
    with _opened(file, os.O_RDONLY if read_only else os.O_RDWR) as backing:
        new = None
        while new is None:
            with _opened(Path("/dev/loop-control"), os.O_RDWR) as control:
                number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            new = _configured(number, backing, read_only=read_only)
    return new


def _configured(number: int, backing: int, *, read_only: bool) -> Loop | None:
    """Attach device `number`; None if somebody else took it meanwhile."""
    path = Path(f"/dev/loop{number}")
    if not path.exists():  # a /dev that is no devtmpfs shows no new nodes
        with suppress(FileExistsError):
            os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(LOOP_MAJOR, number))
    flags = DIRECT_IO | (READ_ONLY if read_only else 0)
    info = INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, b"", b"", b"", 0, 0)
    with _opened(path, os.O_RDONLY if read_only else os.O_RDWR) as fd:
        try:
            fcntl.ioctl(fd, LOOP_CONFIGURE, CONFIG.pack(backing, SECTOR, info, *[0] * 8))
        except OSError as error:
            if error.errno == errno.EBUSY:
                return None
            raise
        return _status(fd, number)


def _kept(loop: Loop) -> Loop:
    """Take back a pending detach: without this the re-used device vanishes when its last opener closes it."""
    if not loop.flags & AUTOCLEAR:
        return loop
    info = bytearray(INFO.size)
    with _opened(loop.path, os.O_RDWR) as fd:
        fcntl.ioctl(fd, LOOP_GET_STATUS64, info)
        fields = list(INFO.unpack(info))
        fields[8] &= ~AUTOCLEAR
        fcntl.ioctl(fd, LOOP_SET_STATUS64, INFO.pack(*fields))
        return _status(fd, loop.number) or loop


def _same(now: Loop | None, loop: Loop) -> bool:
    """Whether a device still stands on its file; its number may have gone to somebody else."""
    return now is not None and (now.file_device, now.file_inode) == (loop.file_device, loop.file_inode)


def request_detach(loop: Loop) -> None:
    """Detach now, or at the last close if something still has the device open."""
    try:
        with _opened(loop.path) as fd:
            if _same(_status(fd, loop.number), loop):
                fcntl.ioctl(fd, LOOP_CLR_FD)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENOENT):
            raise


def detach(loop: Loop, *, timeout: float = 5.0) -> bool:
    """Ask for the detach and wait for it; False if the device is still held after `timeout` seconds."""
    request_detach(loop)
    deadline = time.monotonic() + timeout
    while _same(read(loop.number), loop):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def update_size(loop: Loop) -> None:
    """Let the device take the present size of its file (after the file grew)."""
    with _opened(loop.path) as fd:
        fcntl.ioctl(fd, LOOP_SET_CAPACITY)


def flush(loop: Loop) -> None:
    """Write the device's dirty pages to its file, and the file to its disk."""
    with _opened(loop.path) as fd:
        os.fsync(fd)


def size(loop: Loop) -> int:
    """Size of the device in bytes."""
    with _opened(loop.path) as fd:
        return os.lseek(fd, 0, os.SEEK_END)
