"""A repository to damage: two volumes in two snapshots that share nothing, and what comes out of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coeval.repository.pack import read_header
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


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
