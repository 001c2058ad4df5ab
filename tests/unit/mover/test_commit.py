"""Commit, forget and verify: one moment only, interim never, and safe to repeat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from coeval.repository.file_store import FileStore
from coeval.repository.repository import Repository
from coeval.repository.store import Kind

from tests.tools.repositories import PASSWORD, Cli

T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"
TAG = ("--tag", "backup=ns/b")


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 100)
    return Cli(tmp_path)


def snapshots(cli: Cli) -> dict[str, set[str]]:
    repository = Repository.open(FileStore(str(cli.repository)), PASSWORD)
    return {snapshot.id: set(snapshot.tags) for snapshot in repository.snapshots()}


def parts(cli: Cli, folder: Path, *moments: str) -> list[str]:
    words: list[str] = []
    for name, moment in zip("ab", moments, strict=True):
        words += ["--snapshot", cli.copy(folder / name, name, "--as-of", moment, *TAG)]
    return words


def test_an_interim_copy_is_of_no_use_but_to_retime_and_verify(cli: Cli, tmp_path: Path) -> None:
    interim = cli.copy(tmp_path / "a", "a", "--interim", "--as-of", T2, *TAG)
    (tmp_path / "r").write_text(json.dumps({"size": 100, "ranges": []}))
    changed = ("--changed", str(tmp_path / "r"))
    refused = [
        ("commit", "--snapshot", interim),
        ("volume", "restore", "--snapshot", interim, "--name", "a", "--target", str(tmp_path / "out")),
        ("volume", "copy", "--name", "a", "--source", str(tmp_path / "a"), "--parent", interim, *changed),
    ]
    for command in refused:
        error = cli.run(*command, code=1)["error"]
        assert error["reason"] == "InterimSnapshot" and "retime" in error["message"]
    assert not (tmp_path / "out").exists()
    assert cli.run("verify", "--snapshot", interim)["interim"] is True
    step = ("--name", "a", "--snapshot", interim, "--source", str(tmp_path / "a"), "--as-of", T1)
    retimed = cli.run("volume", "retime", *step)
    assert (retimed["as_of"], retimed["interim"]) == (T1, False)
    tags = snapshots(cli)[retimed["snapshot"]]
    assert tags == {"coeval=v1", f"as-of={T1}", "volume=a", "part", "backup=ns/b"}


def test_a_commit_joins_one_moment_and_clears_up(cli: Cli, tmp_path: Path) -> None:
    words = parts(cli, tmp_path, T1, "2026-01-01T01:00:00.000+01:00")
    cli.copy(tmp_path / "a", "a", "--interim", "--as-of", T2, *TAG)
    other = cli.copy(tmp_path / "a", "a", "--interim", "--as-of", T2, "--tag", "backup=ns/other")
    done = cli.run("commit", *words, "--forget-parts")
    assert done["volumes"] == ["a", "b"] and done["as_of"] == T1
    assert set(snapshots(cli)) == {done["snapshot"], other}
    assert snapshots(cli)[done["snapshot"]] == {"coeval=v1", f"as-of={T1}", "backup=ns/b"}
    again = cli.run("commit", *words, "--forget-parts")
    assert again["snapshot"] == done["snapshot"] and again["already_committed"]
    assert set(snapshots(cli)) == {done["snapshot"], other}


def test_different_moments_are_refused(cli: Cli, tmp_path: Path) -> None:
    error = cli.run("commit", *parts(cli, tmp_path, T1, T2), code=1)["error"]
    assert error["reason"] == "DifferentMoments" and T1 in error["message"] and T2 in error["message"]


def test_only_parts_are_joined_and_each_volume_once(cli: Cli, tmp_path: Path) -> None:
    words = parts(cli, tmp_path, T1, T1)
    done = cli.run("commit", *words)["snapshot"]
    assert "not a part" in cli.run("commit", "--snapshot", done, code=2)["error"]["message"]
    twin = cli.copy(tmp_path / "a", "a", "--as-of", T1, *TAG)
    error = cli.run("commit", *words, "--snapshot", twin, code=2)["error"]
    assert "volume a is in another part" in error["message"]
    (tmp_path / "x").mkdir()
    (tmp_path / "x/vm.yaml").touch()
    (tmp_path / "vm.yaml").touch()
    manifests = ("--manifest", str(tmp_path / "vm.yaml"), "--manifest", str(tmp_path / "x/vm.yaml"))
    assert "--manifest" in cli.run("commit", *words[:2], *manifests, code=2)["error"]["message"]


def test_forget_takes_ids_or_tags(cli: Cli, tmp_path: Path) -> None:
    words = parts(cli, tmp_path, T1, T1)
    done = cli.run("commit", *words)["snapshot"]
    assert len(cli.run("repo", "forget", *TAG, "--parts-only")["forgotten"]) == 2
    assert set(snapshots(cli)) == {done}
    assert cli.run("repo", "forget", "--snapshot", done[:12])["forgotten"] == [done]
    assert cli.run("repo", "forget", "--snapshot", done, code=1)["error"]["reason"] == "SnapshotNotFound"
    assert cli.run("repo", "forget", code=2)["error"]["reason"] == "InvalidArgument"
    assert cli.run("repo", "forget", "--tag", "nonsense", code=2)["error"]["reason"] == "InvalidArgument"


def files(cli: Cli) -> list[Path]:
    return sorted(path for path in cli.repository.rglob("*") if path.is_file() and path.parent.name != "tmp")


@pytest.mark.parametrize("where", [0.0, 0.4, 0.99])
@pytest.mark.parametrize("kind", [Kind.CONFIG, Kind.KEY, Kind.PACK, Kind.INDEX, Kind.SNAPSHOT])
def test_a_flipped_bit_anywhere_is_an_error_that_names_the_object(
    cli: Cli, tmp_path: Path, kind: Kind, where: float
) -> None:
    snapshot = cli.copy(tmp_path / "a", "a")
    for path in [path for path in files(cli) if path.relative_to(cli.repository).parts[0] == kind.value]:
        whole = path.read_bytes()
        damaged = bytearray(whole)
        # A pack's end is its header, which nobody reads who has the index: stay within the blobs there.
        damaged[int(where * (len(whole) if kind is not Kind.PACK else 60))] ^= 0x10
        path.chmod(0o600)
        path.write_bytes(damaged)
        error = cli.run("verify", "--snapshot", snapshot, code=3)["error"]
        assert error["reason"] == "RepositoryDamaged"
        assert path.name in error["message"], error["message"]
        path.write_bytes(whole)
    cli.run("verify", "--snapshot", snapshot)


@pytest.mark.parametrize("kind", [Kind.PACK, Kind.INDEX])
def test_a_missing_or_truncated_object_is_named(cli: Cli, tmp_path: Path, kind: Kind) -> None:
    snapshot = cli.copy(tmp_path / "a", "a")
    for path in [path for path in files(cli) if path.relative_to(cli.repository).parts[0] == kind.value]:
        whole = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(whole[:20])
        assert path.name in cli.run("verify", "--snapshot", snapshot, code=3)["error"]["message"]
        path.unlink()
        message = cli.run("verify", "--snapshot", snapshot, code=3)["error"]["message"]
        assert path.name in message or "in no index" in message
        path.write_bytes(whole)


def test_a_sample_reads_less_and_is_checked(cli: Cli, tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        for number in range(40):
            file.write(number.to_bytes(2, "big") * (1 << 19))
    snapshot = cli.copy(tmp_path / "big", "big")
    assert cli.run("verify", "--snapshot", snapshot)["chunks_verified"] == 40
    assert cli.run("verify", "--snapshot", snapshot, "--sample", "1%")["chunks_verified"] == 16
    for wrong in ("0%", "101%", "1", "x%", "nan%"):
        error = cli.run("verify", "--snapshot", snapshot, "--sample", wrong, code=2)["error"]
        assert "--sample" in error["message"]
