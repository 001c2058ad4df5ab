"""`verify --repair`: a damaged chunk that the source still has is whole again after the next backup."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from coeval.repository.errors import RepositoryDamaged, RepositoryLocked
from coeval.repository.file_store import FileStore
from coeval.repository.pack import BlobType, read_header
from coeval.repository.repair import unlist_packs
from coeval.repository.repository import Repository
from coeval.repository.store import Kind

from tests.tools.damaged import MIB, T1, World, build, flip
from tests.tools.faults import FaultyStore, run_on
from tests.tools.repositories import PASSWORD, MemoryStore
from tests.tools.restic import Restic


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = build(tmp_path)
    del world.store.objects[world.objects["all", "lock"]]
    return world


def on_disk(world: World, folder: Path) -> Restic:
    """Write the repository out for restic."""
    files = FileStore(str(folder))
    for (kind, name), content in world.store.objects.items():
        files.save(kind, name, [content])
    return Restic(folder, PASSWORD)


def copy(world: World, volume: str, *more: str) -> dict[str, object]:
    return world.run("volume", "copy", "--name", volume, "--source", str(world.folder / volume), *more)


CHUNKS = 6


def ends(world: World) -> list[int]:
    """Where each chunk of the volume a ends in its pack; threads put them there in any order."""
    content = world.store.objects[world.objects["a", "data pack"]]
    header = read_header(Repository.open(world.store, PASSWORD).key, content)
    return [offset + length for _, _, offset, length, _ in header]


DAMAGES: dict[str, Callable[[World, bytes], tuple[bytes | None, int]]] = {
    "a bit of the first chunk": lambda world, whole: (flip(20)(whole), CHUNKS - 1),
    "a bit of the header": lambda world, whole: (flip(ends(world)[-1] + 20)(whole), CHUNKS),
    "the last two chunks cut": lambda world, whole: (whole[: ends(world)[CHUNKS - 3]], CHUNKS - 2),
    "all of it gone": lambda world, whole: (None, 0),
}
"""What to do to a pack; gives what is left of it, and the number of chunks that are still sound."""


@pytest.mark.restic
@pytest.mark.parametrize("label", DAMAGES)
@pytest.mark.parametrize("incremental", [False, True])
def test_the_next_backup_heals_and_restic_agrees(
    world: World, tmp_path: Path, label: str, incremental: bool
) -> None:
    key = world.objects["a", "data pack"]
    damaged, sound = DAMAGES[label](world, world.store.objects[key])
    if damaged is None:
        del world.store.objects[key]
    else:
        world.store.objects[key] = damaged
    before = set(world.store.objects)
    message = world.verify("a", "--repair", code=3)
    assert key[1] in message and f"saved: {sound}, lost: {CHUNKS - sound}" in message
    gone = before - set(world.store.objects)
    assert gone == {world.objects["a", "index"]}, "the pack stays, whatever is in it"
    assert ("in no index" in world.verify("a", code=None)) == (sound < CHUNKS)
    assert not world.verify("b") and not world.restore("b")

    ranges = world.folder / "ranges.json"
    ranges.write_text(json.dumps({"size": len(world.images["a"]), "ranges": []}))
    more = ("--parent", world.snapshots["a"], "--changed", str(ranges)) if incremental else ()
    done = copy(world, "a", "--as-of", T1, *more)
    assert ("in no index" in str(done.get("fallback"))) == (incremental and sound < CHUNKS)
    added = done["bytes_added"]
    assert isinstance(added, int) and added < (CHUNKS - sound) * 1.1 * MIB + 1000, "what was sound was saved"
    for volume in "ab":
        assert not world.verify(volume) and not world.restore(volume)
    restic = on_disk(world, tmp_path / "repository")
    restic.check()
    restic.run("prune", "--max-unused", "0")
    restic.check()
    assert damaged is None or not (tmp_path / "repository/data" / key[1][:2] / key[1]).exists()
    assert restic.run("dump", world.snapshots["a"], "/disks/a/disk.img") == world.images["a"]


def test_a_damaged_folder_heals_by_the_same_copy_again(world: World) -> None:
    key = world.objects["a", "tree pack"]
    world.store.objects[key] = bytes(len(world.store.objects[key]))
    assert "lost: 3" in world.verify("a", "--repair", code=3)
    copy(world, "a", "--as-of", T1)
    assert not world.verify("a") and not world.restore("a")


def test_a_sample_finds_and_repairs_too(world: World) -> None:
    key = world.objects["a", "data pack"]
    world.store.objects[key] = flip(100)(world.store.objects[key])
    assert f"saved: {CHUNKS - 1}, lost: 1" in world.verify("a", "--sample", "1%", "--repair", code=3)


def test_nothing_is_touched_where_nothing_is_damaged(world: World) -> None:
    before = dict(world.store.objects)
    world.verify("a", "--repair")
    assert world.store.objects == before


def test_a_pack_that_reads_well_the_second_time_is_left_alone(world: World) -> None:
    """The first reading may have been damaged on its way: nothing is unlisted on doubt."""
    kind, name = world.objects["a", "data pack"]
    whole = world.store.objects[kind, name]
    reads = 0

    def once(verb: str, found: Kind, asked: str) -> None:
        nonlocal reads
        if (verb, asked) == ("load", name):
            reads += 1
            world.store.objects[kind, name] = flip(50)(whole) if reads == 1 else whole

    world.store.before = once
    message = world.verify("a", "--repair", code=3)
    assert "no longer listed: 0" in message
    world.store.before = lambda verb, kind, name: None
    assert world.objects["a", "index"] in world.store.objects
    assert not world.verify("a")


def test_others_keep_a_repair_from_its_work_but_not_the_verify_before_it(world: World) -> None:
    key = world.objects["a", "data pack"]
    world.store.objects[key] = flip(100)(world.store.objects[key])
    before = dict(world.store.objects)
    repository = Repository.open(world.store, PASSWORD)
    with repository.lock():
        message = world.verify("a", "--repair", code=3)
        assert key[1] in message and "; not repaired: the repository is locked by pid" in message
        world.verify("b", "--repair")
    assert world.store.objects == before
    with repository.lock(exclusive=True):
        assert "locked exclusively" in world.verify("a", code=1)
        assert "locked exclusively" in world.verify("a", "--repair", code=1)
        with pytest.raises(RepositoryLocked), repository.lock(exclusive=True):
            pass
    assert world.store.objects == before
    assert "no longer listed: 1" in world.verify("a", "--repair", code=3)


def test_what_somebody_else_repaired_in_between_is_left_alone(world: World) -> None:
    """Between the verify and the repair nobody is kept out, so that the repair looks at everything again."""
    key = world.objects["a", "data pack"]
    world.store.objects[key] = flip(100)(world.store.objects[key])
    snapshots: list[dict[tuple[Kind, str], bytes]] = []

    def meanwhile(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind) == ("remove", Kind.LOCK) and not snapshots:
            world.store.before = lambda verb, kind, name: None
            repository = Repository.open(world.store, PASSWORD)
            found = world.store.objects.pop((kind, name))
            with repository.lock(exclusive=True) as lock:
                assert unlist_packs(repository, lock, [bytes.fromhex(key[1])]).lost == 1
            snapshots.append(dict(world.store.objects))
            world.store.objects[kind, name] = found

    world.store.before = meanwhile
    message = world.verify("a", "--repair", code=3)
    assert "no longer listed: 0, blobs in them that were saved: 0, lost: 0" in message
    assert [world.store.objects] == snapshots


@pytest.mark.restic
def test_restic_honours_our_exclusive_lock(world: World, tmp_path: Path) -> None:
    restic = on_disk(world, tmp_path / "repository")
    with Repository.open(FileStore(str(tmp_path / "repository")), PASSWORD).lock(exclusive=True):
        refused = restic.attempt("snapshots")
        assert refused.returncode and b"locked exclusively" in refused.stderr
    restic.run("snapshots")


def faults(world: World, words: list[str]) -> Iterator[tuple[MemoryStore, FaultyStore]]:
    counting = FaultyStore(memory(world.store.objects))
    run_on(counting, world.folder / "password", words, code=3)
    for number, call in enumerate(counting.calls):
        for fault in call.faults():
            store = memory(world.store.objects)
            yield store, FaultyStore(store, number, fault)


def memory(objects: dict[tuple[Kind, str], bytes]) -> MemoryStore:
    store = MemoryStore()
    store.objects = dict(objects)
    return store


def readable(world: World) -> set[tuple[BlobType, bytes]]:
    """Give every blob that the index leads to and that is sound."""
    repository = Repository.open(world.store, PASSWORD)
    listed = {
        (entry.type, blob[0])
        for name in repository.names(Kind.INDEX)
        for entry in repository.load_index(name)[0]
        for blob in entry.blobs
    }
    found = set()
    for kind, blob_id in listed:
        with suppress(RepositoryDamaged):
            repository.load_blob(kind, blob_id)
            found.add((kind, blob_id))
    return found


def test_a_repair_that_fails_at_any_call_loses_nothing_and_is_done_again(world: World) -> None:
    key = world.objects["a", "data pack"]
    world.store.objects[key] = flip(100)(world.store.objects[key])
    damaged = dict(world.store.objects)
    sound = readable(world)
    assert len(sound) == 2 * (CHUNKS + 3) - 1
    # Runs that left the same number of objects of every kind left the same: one of each is gone on from.
    words = ["verify", "--snapshot", world.snapshots["a"], "--repair"]
    states = set()
    for store, broken in list(faults(world, words)):
        run_on(broken, world.folder / "password", words, code=None)
        # Our own lock may be left, as we are alive; the next run is another process's.
        world.store = memory({name: c for name, c in store.objects.items() if name[0] is not Kind.LOCK})
        state = tuple(sum(found is kind for found, _ in world.store.objects) for kind in Kind)
        if state in states:
            continue
        states.add(state)
        lost = {name for name in damaged if name not in world.store.objects}
        assert {kind for kind, _ in lost} <= {Kind.INDEX}
        assert readable(world) == sound, "what was sound can be read at any moment"
        assert not world.verify("b") and not world.restore("b")
        assert world.restore("a", code=3)
        world.verify("a", "--repair", code=3)
        copy(world, "a", "--as-of", T1)
        for volume in "ab":
            assert not world.verify(volume) and not world.restore(volume)
        world.store = memory(damaged)
    assert len(states) >= 4, "as it was, with the new pack, with its index, without the old one"
