"""The index: which blob lies where. In memory a hash table over packed records, about 60 bytes a blob.

A TiB in 1 MiB chunks is a million blobs: as Python objects that would be several hundred MB.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from coeval.repository.crypto import OVERHEAD
from coeval.repository.documents import MALFORMED, identity, parse_document
from coeval.repository.pack import BlobType, Place

FILE_BLOBS = 50_000
"""Blobs an index file lists before the next is begun, as restic does: about 8 MB of JSON."""

_RECORD = struct.Struct("<32sIIII")
_RECORD_SIZE = _RECORD.size
_KINDS = {kind.name.lower(): kind for kind in BlobType}
_U32 = 1 << 32
_START_SLOTS = 1 << 10


class MalformedIndex(Exception):
    """An index file does not say what one must."""


@dataclass(frozen=True)
class PackEntry:
    """A pack as an index file lists it: (id, offset, length, raw length) of each blob."""

    pack: bytes
    type: BlobType
    blobs: list[tuple[bytes, int, int, int]]


class _Table:
    """Open addressing over the ids, which are uniform already: an id's first bytes are its hash."""

    def __init__(self) -> None:
        self.records = bytearray()
        self.count = 0
        self._slots = array("I", bytes(4 * _START_SLOTS))

    def add(self, blob_id: bytes, pack: int, offset: int, length: int, raw_length: int) -> None:
        record = _RECORD.pack(blob_id, pack, offset, length, raw_length)
        if 3 * self.count >= 2 * len(self._slots):
            self._grow()
        self.records += record
        self.count += 1
        _place(self._slots, blob_id, self.count)

    def first(self, blob_id: bytes) -> int | None:
        """Offset of a record with this id. Asked for every chunk of a volume: a loop of its own."""
        slots, records = self._slots, self.records
        mask = len(slots) - 1
        slot = int.from_bytes(blob_id[:8], "little") & mask
        while number := slots[slot]:
            at = (number - 1) * _RECORD_SIZE
            if records[at : at + 32] == blob_id:
                return at
            slot = (slot + 1) & mask
        return None

    def find(self, blob_id: bytes) -> Iterator[int]:
        """Offsets of the records with this id; several where movers stored one blob at the same time."""
        slots = self._slots
        mask = len(slots) - 1
        slot = int.from_bytes(blob_id[:8], "little") & mask
        while number := slots[slot]:
            at = (number - 1) * _RECORD.size
            if self.records[at : at + 32] == blob_id:
                yield at
            slot = (slot + 1) & mask

    def _grow(self) -> None:
        larger = array("I", bytes(8 * len(self._slots)))
        for number in range(1, self.count + 1):
            at = (number - 1) * _RECORD.size
            _place(larger, self.records[at : at + 32], number)
        self._slots = larger


def _place(slots: array[int], blob_id: bytes | bytearray, number: int) -> None:
    mask = len(slots) - 1
    slot = int.from_bytes(blob_id[:8], "little") & mask
    while slots[slot]:
        slot = (slot + 1) & mask
    slots[slot] = number


class Index:
    """All blobs that the index files list, and those added since."""

    def __init__(self) -> None:
        self._tables = {kind: _Table() for kind in BlobType}
        self._packs = bytearray()

    def __len__(self) -> int:
        return sum(table.count for table in self._tables.values())

    def add(self, entry: PackEntry) -> None:
        """Add a pack with its blobs."""
        number = len(self._packs) // 32
        self._packs += entry.pack
        table = self._tables[entry.type]
        for blob_id, offset, length, raw_length in entry.blobs:
            # Two index files may list the same pack, after an interrupted prune for one.
            if table.first(blob_id) is None or (
                Place(entry.pack, offset, length, raw_length) not in self.find(entry.type, blob_id)
            ):
                table.add(blob_id, number, offset, length, raw_length)

    def has(self, kind: BlobType, blob_id: bytes) -> bool:
        """Tell whether a blob is stored."""
        return self._tables[kind].first(blob_id) is not None

    def number(self, kind: BlobType, blob_id: bytes) -> int | None:
        """Give a blob's number, dense from 0 within its type: what a bitmap of blobs is indexed by."""
        at = self._tables[kind].first(blob_id)
        return None if at is None else at // _RECORD_SIZE

    def length(self, kind: BlobType, blob_id: bytes) -> int | None:
        """Give a blob's length in bytes, once opened; None if it is not stored."""
        table = self._tables[kind]
        at = table.first(blob_id)
        if at is None:
            return None
        _, _, _, length, raw_length = _RECORD.unpack_from(table.records, at)
        return int(raw_length or length - OVERHEAD)

    def find(self, kind: BlobType, blob_id: bytes) -> list[Place]:
        """Give every place of a blob."""
        table = self._tables[kind]
        places = []
        for at in table.find(blob_id):
            _, pack, offset, length, raw_length = _RECORD.unpack_from(table.records, at)
            places.append(Place(bytes(self._packs[32 * pack : 32 * pack + 32]), offset, length, raw_length))
        return places


def encode_index(entries: Sequence[PackEntry], supersedes: Sequence[str] = ()) -> bytes:
    """Write an index file's JSON, which may name older files that no longer count."""
    packs = [
        {"id": entry.pack.hex(), "blobs": [_blob_json(entry.type, *blob) for blob in entry.blobs]}
        for entry in entries
    ]
    doc = {"supersedes": list(supersedes), "packs": packs} if supersedes else {"packs": packs}
    return json.dumps(doc, separators=(",", ":")).encode() + b"\n"


def decode_index(text: bytes) -> tuple[list[PackEntry], list[str]]:
    """Parse an index file: its packs, and the index files it supersedes. Raises MalformedIndex."""
    try:
        doc = parse_document(text)
        entries = [entry for pack in doc["packs"] or [] for entry in _pack_entries(pack)]
        return entries, [str(name) for name in doc.get("supersedes") or []]
    except MALFORMED as error:
        raise MalformedIndex(str(error)) from error


def _blob_json(
    kind: BlobType, blob_id: bytes, offset: int, length: int, raw_length: int
) -> dict[str, object]:
    doc: dict[str, object] = {
        "id": blob_id.hex(),
        "type": kind.name.lower(),
        "offset": offset,
        "length": length,
    }
    if raw_length:
        doc["uncompressed_length"] = raw_length
    return doc


def _pack_entries(doc: dict[str, Any]) -> Iterator[PackEntry]:
    pack = identity(doc["id"])
    # Old writers mixed both types in one pack.
    blobs: dict[BlobType, list[tuple[bytes, int, int, int]]] = {}
    for blob in doc["blobs"]:
        offset, length = int(blob["offset"]), int(blob["length"])
        raw_length = int(blob.get("uncompressed_length") or 0)  # rustic writes null
        if not 0 <= offset < _U32 or not 0 <= length < _U32 or not 0 <= raw_length < _U32:
            raise ValueError(f"impossible sizes {(offset, length, raw_length)} in pack {pack.hex()}")
        record = (identity(blob["id"]), offset, length, raw_length)
        blobs.setdefault(_KINDS[blob["type"]], []).append(record)
    for kind, listed in blobs.items():
        yield PackEntry(pack, kind, listed)
