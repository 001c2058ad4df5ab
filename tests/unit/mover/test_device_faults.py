"""Every system call on a device that is restored to goes wrong once: none goes by, and the next run heals.

A device cannot show the old content or the new and nothing else, as a file can: it is written in place.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from coeval.mover.errors import TargetUnusable
from coeval.mover.targets import open_target

from tests.tools.devices import Device
from tests.tools.syscalls import Syscalls, dies, faults, in_child

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")

SIZE = 64 << 10
DATA = random.Random(1).randbytes(3000)  # noqa: S311
NEW = DATA + bytes(1096) + bytes(8192) + DATA + bytes(512) + DATA
"""Zeros that do not begin with a sector and zeros that do, by the page and by the sector."""
OLD = b"old" * (SIZE // 3) + b"!"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path / "backing", SIZE)
    try:
        yield device
    finally:
        device.close()


def fill(device: Device, content: bytes) -> None:
    device.path.write_bytes(content)


def restore(device: Device, *, overwrite: bool = True) -> None:
    target = open_target(device.path, sparse=True, overwrite=overwrite)
    try:
        target.prepare(len(NEW), 3 * len(DATA))
        target.write(0, [DATA])
        target.zero(len(DATA), 1096)
        target.zero(4096, 8192)
        target.write(12288, [DATA])
        target.zero(12288 + len(DATA), 512)
        target.write(len(NEW) - len(DATA), [DATA])
        target.finish()
    finally:
        target.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def restored(device: Device) -> bool:
    return device.read()[: len(NEW)] == NEW


def calls(device: Device, *, overwrite: bool) -> list[str]:
    fill(device, OLD if overwrite else bytes(SIZE))
    with Syscalls() as counted:
        restore(device, overwrite=overwrite)
    assert restored(device)
    return counted.names


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_error_at_any_call_is_named_and_the_next_restore_heals(device: Device, overwrite: bool) -> None:
    files = open_files()
    names = calls(device, overwrite=overwrite)
    assert {"stat", "open", "lseek", "pwrite", "ioctl", "fsync", "close"} <= set(names)
    for number, name in enumerate(names):
        for fault, act in faults(name, full=errno.ENOSPC, broken=errno.EIO):
            if (name, fault) == ("open", "late error"):
                continue  # there is no such thing, and the test would keep the device open
            fill(device, OLD if overwrite else bytes(SIZE))
            done = False
            try:
                with Syscalls(number, act):
                    restore(device, overwrite=overwrite)
                done = True
            except TargetUnusable as error:
                assert f"--target {device.path}" in str(error)
            # Zeros are written where the device does not make them itself.
            assert done == (fault == "short" or name == "ioctl"), f"{fault} of {name} went by"
            assert restored(device) or not done, f"{fault} of {name}: wrong bytes"
            assert open_files() == files, f"{fault} of {name}: a file is left open"
            restore(device)
            assert restored(device)


@pytest.mark.parametrize("late", [False, True])
def test_after_a_process_that_died_at_any_call_the_next_restore_heals(device: Device, late: bool) -> None:
    for number in range(len(calls(device, overwrite=True))):
        fill(device, OLD)

        def run(number: int = number) -> None:
            with Syscalls(number, dies(late=late)):
                restore(device)

        assert in_child(run) == 9
        restore(device)
        assert restored(device)


def test_what_was_begun_is_not_taken_for_empty(device: Device) -> None:
    """A restore that died is not gone on with unless told: the device has data, whoever wrote it."""
    names = calls(device, overwrite=False)
    for number in range(names.index("pwrite") + 1, len(names)):
        fill(device, bytes(SIZE))

        def run(number: int = number) -> None:
            with Syscalls(number, dies(late=False)):
                restore(device, overwrite=False)

        assert in_child(run) == 9
        with pytest.raises(TargetUnusable, match="is not empty"):
            restore(device, overwrite=False)
