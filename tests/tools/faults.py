"""A store of which one call goes wrong, the commands to try it on, and the judge of what is left.

A story is every data command in turn, each with the store as it stands before it. A test takes each apart: it
counts the command's store calls, then runs it once for each of them with that call going wrong.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from coeval.cli import session
from coeval.mover.content import load_content
from coeval.mover.layout import volume_image, volume_trees
from coeval.mover.progress import Progress
from coeval.mover.verify import verify
from coeval.repository.crypto import Bytes, hash_id
from coeval.repository.errors import RepositoryFull, RepositoryUnreachable
from coeval.repository.index import decode_index
from coeval.repository.pack import BlobType, read_header
from coeval.repository.repository import Repository
from coeval.repository.store import Kind, Store

from tests.tools.repositories import PASSWORD, run_coeval

T1, T2, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z", "2026-01-02T00:00:00Z"
MIB = 1 << 20
WRITING = {"save", "create", "remove", "sweep"}
REPLACED = {"commit": {"data", "interim", "retime", "compare"}, "forget": {"incremental"}}
"""Commands that remove snapshots, and which commands made those; commit does so once its own is there."""


class Fault(Enum):
    """How a call goes wrong."""

    BEFORE = "an error, and nothing happened"
    AFTER = "an error although it happened: the answer was lost"
    FULL = "no space"
    GONE = "an error, and every later call fails, too"


@dataclass(frozen=True)
class Call:
    """A call on the store as it was counted."""

    verb: str
    kind: Kind | None

    def faults(self) -> Iterator[Fault]:
        """What may go wrong with it."""
        yield from (Fault.BEFORE, Fault.GONE)
        if self.verb in WRITING:
            yield Fault.AFTER
        if self.verb in ("save", "create"):
            yield Fault.FULL


class FaultyStore:
    """Passes everything on, but the call numbered `at` (from 0, over all threads) goes wrong."""

    def __init__(self, inner: Store, at: int = -1, fault: Fault = Fault.BEFORE) -> None:
        self.inner = inner
        self.calls: list[Call] = []
        self.packed = 0
        """Bytes of the packs whose storing was acknowledged."""
        self._at, self._fault = at, fault
        self._guard = threading.Lock()

    def about_to(self, number: int, verb: str) -> None:
        """Called ahead of each call, of one at a time."""

    def save(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> None:
        self._call("save", kind, lambda: self.inner.save(kind, name, parts))
        if kind is Kind.PACK:
            with self._guard:
                self.packed += sum(len(part) for part in parts)

    def create(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> bool:
        made: list[bool] = []
        self._call("create", kind, lambda: made.append(self.inner.create(kind, name, parts)))
        return made[0]

    def load(self, kind: Kind, name: str) -> bytes:
        self._call("load", kind)
        return self.inner.load(kind, name)

    def load_range(self, kind: Kind, name: str, offset: int, length: int) -> bytes:
        self._call("load_range", kind)
        return self.inner.load_range(kind, name, offset, length)

    def entries(self, kind: Kind) -> Iterator[tuple[str, int]]:
        self._call("entries", kind)
        return self.inner.entries(kind)

    def remove(self, kind: Kind, name: str) -> None:
        self._call("remove", kind, lambda: self.inner.remove(kind, name))

    def sweep(self) -> int:
        self._call("sweep", None, self.inner.sweep)
        return 0

    def _call(self, verb: str, kind: Kind | None, effect: Callable[[], object] = lambda: None) -> None:
        with self._guard:
            number = len(self.calls)
            self.about_to(number, verb)
            self.calls.append(Call(verb, kind))
        wrong = number == self._at
        if self._fault is Fault.GONE and 0 <= self._at <= number:
            raise RepositoryUnreachable(f"{verb}: away")
        if wrong and self._fault is Fault.FULL:
            raise RepositoryFull(f"{verb}: no space")
        if wrong and self._fault is Fault.BEFORE:
            raise RepositoryUnreachable(f"{verb}: refused")
        effect()
        if wrong:
            raise RepositoryUnreachable(f"{verb}: the answer was lost")


def run_on(store: Store, password_file: Path, words: list[str], code: int | None = 0) -> dict[str, Any]:
    """Run a command in this process on any store; expect an exit code (None: any); give its document."""
    at = next(number for number, word in enumerate(words) if word.startswith("-"))
    access = ["--repository", "file:///memory", "--password-file", str(password_file)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "open_store", lambda url: store)
        return run_coeval(*words[:at], *access, *words[at:], code=code)


@dataclass
class Story:
    """Volumes as they are at each moment, and the words of every data command, in an order that works."""

    folder: Path
    images: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """(moment, volume) → its bytes."""

    def __post_init__(self) -> None:
        image = b"".join(_chunk(number) for number in range(4)) + _chunk(9)[:777]
        data = _chunk(20) + bytes(MIB) + _chunk(21)[:5]
        changed = bytearray(image)
        changed[MIB + 5 : MIB + 8] = b"new"
        grown = bytearray(changed) + b"and it grew"
        self.images = {
            (T2, "root"): bytes(changed),
            (T1, "root"): image,
            (T1, "data"): data,
            (LATER, "root"): bytes(grown),
        }
        for (moment, volume), content in self.images.items():
            self.source(moment, volume).write_bytes(content)
        self._ranges("back.json", len(image))
        self._ranges("on.json", len(grown))
        (self.folder / "vm.yaml").write_text("kind: VirtualMachine\n")

    def source(self, moment: str, volume: str) -> Path:
        return self.folder / f"{volume}-{moment}"

    @property
    def target(self) -> Path:
        return self.folder / "restored"

    def commands(self) -> Iterator[tuple[str, Callable[[dict[str, str]], list[str]]]]:
        """Give each command's label and its words, given the snapshots that the labels before it gave."""
        root, tag = ["--name", "root"], ["--tag", "backup=ns/b"]
        yield "init", lambda s: ["repo", "init", "--if-absent"]
        yield "data", lambda s: self._copy("data", T1, "--init", *tag)
        yield "interim", lambda s: self._copy("root", T2, "--interim", *tag)
        yield (
            "retime",
            lambda s: [
                *("volume", "retime", *root, "--snapshot", s["interim"], "--as-of", T1),
                *("--source", str(self.source(T1, "root")), "--changed", str(self.folder / "back.json")),
            ],
        )
        yield (
            "compare",
            lambda s: [
                *("volume", "retime", *root, "--snapshot", s["interim"], "--as-of", T1),
                *("--source", str(self.source(T1, "root")), "--compare"),
            ],
        )
        yield (
            "commit",
            lambda s: [
                *("commit", "--snapshot", s["retime"], "--snapshot", s["data"], "--forget-parts"),
                *("--manifest", str(self.folder / "vm.yaml")),
            ],
        )
        yield (
            "incremental",
            lambda s: [
                *self._copy("root", LATER, "--parent", s["commit"], "--tag", "backup=ns/c"),
                *("--changed", str(self.folder / "on.json")),
            ],
        )
        yield (
            "restore",
            lambda s: [
                *("volume", "restore", "--snapshot", s["commit"], *root, "--target", str(self.target)),
                *("--sparse", "--overwrite"),
            ],
        )
        yield "verify", lambda s: ["verify", "--snapshot", s["commit"]]
        yield "sample", lambda s: ["verify", "--snapshot", s["commit"], "--sample", "1%"]
        yield "forget", lambda s: ["repo", "forget", "--tag", "backup=ns/c", "--parts-only"]

    def _copy(self, volume: str, moment: str, *more: str) -> list[str]:
        source = str(self.source(moment, volume))
        return ["volume", "copy", "--name", volume, "--source", source, "--as-of", moment, *more]

    def _ranges(self, name: str, size: int) -> None:
        (self.folder / name).write_text(json.dumps({"size": size, "ranges": [[MIB, 4096]]}))


def _chunk(number: int) -> bytes:
    """Give a chunk that compresses to almost nothing, unlike any other."""
    return b"%03d all is well\n" % number * (MIB // 16)


def judge(store: Store, images: dict[tuple[str, str], bytes]) -> set[str]:
    """Check everything there is, structure and content; give the ids of the snapshots, all of them sound."""
    repository = Repository.open(store, PASSWORD)
    packs = {name: store.load(Kind.PACK, name) for name, _ in store.entries(Kind.PACK)}
    assert all(hash_id(content).hex() == name for name, content in packs.items())
    listed: set[tuple[str, BlobType, bytes, int, int, int]] = set()
    for name in repository.names(Kind.INDEX):
        for entry in decode_index(repository.load_file(Kind.INDEX, name))[0]:
            assert entry.pack.hex() in packs, f"index/{name} lists a pack that is not there"
            listed |= {(entry.pack.hex(), entry.type, *blob) for blob in entry.blobs}
    for name in {blob[0] for blob in listed}:
        whole = {(name, *blob) for blob in read_header(repository.key, packs[name])}
        assert whole == {blob for blob in listed if blob[0] == name}, f"pack {name} is not listed as it is"
    for snapshot in repository.snapshots():
        verify(repository, snapshot.id, 1.0, Progress())
        moment = next(tag.removeprefix("as-of=") for tag in snapshot.tags if tag.startswith("as-of="))
        for volume in volume_trees(repository, snapshot):
            content = load_content(repository, volume_image(repository, snapshot, volume), volume)
            ids = [content.id(slot) for slot in range(len(content))]
            blobs = {blob_id: repository.load_blob(BlobType.DATA, blob_id) for blob_id in set(ids)}
            assert b"".join(blobs[blob_id] for blob_id in ids) == images[moment, volume]
    return {snapshot.id for snapshot in repository.snapshots()}
