"""Verify: read a snapshot's data again, authenticate and hash it. Whole packs, or a sample of chunks."""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from coeval.mover import tags
from coeval.mover.content import ContentList, load_content
from coeval.mover.damage import Harm
from coeval.mover.fan_out import fan_out
from coeval.mover.layout import volume_trees
from coeval.mover.progress import Progress
from coeval.mover.volumes import Result
from coeval.repository.errors import InvalidArgument, RepositoryDamaged, RepositoryLocked
from coeval.repository.lock import Lock
from coeval.repository.pack import BlobType
from coeval.repository.repair import unlist_packs
from coeval.repository.repository import Repository
from coeval.repository.tree import Node, go_time

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
    packs: set[bytes] = field(default_factory=set)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def collect(self, check: Callable[[], object], packs: Iterable[bytes] = ()) -> None:
        """Run a check; should it find damage, it is in one of `packs`."""
        try:
            check()
        except RepositoryDamaged as error:
            with self.guard:
                self.found.append(str(error))
                self.packs.update(packs)

    def report(self, snapshot_id: str, harm: str, repaired: str) -> None:
        more = len(self.found) - NAMED_DAMAGES
        named = "; ".join(sorted(self.found)[:NAMED_DAMAGES]) + (f"; and {more} more" if more > 0 else "")
        raise RepositoryDamaged(f"snapshot {snapshot_id}: {harm}{named}{repaired}")


def parse_sample(text: str) -> float:
    """Parse `1%` or `100%` into a fraction. Raises InvalidArgument."""
    try:
        percent = float(text.removesuffix("%")) if text.endswith("%") else 0.0
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise InvalidArgument(f"--sample {text}: give a percentage above 0 and up to 100, like 1%")
    return percent / 100


def verify_beside_others(
    repository: Repository, wanted: str, fraction: float, progress: Progress, *, repair: bool
) -> Result:
    """Verify under a plain lock: backups go on meanwhile. A repair is alone, and begins by looking again.

    See `verify`.
    """
    with ExitStack() as held:
        held.enter_context(repository.lock())

        def alone(suspects: set[bytes]) -> str:
            held.close()
            try:
                with repository.lock(exclusive=True) as lock:
                    return _repair(repository, lock, suspects)
            except RepositoryLocked as error:
                return f"; not repaired: {error}"

        return verify(repository, wanted, fraction, progress, repair=alone if repair else None)


def verify(
    repository: Repository,
    wanted: str,
    fraction: float,
    progress: Progress,
    *,
    repair: Callable[[set[bytes]], str] | None = None,
) -> Result:
    """Prove that a snapshot can be read: structure and index in full, `fraction` of each file's chunks.

    Raises RepositoryDamaged after all was tried, naming the volumes and the other snapshots that are not
    whole, and the first few damaged objects; with `repair`, after that was given the packs in which damage
    may be, and with what it says.
    """
    begun = datetime.now(UTC)
    repository.lenient = True
    snapshot = tags.find(repository, wanted)
    seen = _Seen()
    damages = _Damages()
    _walk(repository, snapshot.tree, "", seen, damages)
    if fraction < 1:
        verified = _verify_sample(repository, seen.files, fraction, progress, damages)
    else:
        verified = _verify_packs(repository, seen, progress, damages)
    damages.found += repository.passed_over
    if damages.found:
        harm = Harm(repository, damages.packs).told(snapshot)
        repaired = repair(damages.packs) if repair and damages.packs else ""
        damages.report(snapshot.id, harm, repaired)
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


def _repair(repository: Repository, lock: Lock, suspects: set[bytes]) -> str:
    """Take the damaged packs out of the index; say what came of it."""
    done = unlist_packs(repository, lock, suspects)
    return (
        f"; repaired: damaged packs no longer listed: {len(done.packs)}, blobs in them that were saved: "
        f"{done.saved}, lost: {done.lost}. The next backup stores again what its source still has"
    )


def _walk(repository: Repository, tree: bytes, path: str, seen: _Seen, damages: _Damages) -> None:
    seen.trees.append(tree)
    nodes: list[Node] = []
    damages.collect(lambda: nodes.extend(repository.load_tree(tree)), _packs(repository, BlobType.TREE, tree))
    for node in nodes:
        here = f"{path}/{node.name}"
        if node.type == "file":
            damages.collect(partial(_look_up, repository, node, here, seen))
        elif node.subtree:
            _walk(repository, node.subtree, here, seen, damages)


def _look_up(repository: Repository, node: Node, path: str, seen: _Seen) -> None:
    seen.files.append(_File(path, load_content(repository, node, path)))


def _packs(repository: Repository, kind: BlobType, blob_id: bytes) -> list[bytes]:
    return [place.pack for place in repository.index.find(kind, blob_id)]


def _verify_sample(
    repository: Repository, files: list[_File], fraction: float, progress: Progress, damages: _Damages
) -> int:
    """Read some chunks of every file; give their number."""
    chosen = [(file, slot) for file in files for slot in _sample(file.content, fraction)]
    progress.begin(sum(file.content.lengths[slot] for file, slot in chosen))

    def read(item: tuple[_File, int]) -> None:
        file, slot = item
        blob_id = file.content.id(slot)
        packs = _packs(repository, BlobType.DATA, blob_id)
        damages.collect(lambda: repository.load_blob(BlobType.DATA, blob_id), packs)
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
        wanted_blobs = [(kind, blob_id) for kind, blob_id, _ in blobs]
        damages.collect(lambda: repository.check_pack(pack, wanted_blobs), [pack])
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
