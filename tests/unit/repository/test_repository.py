"""Opening, racing initialisers, blobs and the index, on a store in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import pytest
from coeval.repository.crypto import Bytes, Key
from coeval.repository.errors import (
    RepositoryDamaged,
    RepositoryFull,
    RepositoryNotFound,
    SnapshotNotFound,
    WrongPassword,
)
from coeval.repository.index import FILE_BLOBS
from coeval.repository.keys import ScryptCost, add_key
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.store import CONFIG_NAME, Kind
from coeval.repository.writer import BlobWriter

from tests.tools.repositories import CHEAP, PASSWORD, MemoryStore


def names(store: MemoryStore, kind: Kind) -> list[str]:
    return [name for found, name in store.objects if found is kind]


def test_nothing_there_and_wrong_password_are_told_apart(store: MemoryStore) -> None:
    with pytest.raises(RepositoryNotFound, match="repo init"):
        Repository.open(store, PASSWORD)
    Repository.init(store, PASSWORD, CHEAP)
    with pytest.raises(WrongPassword, match="--password-file"):
        Repository.open(store, "another")


@pytest.mark.parametrize("cost", [ScryptCost(2, 1, 1), ScryptCost(1024, 3, 2), ScryptCost(16, 8, 4)])
def test_a_key_of_any_cost_opens(store: MemoryStore, cost: ScryptCost) -> None:
    made, created = Repository.init(store, PASSWORD, cost)
    assert created
    assert Repository.open(store, PASSWORD).config == made.config


def test_of_two_initialisers_one_wins_and_the_other_leaves_nothing(store: MemoryStore) -> None:
    # Both stand before the config at the same time: each has seen none and has written its key.
    barrier = threading.Barrier(2)

    def meet(verb: str, kind: Kind, name: str) -> None:
        if verb == "create" and kind is Kind.CONFIG:
            barrier.wait(10)

    store.before = meet
    made: list[tuple[Repository, bool]] = []
    threads = [
        threading.Thread(target=lambda: made.append(Repository.init(store, PASSWORD, CHEAP)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created for _, created in made) == [False, True]
    assert made[0][0].key == made[1][0].key
    assert len(names(store, Kind.KEY)) == 1


def test_the_key_of_an_initialiser_that_died_is_passed_over_and_removed(store: MemoryStore) -> None:
    for _ in range(5):
        add_key(store, Key.random(), PASSWORD, CHEAP)
    made, created = Repository.init(store, PASSWORD, CHEAP)
    assert created
    for _ in range(5):
        add_key(store, Key.random(), PASSWORD, CHEAP)
    assert Repository.open(store, PASSWORD).key == made.key
    store.objects = dict(reversed(store.objects.items()))
    assert Repository.open(store, PASSWORD).key == made.key
    assert len(names(store, Kind.KEY)) == 1


def test_the_next_maker_goes_on_with_the_key_that_a_failed_one_left(store: MemoryStore) -> None:
    def full(verb: str, kind: Kind, name: str) -> None:
        if verb == "create" and kind is Kind.CONFIG:
            raise RepositoryFull("full")

    store.before = full
    with pytest.raises(RepositoryFull):
        Repository.init(store, PASSWORD, CHEAP)
    [left] = names(store, Kind.KEY)
    store.before = lambda verb, kind, name: None
    assert Repository.init(store, PASSWORD, CHEAP)[1]
    assert names(store, Kind.KEY) == [left], "a second key would send restic to the wrong one"


def test_two_makers_with_the_same_left_key_do_not_take_it_from_each_other(store: MemoryStore) -> None:
    add_key(store, Key.random(), PASSWORD, CHEAP)
    original = store.create

    def second(kind: Kind, name: str, parts: Sequence[Bytes]) -> bool:
        store.create = original  # type: ignore[method-assign]
        assert Repository.init(store, PASSWORD, CHEAP)[1]
        return original(kind, name, parts)

    store.create = second  # type: ignore[method-assign]
    opened, made = Repository.init(store, PASSWORD, CHEAP)
    assert not made and len(names(store, Kind.KEY)) == 1
    assert Repository.open(store, PASSWORD).config == opened.config


def test_a_repository_without_its_config_is_never_made_anew(
    repository: Repository, store: MemoryStore
) -> None:
    repository.save_file(Kind.SNAPSHOT, b"{}")
    del store.objects[Kind.CONFIG, CONFIG_NAME]
    with pytest.raises(RepositoryDamaged, match="config is missing"):
        Repository.init(store, PASSWORD, CHEAP)


def test_blobs_are_stored_once_and_read_back(repository: Repository, store: MemoryStore) -> None:
    texts = [os.urandom(1000), b"text " * 1000, bytes(1 << 16)]
    with repository.lock() as lock, BlobWriter(repository, lock, pack_size=2000) as writer:
        ids = [writer.store(BlobType.DATA, text) for text in texts * 3]
        tree = writer.store(BlobType.TREE, b'{"nodes":[]}\n')
        writer.flush()
    assert len(set(ids)) == 3
    fresh = Repository.open(store, PASSWORD)
    assert [fresh.load_blob(BlobType.DATA, blob_id) for blob_id in ids[:3]] == texts
    assert fresh.load_tree(tree) == []
    assert len(fresh.index) == 4
    with pytest.raises(RepositoryDamaged, match="in no index"):
        fresh.load_blob(BlobType.DATA, tree)
    with fresh.lock() as lock, BlobWriter(fresh, lock) as writer:
        writer.store(BlobType.DATA, texts[0])
        writer.flush()
        assert writer.bytes_added == 0
    assert len(names(store, Kind.INDEX)) == 1, "nothing new, nothing written"


def test_threads_that_meet_the_same_blob_store_it_once(repository: Repository, store: MemoryStore) -> None:
    text = os.urandom(50_000)
    with repository.lock() as lock, BlobWriter(repository, lock) as writer:
        barrier = threading.Barrier(8)

        def run() -> None:
            barrier.wait(10)
            writer.store(BlobType.DATA, text)

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.flush()
        assert writer.bytes_added < 51_000


def test_a_failing_upload_reaches_the_writer_and_nothing_is_listed(
    repository: Repository, store: MemoryStore
) -> None:
    def full(verb: str, kind: Kind, name: str) -> None:
        if kind is Kind.PACK and verb == "save":
            raise RepositoryFull("no space")

    store.before = full
    with (
        pytest.raises(RepositoryFull),
        repository.lock() as lock,
        BlobWriter(repository, lock, pack_size=1000) as writer,
    ):
        for _ in range(100):
            writer.store(BlobType.DATA, os.urandom(600))
        writer.flush()
    assert not names(store, Kind.INDEX)
    assert not names(store, Kind.LOCK)


def test_a_sound_copy_makes_up_for_a_damaged_one(store: MemoryStore) -> None:
    text = os.urandom(5000)
    first = Repository.init(store, PASSWORD, CHEAP)[0]
    second = Repository.open(store, PASSWORD)
    second.index  # noqa: B018  (read before the first writes, as a second mover's is)
    for repository in (first, second):
        with repository.lock() as lock, BlobWriter(repository, lock) as writer:
            blob_id = writer.store(BlobType.DATA, text)
            writer.flush()
    packs = names(store, Kind.PACK)
    assert len(packs) == 2
    store.objects[Kind.PACK, packs[0]] = bytes(len(store.objects[Kind.PACK, packs[0]]))
    assert Repository.open(store, PASSWORD).load_blob(BlobType.DATA, blob_id) == text
    del store.objects[Kind.PACK, packs[1]]
    with pytest.raises(RepositoryDamaged, match=f"{packs[0]}|{packs[1]}"):
        Repository.open(store, PASSWORD).load_blob(BlobType.DATA, blob_id)


def test_superseded_index_files_do_not_count(repository: Repository, store: MemoryStore) -> None:
    with repository.lock() as lock, BlobWriter(repository, lock) as writer:
        blob_id = writer.store(BlobType.DATA, b"once")
        writer.flush()
    [old] = names(store, Kind.INDEX)
    repository.save_file(Kind.INDEX, b'{"supersedes":["%s"],"packs":[]}' % old.encode())
    assert not Repository.open(store, PASSWORD).index.has(BlobType.DATA, blob_id)


def test_a_long_run_writes_several_index_files(
    repository: Repository, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FILE_BLOBS == 50_000
    monkeypatch.setattr("coeval.repository.writer.FILE_BLOBS", 10)
    with repository.lock() as lock, BlobWriter(repository, lock, pack_size=300) as writer:
        ids = [writer.store(BlobType.DATA, os.urandom(90)) for _ in range(95)]
        writer.flush()
    assert len(names(store, Kind.INDEX)) >= 5
    fresh = Repository.open(store, PASSWORD).index
    assert all(fresh.has(BlobType.DATA, blob_id) for blob_id in ids)


def test_snapshot_ids_may_be_shortened_unless_ambiguous(repository: Repository) -> None:
    with pytest.raises(SnapshotNotFound, match="restic snapshots"):
        repository.snapshot("ab")
    with pytest.raises(SnapshotNotFound):
        repository.snapshot("")


def test_neighbours_are_read_by_one_request(repository: Repository, store: MemoryStore) -> None:
    texts = [bytes([number]) * 1000 + os.urandom(500) for number in range(5)]
    with repository.lock() as lock, BlobWriter(repository, lock) as writer:
        ids = [writer.store(BlobType.DATA, text) for text in texts]
        writer.flush()
    fresh = Repository.open(store, PASSWORD)
    wanted = [(blob_id, fresh.index.find(BlobType.DATA, blob_id)[0]) for blob_id in ids]
    reads: list[str] = []
    store.before = lambda verb, kind, name: reads.append(name) if kind is Kind.PACK else None
    assert list(fresh.load_near(BlobType.DATA, wanted[::-1])) == texts[::-1]
    assert len(reads) == 1

    pack = (Kind.PACK, reads[0])
    content = bytearray(store.objects[pack])
    content[wanted[2][1].offset + 20] ^= 1
    store.objects[pack] = bytes(content)
    assert list(fresh.load_near(BlobType.DATA, wanted[:2])) == texts[:2], "its neighbours are sound"
    with pytest.raises(RepositoryDamaged, match=ids[2].hex()):
        list(fresh.load_near(BlobType.DATA, wanted))
    del store.objects[pack]
    with pytest.raises(RepositoryDamaged, match=reads[0]):
        list(fresh.load_near(BlobType.DATA, wanted))
