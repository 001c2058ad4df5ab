"""What every store must do: one in a folder, the tests' own in memory, object stores on real servers."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from coeval.repository.errors import ObjectMissing, RepositoryDamaged
from coeval.repository.file_store import FileStore
from coeval.repository.probe import prove
from coeval.repository.store import CONFIG_NAME, Kind, Store

from tests.tools.azurite import Azurite
from tests.tools.gcs_front import GcsFront
from tests.tools.repositories import MemoryStore
from tests.tools.server_fixtures import open_bucket
from tests.tools.servers import S3Server

SCHEMES = {"azurite": "az", "gcs": "gs"}
NAME, OTHER = "ab" * 32, "cd" * 32
T = TypeVar("T")


@pytest.fixture(params=["file", "memory", "versitygw", "moto", "azurite", "gcs"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store of each kind."""
    if request.param == "file":
        return FileStore(str(tmp_path / "repository"))
    if request.param == "memory":
        return MemoryStore()
    server: S3Server | Azurite | GcsFront = request.getfixturevalue(f"{request.param}_server")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return open_bucket(server.bucket(), scheme=SCHEMES.get(request.param, "s3"))


def side_by_side(count: int, action: Callable[[int], T]) -> list[T]:
    """Run an action in several threads at once; give their results."""
    results: list[T] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait(10)
        results.append(action(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    return results


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.CONFIG])
def test_what_is_saved_is_loaded_and_listed(any_store: Store, kind: Kind) -> None:
    assert list(any_store.entries(kind)) == []
    any_store.save(kind, NAME, [b"a", b"", memoryview(b"bc"), bytearray(b"d")])
    any_store.save(kind, OTHER, [])
    assert any_store.load(kind, NAME) == b"abcd"
    assert any_store.load(kind, OTHER) == b""
    assert sorted(any_store.entries(kind)) == [(NAME, 4), (OTHER, 0)]
    assert all(not list(any_store.entries(other)) for other in Kind if other is not kind)
    any_store.save(kind, NAME, [b"again"])
    assert any_store.load(kind, NAME) == b"again"
    any_store.remove(kind, NAME)
    any_store.remove(kind, NAME)
    assert list(any_store.entries(kind)) == [(OTHER, 0)]
    with pytest.raises(ObjectMissing, match=f"{kind.value}/{NAME}"):
        any_store.load(kind, NAME)


def test_the_config_is_one_object_made_once(any_store: Store) -> None:
    with pytest.raises(ObjectMissing, match="config"):
        any_store.load(Kind.CONFIG, CONFIG_NAME)
    assert list(any_store.entries(Kind.CONFIG)) == []
    assert any_store.create(Kind.CONFIG, CONFIG_NAME, [b"one", b"!"])
    for content in (b"two!", b"one!"):
        assert not any_store.create(Kind.CONFIG, CONFIG_NAME, [content]), "the same content, too, was there"
    assert any_store.load(Kind.CONFIG, CONFIG_NAME) == b"one!"
    assert list(any_store.entries(Kind.CONFIG)) == [(CONFIG_NAME, 4)]
    any_store.remove(Kind.CONFIG, CONFIG_NAME)
    assert any_store.create(Kind.CONFIG, CONFIG_NAME, [b"two!"])


# Not moto: it looks for the object, then writes; of 450 rounds like these two had two winners.
@pytest.mark.parametrize("any_store", ["file", "memory", "versitygw", "azurite"], indirect=True)
def test_only_one_of_many_creates(any_store: Store) -> None:
    for round_ in range(5):
        name = f"{round_:064x}"

        def create(number: int, name: str = name) -> tuple[int, bool]:
            return number, any_store.create(Kind.INDEX, name, [b"%d" % number])

        winners = [number for number, created in side_by_side(8, create) if created]
        assert len(winners) == 1, f"round {round_}"
        assert any_store.load(Kind.INDEX, name) == b"%d" % winners[0]


def test_ranges_are_exact_or_the_object_is_truncated(any_store: Store) -> None:
    with pytest.raises(ObjectMissing, match=f"data/{NAME}"):
        any_store.load_range(Kind.PACK, NAME, 0, 1)
    any_store.save(Kind.PACK, NAME, [b"0123456789"])
    for offset, length in ((0, 10), (0, 1), (2, 8), (9, 1)):
        assert (
            any_store.load_range(Kind.PACK, NAME, offset, length) == b"0123456789"[offset : offset + length]
        )
    for offset, length in ((3, 8), (10, 1), (99, 5)):
        with pytest.raises(RepositoryDamaged, match=f"data/{NAME} is truncated"):
            any_store.load_range(Kind.PACK, NAME, offset, length)


def test_large_objects_are_whole(any_store: Store) -> None:
    source = random.Random(1)  # noqa: S311
    parts = [source.randbytes(1_000_003) for _ in range(12)]
    any_store.save(Kind.PACK, NAME, parts)
    whole = b"".join(parts)
    assert any_store.load(Kind.PACK, NAME) == whole
    assert (
        any_store.load_range(Kind.PACK, NAME, 7_654_321, 2_222_222)
        == whole[7_654_321 : 7_654_321 + 2_222_222]
    )
    assert list(any_store.entries(Kind.PACK)) == [(NAME, len(whole))]


def test_threads_do_not_disturb_each_other(any_store: Store) -> None:
    def work(number: int) -> bool:
        name = f"{number:064x}"
        any_store.save(Kind.PACK, name, [b"%d," % number * 50_000])
        same = any_store.load(Kind.PACK, name) == b"%d," % number * 50_000
        any_store.save(Kind.LOCK, name, [b"l"])
        any_store.remove(Kind.LOCK, name)
        return same

    assert all(side_by_side(8, work))
    assert len(list(any_store.entries(Kind.PACK))) == 8
    assert list(any_store.entries(Kind.LOCK)) == []


def test_nothing_young_is_swept_and_the_proof_leaves_nothing(any_store: Store) -> None:
    any_store.save(Kind.PROBE, NAME, [b"somebody's probe"])
    prove(any_store)
    assert any_store.sweep() == 0
    assert list(any_store.entries(Kind.PROBE)) == [(NAME, 16)]
