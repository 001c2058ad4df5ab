"""Damage of every kind, in every part of every object: found, named, exit 3; what it spares comes out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from coeval.repository.crypto import hash_id
from coeval.repository.pack import BlobType, read_header
from coeval.repository.repository import Repository
from coeval.repository.store import CONFIG_NAME, Kind

from tests.tools.faults import run_on
from tests.tools.repositories import PASSWORD, MemoryStore, new_repository

MIB = 1 << 20
T1 = "2026-01-01T00:00:00Z"
Name = tuple[Kind, str]


@dataclass
class World:
    """A repository with a volume in each of two snapshots, which share nothing."""

    folder: Path
    store: MemoryStore
    images: dict[str, bytes]
    snapshots: dict[str, str]
    objects: dict[tuple[str, str], Name]
    """(volume or "all", what) → the object."""

    def run(self, *words: str, code: int | None = 0) -> dict[str, Any]:
        return run_on(self.store, self.folder / "password", list(words), code)

    def verify(self, volume: str, *more: str, code: int | None = 0) -> str:
        done = self.run("verify", "--snapshot", self.snapshots[volume], *more, code=code)
        return str(done["error"]["message"]) if "error" in done else ""

    def restore(self, volume: str, code: int | None = 0) -> str:
        """Restore; whatever comes of it, never wrong bytes."""
        target = self.folder / "out"
        words = ["--snapshot", self.snapshots[volume], "--name", volume, "--target", str(target)]
        done = self.run("volume", "restore", *words, code=code)
        if "error" in done:
            assert not target.exists()
            return str(done["error"]["message"])
        assert target.read_bytes() == self.images[volume]
        target.unlink()
        return ""


def build(folder: Path) -> World:
    (folder / "password").write_text(PASSWORD)
    store = MemoryStore()
    repository = new_repository(store)
    generator = random.Random(1)  # noqa: S311
    world = World(folder, store, {}, {}, {})
    for volume in "ab":
        world.images[volume] = generator.randbytes(MIB) + volume.encode() * MIB + generator.randbytes(MIB + 7)
        (folder / volume).write_bytes(world.images[volume])
        before = set(store.objects)
        words = ("--name", volume, "--source", str(folder / volume), "--as-of", T1)
        world.snapshots[volume] = world.run("volume", "copy", *words)["snapshot"]
        for kind, name in set(store.objects) - before:
            what = kind.value
            if kind is Kind.PACK:
                first = read_header(repository.key, store.objects[kind, name])[0][0]
                what = f"{first.name.lower()} pack"
            world.objects[volume, what] = (kind, name)
    [key] = [(kind, name) for kind, name in store.objects if kind is Kind.KEY]
    lock = repository.save_file(
        Kind.LOCK, b'{"time":"2999-01-01T00:00:00Z","exclusive":false,"hostname":"elsewhere","pid":1}'
    )
    more: dict[str, Name] = {"key": key, "config": (Kind.CONFIG, CONFIG_NAME), "lock": (Kind.LOCK, lock)}
    world.objects |= {("all", what): name for what, name in more.items()}
    return world


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


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


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
        assert name in world.verify("a", code=3), label
        message = world.restore("a", code=None)
        # A restore does not need a pack's header. All else that it meets is named.
        unread = what.endswith("pack") and ("header" in label or "last byte" in label or "more" in label)
        assert (name in message) or unread, label
        assert world.verify("b", code=None) == "" or (what == "index" and name in world.verify("b", code=3))
        world.restore("b")


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
    for what, reason in (("key", "WrongPassword"), ("config", "RepositoryNotFound")):
        del world.store.objects[world.objects["all", what]]
        assert world.run("verify", "--snapshot", "latest", code=1)["error"]["reason"] == reason
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
