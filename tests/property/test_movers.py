"""Movers of one repository, any commands in any order, two at a time: what comes out is what a model says."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from coeval.mover.changes.sources import Given
from coeval.mover.commit import CommitJob, commit
from coeval.mover.errors import InterimSnapshot
from coeval.mover.progress import Progress
from coeval.mover.verify import verify
from coeval.mover.volumes import VolumeJob, copy_volume, retime_volume
from coeval.repository import lock
from coeval.repository.file_store import FileStore
from coeval.repository.lock import Lock
from coeval.repository.repository import Repository
from coeval.repository.snapshot import parse_go_time
from coeval.repository.store import Kind
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.tools.examples import examples
from tests.tools.faults import FaultyStore, T
from tests.tools.images import CHUNK, change, differences, opened, restored, write_image
from tests.tools.repositories import PASSWORD, MemoryStore, new_repository
from tests.tools.restic import Restic

LIMIT = 6 * CHUNK
VOLUMES = ["a", "b"]
BEGIN = parse_go_time("2026-01-01T00:00:00Z")
sizes = st.one_of(
    st.integers(0, LIMIT),
    st.builds(lambda n, d: max(0, n * CHUNK + d), st.integers(0, 6), st.sampled_from([-1, 0, 1])),
)
writes = st.lists(
    st.tuples(st.integers(0, LIMIT), st.integers(1, 2 * CHUNK), st.sampled_from([0, 1, 2, 255])), max_size=4
)


class Turns:
    """Lets two movers call the store one at a time, in a given order; then one mover after the other.

    So the same examples do the same: nothing that they come to depends on threads.
    """

    def __init__(self, order: Sequence[int]) -> None:
        self._order = list(order)
        self._running = {0, 1}
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, mover: int) -> Iterator[None]:
        with self._changed:
            while self._next() != mover:
                assert self._changed.wait(60), "the other mover neither calls nor ends"
            try:
                yield
            finally:
                if self._order:
                    self._order.pop(0)
                self._changed.notify_all()

    def end(self, mover: int) -> None:
        with self._changed:
            self._running.discard(mover)
            self._changed.notify_all()

    def _next(self) -> int:
        while self._order and self._order[0] not in self._running:
            self._order.pop(0)
        return self._order[0] if self._order else min(self._running)


class OrderedStore(FaultyStore):
    """The store as one of two movers sees it."""

    def __init__(self, inner: MemoryStore, turns: Turns, mover: int) -> None:
        super().__init__(inner)
        self._turns, self._mover = turns, mover

    def _call(self, verb: str, kind: Kind | None, effect: Callable[[], T]) -> T:
        with self._turns.turn(self._mover):
            return super()._call(verb, kind, effect)


@dataclass(frozen=True)
class Entry:
    """What the model knows of a snapshot."""

    state: str
    moment: datetime
    volumes: dict[str, bytes]
    joined: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Operation:
    """Something that a mover does, and how the model takes what came of it."""

    run: Callable[[Repository, Lock], dict[str, Any]]
    note: Callable[[dict[str, Any]], None]


class Movers(RuleBasedStateMachine):
    """See the module. `checked` counts the examples, of which restic judges some."""

    checked = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="coeval-movers-"))
        self.files = itertools.count()
        self.store = MemoryStore()
        new_repository(self.store)
        self.images = {volume: bytearray() for volume in VOLUMES}
        self.history: dict[str, list[bytes]] = {volume: [b""] for volume in VOLUMES}
        self.moment = BEGIN
        self.known: dict[str, Entry] = {}
        self.pruned = False

    def teardown(self) -> None:
        try:
            self.all_is_as_the_model_says()
            if next(self.checked) % 4 == 0:
                restic = self.on_disk()
                restic.check()
                for snapshot, entry in list(self.known.items())[-2:]:
                    for volume, content in entry.volumes.items():
                        assert restic.run("dump", snapshot, f"/disks/{volume}/disk.img") == content
        finally:
            shutil.rmtree(self.folder)

    def all_is_as_the_model_says(self) -> None:
        repository = Repository.open(self.store, PASSWORD)
        assert {snapshot.id for snapshot in repository.snapshots()} == set(self.known)
        assert not list(repository.names(Kind.LOCK))
        for snapshot in self.known:
            verify(repository, snapshot, 1.0, Progress())

    def on_disk(self) -> Restic:
        folder = self.folder / f"repository-{next(self.files)}"
        files = FileStore(str(folder))
        for (kind, name), content in self.store.objects.items():
            files.save(kind, name, [content])
        return Restic(folder, PASSWORD)

    # What guests and time do.

    @rule(volume=st.sampled_from(VOLUMES), size=st.one_of(st.none(), sizes), changes=writes)
    def write(self, volume: str, size: int | None, changes: list[tuple[int, int, int]]) -> None:
        image = self.images[volume]
        if size is not None:
            del image[size:]
            image.extend(bytes(size - len(image)))
        change(image, changes)
        self.history[volume].append(bytes(image))

    @rule()
    def time_passes(self) -> None:
        self.moment += timedelta(seconds=1)

    # What movers do.

    @rule(data=st.data())
    def one_mover(self, data: st.DataObject) -> None:
        operation = self.operation(data)
        repository = Repository.open(self.store, PASSWORD)
        with repository.lock() as held:
            operation.note(operation.run(repository, held))

    @rule(data=st.data(), order=st.lists(st.integers(0, 1), max_size=60))
    def two_movers(self, data: st.DataObject, order: list[int]) -> None:
        operations = [self.operation(data), self.operation(data)]
        turns = Turns(order)

        def run(mover: int) -> dict[str, Any]:
            try:
                repository = Repository.open(OrderedStore(self.store, turns, mover), PASSWORD)
                with repository.lock() as held:
                    return operations[mover].run(repository, held)
            finally:
                turns.end(mover)

        with ThreadPoolExecutor(2) as movers:
            done = [future.result(60) for future in [movers.submit(run, mover) for mover in (0, 1)]]
        # One that found the other's commit is told after it.
        for operation, result in sorted(
            zip(operations, done, strict=True), key=lambda pair: pair[1].get("already_committed", False)
        ):
            operation.note(result)

    @precondition(lambda self: len(self.known) > 1)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        snapshot = data.draw(st.sampled_from(sorted(self.known, key=self.order)))
        Repository.open(self.store, PASSWORD).forget(snapshot)
        del self.known[snapshot]

    @precondition(lambda self: len(self.known) > 2 and not self.pruned)
    @rule()
    def restic_prunes(self) -> None:
        self.pruned = True  # once is enough for a second of time
        restic = self.on_disk()
        restic.run("prune", "--max-unused", "0")
        files = FileStore(str(restic.repository))
        self.store.objects = {
            (kind, name): files.load(kind, name)
            for kind in Kind
            if kind is not Kind.PROBE
            for name, _ in files.entries(kind)
        }

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        snapshot = data.draw(st.sampled_from(sorted(self.known, key=self.order)))
        entry = self.known[snapshot]
        repository = Repository.open(self.store, PASSWORD)
        for volume, content in entry.volumes.items():
            if entry.state == "interim":
                with pytest.raises(InterimSnapshot):
                    restored(repository, snapshot, self.folder, volume)
            else:
                assert restored(repository, snapshot, self.folder, volume) == content

    def order(self, snapshot: str) -> int:
        """Give a snapshot's place: ids are random, and draws must not depend on them."""
        return list(self.known).index(snapshot)

    def operation(self, data: st.DataObject) -> Operation:
        """Draw what a mover does."""
        movable = [s for s in self.known if self.known[s].state != "backup"]
        parents = [s for s in self.known if self.known[s].state != "interim"]
        groups = list(self.groups())
        kinds = ["copy", "interim"]
        kinds += ["retime"] if movable else []
        kinds += ["incremental"] if parents else []
        kinds += ["commit"] if groups else []
        kind = data.draw(st.sampled_from(kinds))
        if kind == "commit":
            return self.commit(data.draw(st.sampled_from(groups)))
        base = None
        if kind in ("retime", "incremental"):
            base = data.draw(st.sampled_from(movable if kind == "retime" else parents))
        volume = data.draw(st.sampled_from(sorted(self.known[base].volumes) if base else VOLUMES))
        image = bytes(self.images[volume])
        if kind == "retime":  # T1 lies before the copy
            image = data.draw(st.sampled_from(self.history[volume]))
        unit = data.draw(st.sampled_from([512, CHUNK] if kind == "incremental" else [None, 512, 3 * CHUNK]))
        ranges = differences(image, self.known[base].volumes[volume], unit) if base and unit else None
        path = self.folder / f"image-{next(self.files)}"
        write_image(path, image)
        state = "interim" if kind == "interim" else "part"
        moment, tags = self.moment, (f"backup=ns/{(self.moment - BEGIN).seconds}",)
        job = VolumeJob(volume, moment, tags, kind == "interim", Given(ranges) if ranges else None, CHUNK)

        def run(repository: Repository, held: Lock) -> dict[str, Any]:
            with opened(path) as source:
                if kind == "retime" and base:
                    return retime_volume(repository, held, source, job, progress=Progress(), snapshot_id=base)
                return copy_volume(repository, held, source, job, progress=Progress(), parent=base)

        def note(done: dict[str, Any]) -> None:
            assert "fallback" not in done
            self.known[done["snapshot"]] = Entry(state, moment, {volume: image})

        return Operation(run, note)

    def groups(self) -> Iterator[tuple[str, ...]]:
        """Give what may be committed: parts of one moment, one of each volume."""
        by_moment: dict[datetime, dict[str, str]] = {}
        for snapshot, entry in self.known.items():
            if entry.state == "part":
                by_moment.setdefault(entry.moment, {})[next(iter(entry.volumes))] = snapshot
        yield from (tuple(parts.values()) for parts in by_moment.values())

    def commit(self, parts: tuple[str, ...]) -> Operation:
        volumes = {name: image for part in parts for name, image in self.known[part].volumes.items()}
        moment = self.known[parts[0]].moment

        def note(done: dict[str, Any]) -> None:
            if done["already_committed"]:
                assert self.known[done["snapshot"]].joined == frozenset(parts)
            else:
                self.known[done["snapshot"]] = Entry("backup", moment, volumes, frozenset(parts))

        return Operation(lambda repository, held: commit(repository, held, CommitJob(parts)), note)


@pytest.mark.restic
def test_movers_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("os.fsync", lambda file: None)
    monkeypatch.setattr(Movers, "checked", itertools.count())
    run_state_machine_as_test(Movers, settings=examples(30, steps=14))
