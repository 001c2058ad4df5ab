"""What restic does to repositories of ours, and we to its own: copies, rewrites, keys, formats, locks."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from coeval.repository.errors import RepositoryLocked
from coeval.repository.file_store import FileStore
from coeval.repository.repository import Repository

from tests.tools.repositories import PASSWORD, Cli
from tests.tools.restic import OLD, Restic

pytestmark = pytest.mark.restic

MIB = 1 << 20
T1, T2 = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def image(path: Path, seed: int, size: int = 3 * MIB + 7) -> bytes:
    content = random.Random(seed).randbytes(size // 2) + bytes(size - size // 2 - 4) + b"last"  # noqa: S311
    path.write_bytes(content)
    return content


def cli_on(restic: Restic, folder: Path, password: str = PASSWORD) -> Cli:
    """Our command line on a repository that restic made."""
    cli = Cli(folder, f"file://{restic.repository}")
    cli.password_file = folder / "restic-password"
    cli.password_file.write_text(password)
    return cli


def restored(cli: Cli, snapshot: str, folder: Path) -> bytes:
    words = ("--snapshot", snapshot, "--name", "root", "--target", str(folder / "out"), "--overwrite")
    cli.run("volume", "restore", *words)
    return (folder / "out").read_bytes()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def restic(cli: Cli) -> Restic:
    return Restic(cli.repository, PASSWORD)


def backup(restic: Restic, folder: Path, seed: int, *options: str) -> tuple[str, bytes]:
    """Let restic back up a folder with the layout of ours."""
    place = folder / f"tree-{seed}"
    (place / "disks/root").mkdir(parents=True)
    content = image(place / "disks/root/disk.img", seed)
    restic.run("backup", *options, ".", cwd=place)
    return str(restic.snapshots()[-1]["id"]), content


def test_restic_copies_ours_to_its_own_and_back(cli: Cli, restic: Restic, tmp_path: Path) -> None:
    content = image(tmp_path / "a", 1)
    ours = cli.copy(tmp_path / "a", "root", "--as-of", T1)
    (tmp_path / "from").write_text(PASSWORD)
    source = ("--from-repo", str(cli.repository), "--from-password-file", str(tmp_path / "from"))
    other = Restic(tmp_path / "other", PASSWORD)
    other.run("init", *source, "--copy-chunker-params")
    other.run("copy", *source, ours)
    [copied] = other.snapshots()
    there = cli_on(other, tmp_path)
    assert restored(there, copied["id"], tmp_path) == content
    there.run("verify", "--snapshot", copied["id"])
    # Extended there, and copied back.
    newer = image(tmp_path / "a", 2)
    extended = there.copy(tmp_path / "a", "root", "--as-of", T2)
    other.check()
    back = ("--from-repo", str(other.repository), "--from-password-file", str(tmp_path / "from"))
    restic.run("copy", *back, extended)
    [returned] = [entry for entry in restic.snapshots() if entry["id"] != ours]
    assert restored(cli, returned["id"], tmp_path) == newer
    restic.check()


def test_restic_rewrites_tags_and_forgets_ours(cli: Cli, restic: Restic, tmp_path: Path) -> None:
    content = image(tmp_path / "a", 1)
    part = cli.copy(tmp_path / "a", "root", "--as-of", T1)
    (tmp_path / "vm.yaml").write_text("kind: VirtualMachine\n")
    done = cli.run("commit", "--snapshot", part, "--manifest", str(tmp_path / "vm.yaml"), "--forget-parts")
    restic.run("tag", "--add", "kept", done["snapshot"])
    [tagged] = restic.snapshots()
    assert "kept" in tagged["tags"] and f"as-of={T1}" in tagged["tags"]
    restic.run("rewrite", "--forget", "--exclude", "/vm", tagged["id"])
    [rewritten] = restic.snapshots()
    assert restored(cli, rewritten["id"], tmp_path) == content
    assert restored(cli, "latest", tmp_path) == content
    newer = image(tmp_path / "a", 2)
    part = cli.copy(tmp_path / "a", "root", "--as-of", T2)
    cli.run("commit", "--snapshot", part, "--forget-parts")
    restic.run("forget", "--keep-last", "1", "--group-by", "", "--prune")
    [last] = restic.snapshots()
    assert restored(cli, last["id"], tmp_path) == newer
    cli.run("verify", "--snapshot", last["id"])
    restic.check()


def test_restic_makes_our_index_anew(cli: Cli, restic: Restic, tmp_path: Path) -> None:
    content = image(tmp_path / "a", 1)
    snapshot = cli.copy(tmp_path / "a", "root")
    for path in (cli.repository / "index").iterdir():
        path.unlink()
    assert "in no index" in cli.run("verify", "--snapshot", snapshot, code=3)["error"]["message"]
    restic.run("repair", "index")
    assert restored(cli, snapshot, tmp_path) == content
    restic.check()


def test_a_damaged_index_is_repaired_the_way_the_message_says(
    cli: Cli, restic: Restic, tmp_path: Path
) -> None:
    image(tmp_path / "a", 1)
    snapshot = cli.copy(tmp_path / "a", "root")
    [index] = (cli.repository / "index").iterdir()
    index.chmod(0o600)
    index.write_bytes(index.read_bytes()[:-1])
    assert "`restic repair index`" in cli.run("verify", "--snapshot", snapshot, code=3)["error"]["message"]
    refused = ("volume", "copy", "--name", "root", "--source", str(tmp_path / "a"))
    assert "`restic repair index`" in cli.run(*refused, code=3)["error"]["message"]
    restic.run("repair", "index")
    cli.run("verify", "--snapshot", snapshot)
    cli.run(*refused)
    restic.check()


@pytest.mark.parametrize("compression", ["off", "max"])
def test_packs_of_restic_at_any_compression_are_read_and_extended(tmp_path: Path, compression: str) -> None:
    restic = Restic(tmp_path / "repository", PASSWORD)
    restic.run("init")
    made, content = backup(restic, tmp_path, 3, "--compression", compression, "--pack-size", "4")
    cli = cli_on(restic, tmp_path)
    cli.run("verify", "--snapshot", made)
    assert restored(cli, made, tmp_path) == content
    newer = image(tmp_path / "a", 4)
    ours = cli.copy(tmp_path / "a", "root")
    restic.check()
    assert restic.run("dump", ours, "/disks/root/disk.img") == newer
    again, third = backup(restic, tmp_path, 5)
    assert restored(cli, again, tmp_path) == third


def test_the_first_restic_with_format_2_reads_and_extends_ours_and_we_its_own(tmp_path: Path) -> None:
    old = Restic(tmp_path / "repository", PASSWORD, OLD)
    old.run("init", "--repository-version", "2")
    made, content = backup(old, tmp_path, 7)
    cli = cli_on(old, tmp_path)
    cli.run("verify", "--snapshot", made)
    assert restored(cli, made, tmp_path) == content
    image(tmp_path / "a", 8)
    interim = cli.copy(tmp_path / "a", "root", "--interim")
    newer = image(tmp_path / "a", 9)
    step = ("--name", "root", "--snapshot", interim, "--source", str(tmp_path / "a"), "--as-of", T1)
    part = cli.run("volume", "retime", *step)["snapshot"]
    old.check()
    done = cli.run("commit", "--snapshot", part, "--forget-parts")["snapshot"]
    again, third = backup(old, tmp_path, 10)
    old.run("forget", made, interim, "--prune")
    old.check()
    Restic(old.repository, PASSWORD).check()
    assert old.run("dump", done, "/disks/root/disk.img") == newer
    assert restored(cli, done, tmp_path) == newer and restored(cli, again, tmp_path) == third


def test_version_1_is_refused_until_it_is_migrated(tmp_path: Path) -> None:
    restic = Restic(tmp_path / "repository", PASSWORD)
    restic.run("init", "--repository-version", "1")
    made, content = backup(restic, tmp_path, 6)
    cli = cli_on(restic, tmp_path)
    message = cli.run("verify", "--snapshot", made, code=3)["error"]["message"]
    assert "restic migrate upgrade_repo_v2" in message
    restic.run("migrate", "upgrade_repo_v2")
    assert restored(cli, made, tmp_path) == content
    cli.copy(tmp_path / "out", "root")
    restic.check()


def test_keys_that_restic_adds_and_removes_open_ours(cli: Cli, restic: Restic, tmp_path: Path) -> None:
    image(tmp_path / "a", 1)
    snapshot = cli.copy(tmp_path / "a", "root")
    (tmp_path / "new").write_text("another password")
    restic.run("key", "add", "--new-password-file", str(tmp_path / "new"))
    cli_on(restic, tmp_path, "another password").run("verify", "--snapshot", snapshot)
    cli.run("verify", "--snapshot", snapshot)
    restic.run("key", "passwd", "--new-password-file", str(tmp_path / "new"))
    assert cli.run("verify", "--snapshot", snapshot, code=1)["error"]["reason"] == "WrongPassword"
    Restic(cli.repository, "another password").check()


def test_a_running_backup_of_restic_lets_movers_in_and_nobody_who_must_be_alone(
    cli: Cli, restic: Restic, tmp_path: Path
) -> None:
    image(tmp_path / "a", 1)
    running = restic.start("backup", "--stdin", "--stdin-filename", "file")
    try:
        assert running.stdin
        while not list((cli.repository / "locks").glob("*")):
            assert running.poll() is None
        snapshot = cli.copy(tmp_path / "a", "root")
        cli.run("verify", "--snapshot", snapshot, "--repair")
        repository = Repository.open(FileStore(str(cli.repository)), PASSWORD)
        alone = repository.lock(exclusive=True)
        with pytest.raises(RepositoryLocked, match=f"pid {running.pid} of"), alone:
            pass
        running.stdin.write(b"from a pipe")
    finally:
        running.communicate(timeout=60)
    assert running.returncode == 0
    restic.check()


def test_restic_waits_for_our_exclusive_lock(cli: Cli, restic: Restic) -> None:
    with Repository.open(FileStore(str(cli.repository)), PASSWORD).lock(exclusive=True):
        waiting = restic.start("snapshots", "--retry-lock", "1m")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=2)
    waiting.communicate(timeout=120)
    assert waiting.returncode == 0
