"""Both directions against rustic, a writer of this format that shares no code with restic or us."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from coeval.mover.content import CHUNK_SIZE
from coeval.repository.file_store import FileStore
from coeval.repository.keys import add_key
from coeval.repository.repository import Repository
from coeval.repository.store import Kind

from tests.tools.repositories import CHEAP, PASSWORD, Cli
from tests.tools.restic import Restic
from tests.tools.rustic import Rustic

pytestmark = pytest.mark.skipif(shutil.which("cargo") is None, reason="rustic needs cargo to be built")

MIB = 1 << 20
T1, T2 = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def image(path: Path, seed: int) -> bytes:
    content = random.Random(seed).randbytes(2 * MIB) + bytes(MIB) + b"text\n" * MIB + b"and 7 more"  # noqa: S311
    path.write_bytes(content)
    return content


def new_rustic(place: Path, *options: str) -> Rustic:
    """Let rustic make a repository. Ours opens it by rustic's own key, then adds a cheap one in its place."""
    rustic = Rustic(place, PASSWORD)
    rustic.run("init", *options)
    store = FileStore(str(place))
    [dear] = store.entries(Kind.KEY)
    add_key(store, Repository.open(store, PASSWORD).key, PASSWORD, CHEAP)
    store.remove(Kind.KEY, dear[0])
    return rustic


def made_by_rustic(folder: Path, *options: str) -> tuple[Rustic, str, bytes]:
    """Let rustic make a repository and back up a folder with the layout of ours; give the snapshot."""
    rustic = new_rustic(folder / "repository", *options)
    tree = folder / "tree"
    (tree / "disks/root").mkdir(parents=True)
    content = image(tree / "disks/root/disk.img", 1)
    (tree / 'odd "näme"\n<&>').write_bytes(b"odd")
    (tree / "empty").touch()
    os.mkfifo(tree / "pipe")
    (tree / "link").symlink_to("nowhere")
    return rustic, rustic.backup(tree), content


def restored(cli: Cli, snapshot: str, folder: Path) -> bytes:
    words = ("--snapshot", snapshot, "--name", "root", "--target", str(folder / "out"), "--overwrite")
    cli.run("volume", "restore", *words)
    return (folder / "out").read_bytes()


def test_rustic_accepts_every_step_up_to_the_commit(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    rustic, restic = Rustic(cli.repository, PASSWORD), Restic(cli.repository, PASSWORD)
    image(tmp_path / "a", 2)
    interim = cli.copy(tmp_path / "a", "root", "--interim", "--as-of", T2)
    rustic.check()
    t1 = image(tmp_path / "a", 3)
    step = ("--name", "root", "--snapshot", interim, "--source", str(tmp_path / "a"), "--as-of", T1)
    part = cli.run("volume", "retime", *step)["snapshot"]
    rustic.check()
    (tmp_path / "vm.yaml").write_text("kind: VirtualMachine\n")
    done = cli.run("commit", "--snapshot", part, "--manifest", str(tmp_path / "vm.yaml"))["snapshot"]
    rustic.check()
    assert rustic.run("dump", f"{done}:/disks/root/disk.img") == t1
    assert rustic.run("dump", f"{done}:/vm/vm.yaml") == b"kind: VirtualMachine\n"
    rustic.run("restore", f"{done}:/disks/root", str(tmp_path / "theirs"))
    assert (tmp_path / "theirs/disk.img").read_bytes() == t1
    # What it tags, it writes anew, with fields of its own.
    rustic.run("tag", "kept", done)
    [tagged] = [entry for entry in restic.snapshots() if "kept" in entry["tags"]]
    assert f"as-of={T1}" in tagged["tags"]
    rustic.run("forget", interim, part)
    rustic.run("prune", "--instant-delete", "--max-unused", "0B", "--max-repack", "unlimited")
    assert restored(cli, tagged["id"], tmp_path) == t1
    cli.run("verify", "--snapshot", tagged["id"])
    rustic.check()
    restic.check()


@pytest.mark.parametrize(
    "options",
    [(), ("--set-chunker", "fixed_size", "--set-chunk-size", str(CHUNK_SIZE)), ("--set-compression", "0")],
)
def test_what_rustic_made_is_read_and_extended(tmp_path: Path, options: tuple[str, ...]) -> None:
    rustic, made, content = made_by_rustic(tmp_path, *options)
    repository = Repository.open(FileStore(str(rustic.repository)), PASSWORD)
    names = {node.name for node in repository.load_tree(repository.snapshot(made).tree)}
    assert names == {"disks", "empty", 'odd "näme"\n<&>', "pipe", "link"}
    cli = Cli(tmp_path, f"file://{rustic.repository}")
    assert cli.run("verify", "--snapshot", made)["files"] == 3
    assert restored(cli, made, tmp_path) == content

    changed = bytearray(content)
    changed[MIB : MIB + 3] = b"new"
    (tmp_path / "t1").write_bytes(changed)
    step = ("--name", "root", "--snapshot", made, "--source", str(tmp_path / "t1"), "--as-of", T1)
    moved = cli.run("volume", "retime", *step, "--compare")
    assert moved["chunks_changed"] < moved["chunks"], "the boundaries that rustic chose were kept"
    added = cli.run("volume", "copy", "--name", "root", "--source", str(tmp_path / "t1"))["bytes_added"]
    assert ("fixed_size" in options) == (added < MIB), "equal boundaries, equal chunks: nothing twice"
    rustic.check()
    assert rustic.run("dump", f"{moved['snapshot']}:/disks/root/disk.img") == changed
    # Extended once more by rustic, over blobs of ours.
    again = rustic.backup(tmp_path / "tree")
    assert restored(cli, again, tmp_path) == content
    Restic(rustic.repository, PASSWORD).check()


def test_what_rustic_marks_for_deletion_is_no_longer_relied_upon(tmp_path: Path) -> None:
    """Its prune works in two steps: packs wait, in the index but marked, and are deleted by a later prune."""
    rustic, made, content = made_by_rustic(tmp_path)
    cli = Cli(tmp_path, f"file://{rustic.repository}")
    (tmp_path / "a").write_bytes(content)
    part = cli.copy(tmp_path / "a", "root", "--as-of", T1)
    packs = {path.name for path in rustic.repository.glob("data/*/*")}
    rustic.run("forget", made)
    rustic.run("prune", "--max-unused", "0B", "--max-repack", "unlimited")
    repository = Repository.open(FileStore(str(rustic.repository)), PASSWORD)
    indexes = [repository.load_file(Kind.INDEX, name) for name in repository.names(Kind.INDEX)]
    assert any(b'"packs_to_delete":[{' in text for text in indexes)
    assert any(b'"uncompressed_length":null' in text for text in indexes), "which restic never writes"
    assert packs <= {path.name for path in rustic.repository.glob("data/*/*")}

    assert cli.run("verify", "--snapshot", part)["chunks_verified"] > 0
    assert restored(cli, part, tmp_path) == content
    # The same again, of which only marked packs know: stored anew, so that their end harms nobody.
    again = cli.copy(tmp_path / "tree/disks/root/disk.img", "root", "--as-of", T2)
    rustic.run("prune", "--keep-delete", "0s", "--max-unused", "0B", "--max-repack", "unlimited")
    assert not packs <= {path.name for path in rustic.repository.glob("data/*/*")}
    for snapshot in (part, again):
        assert restored(cli, snapshot, tmp_path) == content
    rustic.check()
    Restic(rustic.repository, PASSWORD).check()


def test_rustic_copies_ours_to_its_own_and_back(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    content = image(tmp_path / "a", 4)
    ours = cli.copy(tmp_path / "a", "root", "--as-of", T1)
    other = Rustic(tmp_path / "other", PASSWORD)
    Rustic(cli.repository, PASSWORD).run("copy", str(other.repository), ours)
    there = Cli(tmp_path, f"file://{other.repository}")
    [copied] = Restic(other.repository, PASSWORD).snapshots()
    assert restored(there, copied["id"], tmp_path) == content
    newer = image(tmp_path / "a", 5)
    extended = there.copy(tmp_path / "a", "root", "--as-of", T2)
    other.check()
    other.run("copy", str(cli.repository), extended)
    restic = Restic(cli.repository, PASSWORD)
    [returned] = [entry["id"] for entry in restic.snapshots() if entry["id"] != ours]
    assert restored(cli, returned, tmp_path) == newer and restored(cli, ours, tmp_path) == content
    restic.check()
