"""Verify: read a snapshot's data again, authenticate and hash it. Whole packs, or a sample of chunks."""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from coeval.mover import tags
from coeval.mover.content import ContentList, load_content
from coeval.mover.fan_out import fan_out
from coeval.mover.layout import volume_trees
from coeval.mover.progress import Progress
from coeval.mover.volumes import Result
from coeval.repository.errors import InvalidArgument, RepositoryDamaged
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.tree import go_time

SAMPLE_LEAST = 16
"""Chunks of each file that even the smallest sample reads."""
NAMED_DAMAGES = 8


@dataclass(frozen=True)
class _File:
    path: str
    content: ContentList


@dataclass
class _Seen:
    """What the walk through a snapshot's folders came by."""

    files: list[_File] = field(default_factory=list)
    trees: list[bytes] = field(default_factory=list)


@dataclass
class _Damages:
    """Damage found by several threads: gone on with, so that the report names more than the first."""

    found: list[str] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def collect(self, check: Callable[[], object]) -> None:
        try:
            check()
        except RepositoryDamaged as error:
            with self.guard:
                self.found.append(str(error))

    def report(self, snapshot_id: str) -> None:
        if self.found:
            more = len(self.found) - NAMED_DAMAGES
            named = "; ".join(sorted(self.found)[:NAMED_DAMAGES]) + (f"; and {more} more" if more > 0 else "")
            raise RepositoryDamaged(f"snapshot {snapshot_id}: {named}")


def parse_sample(text: str) -> float:
    """Parse `1%` or `100%` into a fraction. Raises InvalidArgument."""
    try:
        percent = float(text.removesuffix("%")) if text.endswith("%") else 0.0
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise InvalidArgument(f"--sample {text}: give a percentage above 0 and up to 100, like 1%")
    return percent / 100


def verify(repository: Repository, wanted: str, fraction: float, progress: Progress) -> Result:
    """Prove that a snapshot can be read: structure and index in full, `fraction` of each file's chunks.

    Raises RepositoryDamaged after all was tried, naming the first few damaged objects.
    """
    begun = datetime.now(UTC)
    snapshot = tags.find(repository, wanted)
    seen = _Seen()
    _walk(repository, snapshot.tree, "", f"snapshot {snapshot.id}: ", seen)
    damages = _Damages()
    if fraction < 1:
        verified = _verify_sample(repository, seen.files, fraction, progress, damages)
    else:
        verified = _verify_packs(repository, seen, progress, damages)
    damages.report(snapshot.id)
    return {
        "snapshot": snapshot.id,
        "as_of": go_time(tags.as_of(snapshot)),
        "interim": tags.INTERIM in snapshot.tags,
        "volumes": sorted(volume_trees(repository, snapshot)),
        "files": len(seen.files),
        "chunks": sum(len(file.content) for file in seen.files),
        "chunks_verified": verified,
        "bytes_total": sum(file.content.size for file in seen.files),
        "bytes_verified": progress.read,
        "seconds": round((datetime.now(UTC) - begun).total_seconds(), 3),
    }


def _walk(repository: Repository, tree: bytes, path: str, label: str, seen: _Seen) -> None:
    seen.trees.append(tree)
    for node in repository.load_tree(tree):
        here = f"{path}/{node.name}"
        if node.type == "file":
            seen.files.append(_File(here, load_content(repository, node, label + here)))
        elif node.subtree:
            _walk(repository, node.subtree, here, label, seen)


def _verify_sample(
    repository: Repository, files: list[_File], fraction: float, progress: Progress, damages: _Damages
) -> int:
    """Read some chunks of every file; give their number."""
    chosen = [(file, slot) for file in files for slot in _sample(file.content, fraction)]
    progress.begin(sum(file.content.lengths[slot] for file, slot in chosen))

    def read(item: tuple[_File, int]) -> None:
        file, slot = item
        damages.collect(lambda: repository.load_blob(BlobType.DATA, file.content.id(slot)))
        progress.add(done=file.content.lengths[slot], read=file.content.lengths[slot])

    fan_out(chosen, read)
    return len(chosen)


def _sample(content: ContentList, fraction: float) -> list[int]:
    count = min(len(content), max(SAMPLE_LEAST, round(len(content) * fraction)))
    return sorted(random.SystemRandom().sample(range(len(content)), count))


def _verify_packs(repository: Repository, seen: _Seen, progress: Progress, damages: _Damages) -> int:
    """Read every pack that the snapshot needs, once and whole; give the number of distinct chunks in them."""
    slots, chunks = _by_pack(repository, seen.files)
    progress.begin(
        sum(seen.files[n].content.lengths[slot] for (_, n), all_ in slots.items() for slot in all_)
    )
    trees: dict[bytes, list[bytes]] = {}
    for tree in seen.trees:
        for place in repository.index.find(BlobType.TREE, tree):
            trees.setdefault(place.pack, []).append(tree)

    def wanted(pack: bytes) -> Iterator[tuple[BlobType, bytes, int]]:
        for tree in trees.get(pack, []):
            yield BlobType.TREE, tree, 0
        for number, file in enumerate(seen.files):
            for slot in slots.get((pack, number), ()):
                yield BlobType.DATA, file.content.id(slot), file.content.lengths[slot]

    def check(pack: bytes) -> None:
        blobs = list(wanted(pack))
        damages.collect(lambda: repository.check_pack(pack, [(kind, blob_id) for kind, blob_id, _ in blobs]))
        length = sum(length for _, _, length in blobs)
        progress.add(done=length, read=length)

    fan_out(sorted({pack for pack, _ in slots} | set(trees)), check)
    return chunks


def _by_pack(repository: Repository, files: list[_File]) -> tuple[dict[tuple[bytes, int], array[int]], int]:
    """Give (pack, file) → slots, each blob once, since zero chunks repeat by the thousand; and how many."""
    known = bytearray(len(repository.index) // 8 + 1)
    slots: dict[tuple[bytes, int], array[int]] = {}
    chunks = 0
    for file_number, file in enumerate(files):
        for slot in range(len(file.content)):
            blob_id = file.content.id(slot)
            number = repository.index.number(BlobType.DATA, blob_id) or 0  # load_content found it there
            if known[number // 8] & 1 << number % 8:
                continue
            known[number // 8] |= 1 << number % 8
            chunks += 1
            for place in repository.index.find(BlobType.DATA, blob_id):
                slots.setdefault((place.pack, file_number), array("I")).append(slot)
    return slots, chunks
