"""Repair: damaged packs are taken out of the index, so that the next backup stores again what they held.

Ids are those of contents: once a chunk is stored again, every snapshot that has it is whole again. What is
still sound in a damaged pack goes into a new one first. New objects come first, then the index files that
they replace go; a crash in between leaves both, which is what there was before. The damaged pack stays: prune
removes it, and refuses to as long as something is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from coeval.repository.crypto import hash_id
from coeval.repository.errors import ObjectMissing
from coeval.repository.index import PackEntry, encode_index
from coeval.repository.lock import Lock
from coeval.repository.pack import BlobType, Damaged, Pack, SealedBlob, list_blobs, open_blob
from coeval.repository.repository import Repository
from coeval.repository.store import Kind


@dataclass
class Repaired:
    """What was done: packs no longer listed, their blobs that were saved, and those that are lost for now."""

    packs: list[bytes] = field(default_factory=list)
    saved: int = 0
    lost: int = 0


def unlist_packs(repository: Repository, lock: Lock, suspects: Iterable[bytes]) -> Repaired:
    """Read each suspect once more; those that are damaged indeed are no longer listed.

    `lock` is an exclusive one. Raises what the store raises, and nothing was removed then.
    """
    files = _read_index_files(repository)
    done = Repaired()
    salvaged: list[PackEntry] = []
    for pack in sorted(set(suspects)):
        listed = [entry for entries, _ in files.values() for entry in entries if entry.pack == pack]
        if not listed:  # somebody repaired or pruned before we were alone
            continue
        sound, lost = _examine(repository, pack, listed)
        if sound is None:
            continue
        lock.check()
        salvaged += [_store(repository, kind, blobs) for kind, blobs in sound.items() if blobs]
        done.packs.append(pack)
        done.saved += sum(map(len, sound.values()))
        done.lost += lost
    damaged = set(done.packs)
    replaced = {
        name: (entries, old)
        for name, (entries, old) in files.items()
        if any(entry.pack in damaged for entry in entries)
    }
    lock.check()
    if salvaged:
        repository.save_file(Kind.INDEX, encode_index(salvaged))
    for entries, old in replaced.values():
        rest = [entry for entry in entries if entry.pack not in damaged]
        if rest or old:
            repository.save_file(Kind.INDEX, encode_index(rest, old))
    lock.check()
    for name in replaced:
        repository.remove(Kind.INDEX, name)
    repository.forget_index()
    return done


def _read_index_files(repository: Repository) -> dict[str, tuple[list[PackEntry], list[str]]]:
    files = {}
    for name in repository.names(Kind.INDEX):
        files[name] = repository.load_index(name)
    superseded = {name for _, old in files.values() for name in old}
    return {name: file for name, file in files.items() if name not in superseded}


def _examine(
    repository: Repository, pack: bytes, listed: list[PackEntry]
) -> tuple[dict[BlobType, list[SealedBlob]] | None, int]:
    """Give the blobs that are still sound, by type, and the number of those lost; None for a sound pack."""
    try:
        content = memoryview(repository.store.load(Kind.PACK, pack.hex()))
    except ObjectMissing:
        content = memoryview(b"")
    whole = hash_id(content) == pack
    sound: dict[BlobType, list[SealedBlob]] = {kind: [] for kind in BlobType}
    lost = 0
    for kind, blob in {(entry.type, blob) for entry in listed for blob in entry.blobs}:
        blob_id, offset, length, raw_length = blob
        sealed = content[offset : offset + length]
        try:
            open_blob(repository.key, blob_id, sealed, raw_length)
            sound[kind].append(SealedBlob(blob_id, sealed, raw_length))
        except Damaged:
            lost += 1
    return (None, 0) if whole and not lost else (sound, lost)


def _store(repository: Repository, kind: BlobType, blobs: list[SealedBlob]) -> PackEntry:
    pack = Pack(kind)
    for blob in blobs:
        pack.add(blob)
    pack_id, parts = pack.finish(repository.key)
    repository.store.save(Kind.PACK, pack_id.hex(), parts)
    return PackEntry(pack_id, kind, list_blobs(pack))
