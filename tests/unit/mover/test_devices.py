"""Block devices as sources and targets, on loop devices."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.devices import Device
from tests.tools.repositories import Cli

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")

MIB = 1 << 20
SIZE = 8 * MIB + 512 * 3
"""A device is a number of sectors, not of chunks."""


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[list[Device]]:
    made: list[Device] = []
    try:
        yield made
    finally:
        for device in made:
            device.close()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def content() -> bytes:
    return os.urandom(3 * MIB) + bytes(4 * MIB) + os.urandom(SIZE - 7 * MIB)


def restore(cli: Cli, snapshot: str, target: Path, *options: str, code: int = 0) -> str:
    words = ("--snapshot", snapshot, "--name", "d", "--target", str(target))
    done = cli.run("volume", "restore", *words, *options, code=code)
    return str(done["error"]["message"]) if code else ""


def test_a_device_goes_in_and_comes_out(cli: Cli, tmp_path: Path, devices: list[Device]) -> None:
    data = content()
    (tmp_path / "source").write_bytes(data)
    devices.append(Device(tmp_path / "source", SIZE))
    snapshot = cli.copy(devices[0].path, "d")
    devices.append(Device(tmp_path / "target", SIZE + 10 * MIB))
    restore(cli, snapshot, devices[1].path)
    assert devices[1].read() == data + bytes(10 * MIB)

    message = restore(cli, snapshot, devices[1].path, code=1)
    assert "is not empty" in message and "--overwrite" in message
    with (tmp_path / "target").open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"old" * MIB)
    devices[1].flush()
    restore(cli, snapshot, devices[1].path, "--overwrite")
    assert devices[1].read()[:SIZE] == data, "old bytes where the volume has zeros are gone"


def test_a_device_too_small_or_in_use_is_refused_untouched(
    cli: Cli, tmp_path: Path, devices: list[Device]
) -> None:
    (tmp_path / "source").write_bytes(content())
    snapshot = cli.copy(tmp_path / "source", "d")
    devices.append(Device(tmp_path / "small", SIZE - 512))
    assert str(SIZE) in restore(cli, snapshot, devices[0].path, "--overwrite", code=1)
    assert devices[0].read() == bytes(SIZE - 512)
    devices.append(Device(tmp_path / "mounted", 32 * MIB))
    subprocess.run(["mkfs.ext4", "-q", str(devices[1].path)], check=True)
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", str(devices[1].path), str(tmp_path / "mnt")], check=True)
    try:
        assert "mounted or in use" in restore(cli, snapshot, devices[1].path, "--overwrite", code=1)
    finally:
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)


def test_a_device_is_compared_with_its_copy(cli: Cli, tmp_path: Path, devices: list[Device]) -> None:
    data = bytearray(content())
    (tmp_path / "source").write_bytes(data)
    interim = cli.copy(tmp_path / "source", "d", "--interim")
    data[5 * MIB : 5 * MIB + 3] = b"new"
    (tmp_path / "t1").write_bytes(data)
    devices.append(Device(tmp_path / "t1", SIZE))
    step = ("--name", "d", "--snapshot", interim, "--source", str(devices[0].path))
    moved = cli.run("volume", "retime", *step, "--as-of", "2026-01-01T00:00:00Z")
    assert moved["chunks_changed"] == 1
    restore(cli, moved["snapshot"], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
