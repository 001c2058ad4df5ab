"""Damage of every kind, in every part of every object: found, named, exit 3; what it spares comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from coeval.repository.crypto import hash_id
from coeval.repository.pack import BlobType, read_header
from coeval.repository.repository import Repository
from coeval.repository.store import Kind

from tests.tools.damaged import World, build, flip
from tests.tools.repositories import PASSWORD


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coeval.repository.lock.SETTLE_SECONDS", 0.0)
        return build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(built: World) -> Iterator[World]:
    whole = dict(built.store.objects)
    yield built
    built.store.objects = whole


def sealed(begin: int, end: int) -> dict[str, int]:
    """Name the places of a sealed message between two offsets."""
    return {"nonce": begin, "last of nonce": begin + 15, "ciphertext": (begin + end) // 2, "tag": end - 1}


def regions(world: World, owner: str, what: str) -> dict[str, int]:
    """Name an offset in every class of region of an object."""
    content = world.store.objects[world.objects[owner, what]]
    if "pack" not in what:
        return sealed(0, len(content)) | {"first of tag": len(content) - 16}
    repository = Repository.open(world.store, PASSWORD)
    places: dict[str, int] = {}
    entries = read_header(repository.key, content)
    for kind, _, offset, length, raw_length in entries:
        label = f"{kind.name.lower()} {'compressed' if raw_length else 'plain'}"
        places |= {f"{label}: {n}": at for n, at in sealed(offset, offset + length).items()}
    end = entries[-1][2] + entries[-1][3]
    places |= {f"header: {n}": at for n, at in sealed(end, len(content) - 4).items()}
    return places | {"header length": len(content) - 4, "last byte": len(content) - 1}


def damages(world: World, owner: str, what: str) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    for label, at in regions(world, owner, what).items():
        yield f"a bit of {label}", flip(at)
    yield "the last byte cut", lambda content: content[:-1]
    yield "cut to half", lambda content: content[: len(content) // 2]
    yield "cut to nothing", lambda content: b""
    yield "a byte more", lambda content: content + b"x"


PER_VOLUME = ["data pack", "tree pack", "index", "snapshots"]


@pytest.mark.parametrize("what", PER_VOLUME)
def test_a_volumes_damaged_object_is_named_and_the_other_volume_comes_out(world: World, what: str) -> None:
    kind, name = world.objects["a", what]
    whole = world.store.objects[kind, name]
    kinds = {label.partition(":")[0] for label in regions(world, "a", what)}
    if what == "data pack":
        assert {"data plain", "data compressed", "header", "header length"} <= kinds
    for label, damage in damages(world, "a", what):
        world.store.objects[kind, name] = damage(whole)
        found = world.verify("a", code=3)
        assert name in found, label
        # It is told which volume is not whole, unless nothing of it is lost, or the snapshot is unknown.
        whole_still = what == "snapshots" or "header" in label or "more" in label or "last byte" in label
        assert whole_still or "cannot be read in full: " in found, label
        message = world.restore("a", code=None)
        # A restore does not need a pack's header. All else that it meets is named.
        unread = what.endswith("pack") and ("header" in label or "last byte" in label or "more" in label)
        assert (name in message) or unread, label
        assert world.verify("b", code=None) == "" or (what == "index" and name in world.verify("b", code=3))
        world.restore("b")


def test_a_damaged_snapshot_stops_no_other_backup(world: World) -> None:
    del world.store.objects[world.objects["all", "lock"]]
    kind, name = world.objects["a", "snapshots"]
    world.store.objects[kind, name] = flip(30)(world.store.objects[kind, name])
    done = world.run("commit", "--snapshot", world.snapshots["b"], "--tag", "backup=ns/b")
    assert name in done["passed_over"][0]
    forgotten = world.run("repo", "forget", "--tag", "backup=ns/b")
    assert forgotten["forgotten"] == [done["snapshot"]] and name in forgotten["passed_over"][0]
    # It may be the newest: nobody is given an older one for it unasked.
    assert name in world.run("verify", "--snapshot", "latest", code=3)["error"]["message"]
    assert name in world.run("commit", "--snapshot", world.snapshots["a"], code=3)["error"]["message"]


@pytest.mark.parametrize("what", ["key", "config", "lock"])
def test_damage_of_what_all_share_is_named(world: World, what: str) -> None:
    kind, name = world.objects["all", what]
    whole = world.store.objects[kind, name]
    for label, damage in damages(world, "all", what):
        world.store.objects[kind, name] = damage(whole)
        for message in (world.verify("a", code=3), world.restore("a", code=3)):
            assert name in message, label


@pytest.mark.parametrize(
    ("what", "reason", "code"),
    [
        ("data pack", "RepositoryDamaged", 3),
        ("tree pack", "RepositoryDamaged", 3),
        ("index", "RepositoryDamaged", 3),
        ("snapshots", "SnapshotNotFound", 1),  # nothing tells it from one that was forgotten
    ],
)
def test_a_removed_object_is_missed(world: World, what: str, reason: str, code: int) -> None:
    kind, name = world.objects["a", what]
    del world.store.objects[kind, name]
    error = world.run("verify", "--snapshot", world.snapshots["a"], code=code)["error"]
    assert error["reason"] == reason
    assert name in error["message"] or "in no index" in error["message"]
    assert world.restore("a", code=code)
    world.verify("b")
    world.restore("b")


def test_without_key_or_config_nothing_opens(world: World) -> None:
    whole = dict(world.store.objects)
    for what, reason, code in (("key", "WrongPassword", 1), ("config", "RepositoryDamaged", 3)):
        del world.store.objects[world.objects["all", what]]
        assert world.run("verify", "--snapshot", "latest", code=code)["error"]["reason"] == reason
        # Nor is a new repository made over what is there.
        error = world.run("repo", "init", "--if-absent", code=None)["error"]
        assert error["reason"] in ("WrongPassword", "RepositoryDamaged")
        world.store.objects = dict(whole)


@pytest.mark.parametrize("what", PER_VOLUME)
def test_two_objects_that_changed_places_are_found_out(world: World, what: str) -> None:
    first, second = world.objects["a", what], world.objects["b", what]
    objects = world.store.objects
    objects[first], objects[second] = objects[second], objects[first]
    for volume, (_, name) in (("a", first), ("b", second)):
        assert name in world.verify(volume, code=3)
        assert world.restore(volume, code=3)


def test_a_damaged_pack_under_the_name_of_its_damaged_content_is_found_out(world: World) -> None:
    """The hash of the file fits: only authentication tells."""
    repository = Repository.open(world.store, PASSWORD)
    content = flip(100)(world.store.objects.pop(world.objects["a", "data pack"]))
    place = world.objects["a", "data pack"][1]
    forged = hash_id(content).hex()
    world.store.objects[Kind.PACK, forged] = content
    text = repository.load_file(Kind.INDEX, world.objects["a", "index"][1])
    del world.store.objects[world.objects["a", "index"]]
    repository.save_file(Kind.INDEX, text.replace(place.encode(), forged.encode()))
    message = world.verify("a", code=3)
    assert forged in message and "authentication" in message
    assert BlobType.DATA.name.lower() in message
    assert forged in world.restore("a", code=3)
