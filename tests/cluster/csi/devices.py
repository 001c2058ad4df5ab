"""The device behind a volume on this node, and the quiet moment that a copy of it needs."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.cluster.csi import loop, mounts
from tests.cluster.csi.loop import Loop

# Of the ext4 superblock: s_blocks_count_lo, s_log_block_size, s_feature_incompat, s_blocks_count_hi.
FIELDS: Final = (4, 24, 96, 336)
INCOMPAT_64BIT: Final = 0x80
SMALLEST_GROUP: Final = 4 << 20


def staged(image: Path) -> Loop | None:
    """The writable device of a staged volume."""
    return next((device for device in loop.of_file(image) if not device.read_only), None)


def mount_of(device: Loop) -> mounts.Mount | None:
    """The first mount of the filesystem on this device: where it was staged."""
    return next((mount for mount in mounts.table() if mount.device == device.device), None)


@contextmanager
def quiesced(image: Path, mode: str, reached: Callable[[str], None]) -> Iterator[None]:
    """Hold what this node knows of a volume in its image, so that a copy made meanwhile has it.

    A mounted Filesystem volume is frozen: its copy is a cleanly synced ext4. Of a Block volume the device's
    dirty pages are flushed, as a volume manager does it, but its users are not ours to stop: direct writes go
    on until the copy locks them out, and the copy holds a prefix of them.
    """
    device = staged(image)
    if device is None:
        yield
        return
    mounted = mount_of(device) if mode == "Filesystem" else None
    if mounted is None:
        loop.flush(device)
        yield
        return
    with mounts.frozen(mounted.point):
        reached("frozen")
        yield


def thaw(image: Path) -> None:
    """Undo the freeze of a driver that was killed in the middle of it."""
    device = staged(image)
    mounted = mount_of(device) if device else None
    if mounted is not None:
        mounts.thaw(mounted.point)


def filesystem_on(device: Path) -> str:
    """The type of what blkid finds on a device; "" if it finds nothing at all."""
    command = ["blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE", str(device)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):  # 2: nothing found
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def holds_data(image: Path) -> bool:
    """Whether anything was ever written to an image: a wholly sparse one has nothing to lose."""
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.lseek(fd, 0, os.SEEK_DATA)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def ext4_size(device: Path) -> int:
    """Size in bytes that the ext4 on a device says it has."""
    with device.open("rb") as file:
        file.seek(1024)
        block = file.read(1024)
    low, log_block_size, incompatible, high = (struct.unpack_from("<I", block, at)[0] for at in FIELDS)
    blocks = int(low) + (int(high) << 32 if incompatible & INCOMPAT_64BIT else 0)
    return blocks << (10 + int(log_block_size))


def is_short(device: Loop) -> bool:
    """Whether the ext4 on a device can grow; the end that is too small for a block group stays unused."""
    return ext4_size(device.path) + SMALLEST_GROUP <= loop.size(device)


def grow_unmounted(device: Loop) -> None:
    """Let an ext4 that is not mounted fill its device; replays and checks it first, as resize2fs wants it."""
    command = ["e2fsck", "-f", "-p", str(device.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: repaired
        raise OSError(f"{' '.join(command)}: {done.stdout.strip()} {done.stderr.strip()}")
    mounts.run("resize2fs", str(device.path))


def make_ext4(device: Path) -> None:
    """Everything is initialised now: a kernel that does it later would change blocks that nobody wrote."""
    options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
    mounts.run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", options, str(device))
