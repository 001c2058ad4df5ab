"""Damage in words that people know: volumes and backups that are not whole, and the way to the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from coeval.repository.store import Kind

from tests.tools.damaged import T1, World, build, flip

T2 = "2026-01-02T00:00:00Z"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = build(tmp_path)
    del world.store.objects[world.objects["all", "lock"]]
    return world


def commit(world: World, *volumes: str) -> str:
    parts = [word for volume in volumes for word in ("--snapshot", world.snapshots[volume])]
    return str(world.run("commit", *parts, "--tag", f"backup=ns/{'-'.join(volumes)}")["snapshot"])


def verify(world: World, snapshot: str, *more: str) -> str:
    return str(world.run("verify", "--snapshot", snapshot, *more, code=3)["error"]["message"])


def damage(world: World, volume: str, what: str, at: int = 100) -> None:
    name = world.objects[volume, what]
    world.store.objects[name] = flip(at)(world.store.objects[name])


@pytest.mark.parametrize("more", [(), ("--sample", "1%")])
def test_the_volume_is_named_and_the_other_backups_that_share_the_damage(
    world: World, more: tuple[str, ...]
) -> None:
    both, only_b = commit(world, "a", "b"), commit(world, "b")
    damage(world, "a", "data pack")
    message = verify(world, both, *more)
    part = f"{world.snapshots['a'][:8]} (as of {T1})"
    assert message.startswith(
        f"snapshot {both}: cannot be read in full: volume a; nor can these snapshots: {part}; "
    )
    assert not world.run("verify", "--snapshot", only_b).get("error")
    assert f"{both[:8]} (as of {T1}, ns/a-b)" in verify(world, world.snapshots["a"], *more)


def test_a_lost_folder_and_a_lost_pack(world: World) -> None:
    both = commit(world, "a", "b")
    del world.store.objects[world.objects["b", "data pack"]]
    damage(world, "a", "tree pack", at=20)
    named = verify(world, both).split("; ")[0]
    assert named.endswith("cannot be read in full: volume a, volume b")


def test_damage_that_costs_nothing_names_no_volume(world: World) -> None:
    """Of a pack's header: every chunk still comes out."""
    name = world.objects["a", "data pack"]
    damage(world, "a", "data pack", at=len(world.store.objects[name]) - 20)
    message = verify(world, world.snapshots["a"])
    assert name[1] in message and "volume a" not in message


def test_many_names_fit_in_the_result(world: World, tmp_path: Path) -> None:
    for number in range(12):
        name = f"a{number:02}" + "x" * 60
        words = ("--name", name, "--source", str(world.folder / "a"), "--as-of", T1)
        world.snapshots[name] = world.run("volume", "copy", *words)["snapshot"]
    everything = commit(world, "a", *(name for name in world.snapshots if len(name) > 1))
    damage(world, "a", "data pack")
    result = tmp_path / "result"
    message = verify(world, everything, "--result", str(result))
    assert message.count("volume a") == 8 and "xxx and 5 more; nor can these snapshots: " in message
    assert len(result.read_bytes()) <= 4096
    assert "volume a" in result.read_text() and "xxx and 5 more" in result.read_text()


def test_latest_names_the_unreadable_snapshot_and_the_ids_to_choose_from(world: World) -> None:
    first, damaged = commit(world, "a"), commit(world, "b")
    newer = ("--name", "c", "--source", str(world.folder / "a"), "--as-of", T2)
    world.snapshots["c"] = world.run("volume", "copy", *newer)["snapshot"]
    second = commit(world, "c")
    name = (Kind.SNAPSHOT, damaged)
    world.store.objects[name] = flip(30)(world.store.objects[name])
    restore = ["volume", "restore", "--name", "a", "--target", str(world.folder / "out")]
    for words in (["verify"], restore):
        error = world.run(*words, "--snapshot", "latest", code=3)["error"]
        assert f"snapshots/{damaged} is damaged" in error["message"]
        assert error["message"].endswith(
            f"give the id of one that can be read: {second[:8]} (as of {T2}, ns/c), "
            f"{first[:8]} (as of {T1}, ns/a)"
        )
    assert not (world.folder / "out").exists()
    # An id, or its beginning, needs no other snapshot.
    for wanted in (first, first[:8]):
        world.run(*restore, "--snapshot", wanted)
        assert (world.folder / "out").read_bytes() == world.images["a"]
        (world.folder / "out").unlink()
