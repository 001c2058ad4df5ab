"""Every store call of every data command goes wrong once, in every way: nothing acknowledged is ever lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from coeval.repository import lock, repository
from coeval.repository.file_store import FileStore
from coeval.repository.store import Kind
from coeval.repository.writer import BlobWriter

from tests.tools.faults import REPLACED, T1, Call, Fault, FaultyStore, Story, judge, run_on
from tests.tools.repositories import CHEAP, PASSWORD, MemoryStore
from tests.tools.restic import Restic

Objects = dict[tuple[Kind, str], bytes]
JUDGED: dict[frozenset[tuple[Kind, str]], set[str]] = {}
LABELS = [label for label, _ in Story.commands(Story.__new__(Story))]


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "SETTLE_SECONDS", 0.0)
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(repository, "ScryptCost", lambda: CHEAP)
        # A pack for every chunk: more calls that can go wrong, and more that a second run can use again.
        patch.setattr(BlobWriter, "__init__", partialmethod(BlobWriter.__init__, pack_size=1))
        yield


@dataclass
class Step:
    """A command, the store before it, and the snapshots that the commands before it gave."""

    words: list[str]
    before: Objects
    snapshots: dict[str, str]
    calls: list[Call]
    packed: int


@dataclass
class Told:
    story: Story
    password: Path
    steps: dict[str, Step]

    def run(self, words: list[str], store: FaultyStore, code: int | None = 0) -> dict[str, Any]:
        return run_on(store, self.password, words, code)


@pytest.fixture(scope="module")
def told(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("story")
    (folder / "password").write_text(PASSWORD)
    story = Story(folder)
    told = Told(story, folder / "password", {})
    store, snapshots = MemoryStore(), dict[str, str]()
    for label, words in story.commands():
        before, counting = dict(store.objects), FaultyStore(store)
        step = Step(words(snapshots), before, dict(snapshots), counting.calls, 0)
        done = told.run(step.words, counting)
        step.packed = counting.packed
        told.steps[label] = step
        snapshots[label] = str(done.get("snapshot", ""))
    judge(store, story.images)
    return told


def memory(objects: Objects) -> MemoryStore:
    store = MemoryStore()
    store.objects = dict(objects)
    return store


def count(store: MemoryStore, wanted: Kind) -> int:
    return sum(kind is wanted for kind, _ in store.objects)


def kept(label: str, step: Step, store: MemoryStore, images: dict[tuple[str, str], bytes]) -> set[str]:
    """Judge the store, and that no acknowledged snapshot is gone."""
    # Objects are write-once: the same names are the same repository.
    names = frozenset(store.objects)
    if names not in JUDGED:
        JUDGED[names] = judge(store, images)
    found = JUDGED[names]
    gone = {name for kind, name in step.before if kind is Kind.SNAPSHOT} - found
    if gone:
        assert gone <= {step.snapshots[of] for of in REPLACED.get(label, set())}
    return found


def restic_agrees(objects: Objects, folder: Path) -> None:
    """Let restic read everything that the runs of one command left, but for locks: our process is alive.

    Names are never the same in two runs, so that no run makes up for what another lacks.
    """
    files = FileStore(str(folder))
    for (kind, name), content in objects.items():
        if kind is not Kind.LOCK:
            files.save(kind, name, [content])
    Restic(folder, PASSWORD).check()


@pytest.mark.restic
@pytest.mark.parametrize("label", LABELS)
def test_a_call_that_goes_wrong_loses_nothing_and_the_next_run_ends_the_work(
    told: Told, tmp_path: Path, label: str
) -> None:
    step, images = told.steps[label], told.story.images
    packs = 0
    seen: Objects = {}
    for number, call in enumerate(step.calls):
        for fault in call.faults():
            store = memory(step.before)
            broken = FaultyStore(store, number, fault)
            first = told.run(step.words, broken, code=None)
            if (Kind.CONFIG, "config") in store.objects:
                found = kept(label, step, store, images)
                assert "error" in first or "snapshot" not in first or first["snapshot"] in found
            packs += count(store, Kind.PACK) > count(memory(step.before), Kind.PACK)
            seen = store.objects if label in ("init", "data") else seen | store.objects
            again = FaultyStore(store)
            second = told.run(step.words, again)
            found = kept(label, step, store, images)
            assert "snapshot" not in second or second["snapshot"] in found
            seen |= store.objects
            if fault is Fault.GONE:
                continue
            assert broken.packed + again.packed == step.packed, f"{fault} at {number}: stored again"
            # Where removing it failed, the lock stays until its process, which is this one, is gone.
            stuck = call == Call("remove", Kind.LOCK) and fault is Fault.BEFORE
            assert count(store, Kind.LOCK) == stuck
    restic_agrees(seen, tmp_path / "repository")
    if step.packed:
        assert packs > 3, "most faults came after the first pack"
    if label == "restore":
        assert told.story.target.read_bytes() == images[T1, "root"]
