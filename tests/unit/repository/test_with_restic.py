"""Both directions against the real restic: it accepts all we write, we read and extend what it made."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from coeval.repository.file_store import FileStore
from coeval.repository.repository import Repository

from tests.tools.repositories import PASSWORD, Cli
from tests.tools.restic import Restic

pytestmark = pytest.mark.restic

T1 = "2026-01-01T00:00:00Z"
T2 = "2026-01-01T00:00:05.5Z"
MIB = 1 << 20


def image(path: Path, seed: int, size: int) -> bytes:
    """Write an image with random, repetitive, zero and hole stretches."""
    source = random.Random(seed)  # noqa: S311
    with path.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, 2 * MIB):
            file.seek(at)
            kind = source.choice(["random", "text", "zero", "hole"])
            length = min(size - at, source.randrange(1, 2 * MIB))
            if kind == "random":
                file.write(source.randbytes(length))
            elif kind == "text":
                file.write((b"%d: all is well\n" % source.randrange(9) * length)[:length])
            elif kind == "zero":
                file.write(bytes(length))
    return path.read_bytes()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def restic(cli: Cli) -> Restic:
    return Restic(cli.repository, PASSWORD)


def test_restic_accepts_every_step_up_to_the_commit(cli: Cli, restic: Restic, tmp_path: Path) -> None:
    size = 21 * MIB + 777
    t1 = image(tmp_path / "t1", 1, size)
    later = bytearray(t1)
    later[5 * MIB : 5 * MIB + 9] = b"new bytes"
    (tmp_path / "t2").write_bytes(later + b"and it grew")
    data = image(tmp_path / "data", 2, 3 * MIB)

    interim = cli.copy(tmp_path / "t2", "root", "--interim", "--as-of", T2, "--tag", "backup=ns/b")
    restic.check()
    assert restic.run("dump", interim, "/disks/root/disk.img") == bytes(later + b"and it grew")
    ranges = tmp_path / "ranges.json"
    ranges.write_text(json.dumps({"size": size, "ranges": [[5 * MIB, 4096]]}))
    step = ("--name", "root", "--snapshot", interim, "--source", str(tmp_path / "t1"), "--as-of", T1)
    root = cli.run("volume", "retime", *step, "--changed", str(ranges))
    assert (root["change_source"], root["chunks_changed"]) == ("Ranges", 2)
    restic.check()
    part = cli.copy(tmp_path / "data", "data", "--as-of", T1, "--tag", "backup=ns/b")
    restic.run("prune")
    (tmp_path / "vm.yaml").write_text("kind: VirtualMachine\n")
    parts = ("--snapshot", root["snapshot"], "--snapshot", part)
    done = cli.run("commit", *parts, "--manifest", str(tmp_path / "vm.yaml"), "--forget-parts")["snapshot"]

    restic.check()
    [listed] = restic.snapshots()
    assert listed["id"] == done
    assert set(listed["tags"]) == {"coeval=v1", f"as-of={T1}", "backup=ns/b"}
    assert restic.run("dump", done, "/disks/root/disk.img") == t1
    assert restic.run("dump", done, "/disks/data/disk.img") == data
    assert restic.run("dump", done, "/vm/vm.yaml") == b"kind: VirtualMachine\n"
    restic.run("prune", "--max-unused", "0")
    restic.check()
    cli.run("verify", "--snapshot", done)
    cli.run("volume", "restore", "--snapshot", done, "--name", "root", "--target", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == t1


def test_forget_and_prune_by_restic_between_our_commands(cli: Cli, restic: Restic, tmp_path: Path) -> None:
    first = cli.copy(tmp_path / "a", "root", "--as-of", T1) if image(tmp_path / "a", 3, 9 * MIB) else ""
    image(tmp_path / "b", 4, 9 * MIB + 1)
    second = cli.copy(tmp_path / "b", "root", "--as-of", T2)
    restic.run("forget", first, "--prune")
    restic.check()
    cli.run("verify", "--snapshot", second)
    assert cli.run("verify", "--snapshot", first, code=1)["error"]["reason"] == "SnapshotNotFound"
    third = cli.copy(tmp_path / "a", "root", "--as-of", T2)
    restic.check()
    assert restic.run("dump", third, "/disks/root/disk.img") == (tmp_path / "a").read_bytes()


@pytest.mark.parametrize("size", [0, 1, 511, MIB - 1, MIB, MIB + 1])
def test_restic_dumps_images_of_odd_sizes(cli: Cli, restic: Restic, tmp_path: Path, size: int) -> None:
    data = image(tmp_path / "a", size, size)
    snapshot = cli.copy(tmp_path / "a", "root")
    restic.check()
    assert restic.run("dump", snapshot, "/disks/root/disk.img") == data


def test_a_repository_that_restic_made_is_read_and_extended(tmp_path: Path) -> None:
    restic = Restic(tmp_path / "repository", PASSWORD)
    restic.run("init")
    folder = tmp_path / "tree"
    (folder / "disks/root").mkdir(parents=True)
    data = image(folder / "disks/root/disk.img", 5, 12 * MIB + 3)
    (folder / 'odd "näme"\n<&>').write_bytes(b"odd")
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("nowhere")
    restic.run("backup", ".", cwd=folder)
    [made] = restic.snapshots()

    repository = Repository.open(FileStore(str(tmp_path / "repository")), PASSWORD)
    names = {node.name for node in repository.load_tree(repository.snapshot(made["id"]).tree)}
    assert names == {"disks", 'odd "näme"\n<&>', "pipe", "link"}

    cli = Cli(tmp_path, f"file://{tmp_path}/repository")
    cli.run("verify", "--snapshot", made["id"])
    cli.run(
        "volume", "restore", "--snapshot", made["id"], "--name", "root", "--target", str(tmp_path / "out")
    )
    assert (tmp_path / "out").read_bytes() == data

    changed = bytearray(data)
    changed[MIB : MIB + 3] = b"new"
    (tmp_path / "t1").write_bytes(changed[: 9 * MIB + 7])
    step = ("--name", "root", "--snapshot", made["id"], "--source", str(tmp_path / "t1"), "--as-of", T1)
    moved = cli.run("volume", "retime", *step, "--compare")
    assert moved["chunks_changed"] < moved["chunks"], "the boundaries that restic chose were kept"
    assert restic.run("dump", moved["snapshot"], "/disks/root/disk.img") == changed[: 9 * MIB + 7]
    restic.check()


def test_restic_refuses_while_we_write_and_we_while_restic_is_alone(
    cli: Cli, restic: Restic, tmp_path: Path
) -> None:
    image(tmp_path / "a", 6, MIB)
    with Repository.open(FileStore(str(cli.repository)), PASSWORD).lock():
        denied = restic.attempt("prune")
        assert denied.returncode and b"already locked" in denied.stderr
        cli.copy(tmp_path / "a", "root")
    restic.run("prune")
