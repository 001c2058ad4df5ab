"""Every system call of the store in a folder goes wrong once, in every way, and the process dies at each."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from coeval.repository import direct
from coeval.repository.errors import DataPlaneError, ObjectMissing, RepositoryFull, RepositoryUnreachable
from coeval.repository.file_store import FileStore
from coeval.repository.store import CONFIG_NAME, Kind

from tests.tools.syscalls import Syscalls, dies, faults, in_child

NAME, OTHER = "ab" * 32, "cd" * 32
PARTS = [b"first" * 1000, b"", b"second part" * 1000]
WHOLE = b"".join(PARTS)


@pytest.fixture(autouse=True, params=["through the cache", "around the cache"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Objects are written as small ones are, or in several pieces as large ones are."""
    if request.param == "around the cache":
        monkeypatch.setattr(direct, "AT_ONCE", 2 * direct.BLOCK)
    return str(request.param)


@dataclass(frozen=True)
class Operation:
    """What is done to a store in which OTHER is there in every kind, and an old leaving in tmp/."""

    run: Callable[[FileStore], object]
    saved: tuple[Kind, str] | None = None
    removed: bool = False


OPERATIONS = {
    "save a pack": Operation(lambda s: s.save(Kind.PACK, NAME, PARTS), (Kind.PACK, NAME)),
    "save an index": Operation(lambda s: s.save(Kind.INDEX, NAME, PARTS), (Kind.INDEX, NAME)),
    "create the config": Operation(
        lambda s: s.create(Kind.CONFIG, CONFIG_NAME, PARTS), (Kind.CONFIG, CONFIG_NAME)
    ),
    "load": Operation(lambda s: s.load(Kind.INDEX, OTHER)),
    "load a range": Operation(lambda s: s.load_range(Kind.PACK, OTHER, 2, 5)),
    "list packs": Operation(lambda s: list(s.entries(Kind.PACK))),
    "list the config": Operation(lambda s: list(s.entries(Kind.CONFIG))),
    "remove": Operation(lambda s: s.remove(Kind.SNAPSHOT, OTHER), removed=True),
    "sweep": Operation(lambda s: s.sweep()),
}


def fresh(folder: Path) -> FileStore:
    store = FileStore(str(folder))
    for kind in (Kind.PACK, Kind.INDEX, Kind.SNAPSHOT):
        store.save(kind, OTHER, PARTS)
    leaving = folder / "tmp/1-leaving"
    leaving.write_bytes(b"half")
    os.utime(leaving, (time.time() - 25 * 3600,) * 2)
    return store


def content(store: FileStore, kind: Kind, name: str) -> bytes | None:
    try:
        return store.load(kind, name)
    except ObjectMissing:
        return None


def sound(store: FileStore, operation: Operation, *, done: bool) -> None:
    """What is there is whole; nothing else has gone; a finished operation has had its effect."""
    if operation.saved:
        assert content(store, *operation.saved) in ({WHOLE} if done else {WHOLE, None})
        kind, name = operation.saved
        if content(store, kind, name) is not None:
            assert (name, len(WHOLE)) in list(store.entries(kind))
    others = [Kind.PACK, Kind.INDEX] if operation.removed else [Kind.PACK, Kind.INDEX, Kind.SNAPSHOT]
    assert all(content(store, kind, OTHER) == WHOLE for kind in others)
    if operation.removed and done:
        assert content(store, Kind.SNAPSHOT, OTHER) is None


def calls(folder: Path, operation: Operation) -> list[str]:
    store = fresh(folder)
    with Syscalls() as counted:
        operation.run(store)
    return counted.names


@pytest.mark.parametrize("label", OPERATIONS)
def test_an_error_at_any_call_is_named_and_leaves_whole_objects_only(tmp_path: Path, label: str) -> None:
    operation = OPERATIONS[label]
    names = calls(tmp_path / "count", operation)
    assert names
    for number, name in enumerate(names):
        for fault, act in faults(name, full=errno.ENOSPC, broken=errno.EIO):
            store = fresh(tmp_path / f"{number}-{fault}")
            done = False
            try:
                with Syscalls(number, act):
                    operation.run(store)
                done = True
            except DataPlaneError as error:
                kind = RepositoryFull if "full" in fault else RepositoryUnreachable
                assert type(error) is kind and str(store.root) in str(error), f"{fault} of {name}: {error!r}"
            assert done == (fault == "short"), f"{fault} of {name} went by"
            sound(store, operation, done=done)
            leavings = {path.name for path in (store.root / "tmp").iterdir()} - {"1-leaving"}
            assert len(leavings) <= (name == "unlink"), f"{fault} of {name} left {leavings}"
            operation.run(store)
            sound(store, operation, done=True)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("label", ["save a pack", "save an index", "create the config", "remove", "sweep"])
def test_a_process_that_dies_at_any_call_leaves_whole_objects_only(
    tmp_path: Path, label: str, late: bool
) -> None:
    operation = OPERATIONS[label]
    for number in range(len(calls(tmp_path / "count", operation))):
        store = fresh(tmp_path / f"{number}")

        def run(number: int = number, store: FileStore = store) -> None:
            with Syscalls(number, dies(late=late)):
                operation.run(store)

        assert in_child(run) == 9
        sound(store, operation, done=False)
        operation.run(store)
        sound(store, operation, done=True)
        for path in (store.root / "tmp").iterdir():
            os.utime(path, (time.time() - 25 * 3600,) * 2)
        store.sweep()
        assert not list((store.root / "tmp").iterdir())


def test_content_is_durable_before_its_name_and_the_name_before_the_answer(tmp_path: Path, way: str) -> None:
    for label in ("save a pack", "save an index", "create the config"):
        names = [name for name in calls(tmp_path / label, OPERATIONS[label]) if name != "stat"]
        write = "writev" if "through" in way else "pwrite"
        written, named = names.index(write), names.index("link" if "create" in label else "rename")
        assert "fsync" in names[written:named], "content that a power cut takes would have a name"
        assert "fsync" in names[named:], "an acknowledged name that a power cut takes"
        assert names[named:].index("fsync") < names[named:].index("unlink")
