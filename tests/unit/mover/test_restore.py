"""Restore: the bytes, the holes, and refusals before the first byte."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from tests.tools.repositories import Cli

MIB = 1 << 20
DATA = b"first" * MIB + bytes(4 * MIB) + b"last" * 1000 + b"!"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def snapshot(cli: Cli, tmp_path: Path) -> str:
    (tmp_path / "image").write_bytes(DATA)
    return cli.copy(tmp_path / "image", "root")


def restore(cli: Cli, snapshot: str, target: Path, *options: str, code: int = 0) -> str:
    words = ("--snapshot", snapshot, "--name", "root", "--target", str(target))
    done = cli.run("volume", "restore", *words, *options, code=code)
    return str(done["error"]["message"]) if code else ""


def test_zeros_are_holes_only_if_wanted(cli: Cli, snapshot: str, tmp_path: Path) -> None:
    restore(cli, snapshot, tmp_path / "thick")
    restore(cli, snapshot, tmp_path / "thin", "--sparse")
    assert (tmp_path / "thick").read_bytes() == (tmp_path / "thin").read_bytes() == DATA
    assert (tmp_path / "thick").stat().st_blocks * 512 >= len(DATA)
    assert (tmp_path / "thin").stat().st_blocks * 512 < len(DATA) - 2 * MIB
    assert not list(tmp_path.glob(".*partial"))


def test_a_file_with_data_is_kept_unless_told(cli: Cli, snapshot: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    assert "--overwrite" in restore(cli, snapshot, target, code=1)
    assert target.read_bytes() == b"precious"
    restore(cli, snapshot, target, "--overwrite")
    assert target.read_bytes() == DATA


def test_an_empty_file_may_be_restored_to(cli: Cli, snapshot: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.truncate(tmp_path / "empty", MIB)
    restore(cli, snapshot, tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == DATA


def test_two_restores_to_one_file_do_not_meet(cli: Cli, snapshot: str, tmp_path: Path) -> None:
    with (tmp_path / ".target.coeval-partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "another restore" in restore(cli, snapshot, tmp_path / "target", code=1)
    restore(cli, snapshot, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == DATA


def test_damage_leaves_no_target(cli: Cli, snapshot: str, tmp_path: Path) -> None:
    for pack in (cli.repository / "data").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            content = bytearray(pack.read_bytes())
            content[20] ^= 4
            pack.write_bytes(content)
    message = restore(cli, snapshot, tmp_path / "target", code=3)
    assert "data/" in message and "damaged" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "password", "repository"]


@pytest.mark.parametrize("target", ["/dev/null", "/proc", "/nowhere/at/all"])
def test_impossible_targets_are_named(cli: Cli, snapshot: str, target: str) -> None:
    assert f"--target {target}" in restore(cli, snapshot, Path(target), code=1)


def test_a_name_that_is_not_there_says_what_is(cli: Cli, snapshot: str, tmp_path: Path) -> None:
    words = ("--snapshot", snapshot, "--name", "other", "--target", str(tmp_path / "t"))
    error = cli.run("volume", "restore", *words, code=1)["error"]
    assert error["reason"] == "VolumeNotFound" and "it has root" in error["message"]


def test_latest_is_the_newest_backup_and_never_a_part_of_one(cli: Cli, snapshot: str, tmp_path: Path) -> None:
    restore(cli, "latest", tmp_path / "none", code=1)
    cli.run("commit", "--snapshot", snapshot)
    (tmp_path / "image").write_bytes(DATA[::-1])
    newer = cli.copy(tmp_path / "image", "root")
    restore(cli, "latest", tmp_path / "first")
    assert (tmp_path / "first").read_bytes() == DATA
    cli.run("commit", "--snapshot", newer)
    restore(cli, "latest", tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == DATA[::-1]
