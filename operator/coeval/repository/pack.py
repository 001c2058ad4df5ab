"""Packs: many sealed blobs in one file, an encrypted header at the end that lists them, its length last.

Header entry: type (1 byte: 0 data, 1 tree, 2 data compressed, 3 tree compressed), sealed length (u32,
little endian), plaintext length (u32, compressed ones only), id (32 bytes). Blobs lie side by side from 0.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import IntEnum

from coeval.repository.compression import NotDecodable, compress_blob, decompress_blob
from coeval.repository.crypto import OVERHEAD, Bytes, Key, Unauthentic, hash_id

TARGET_SIZE = 32 << 20
"""A pack is closed at this size (bytes). Large packs mean few requests; a few are in memory at a time."""

_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_LENGTH = struct.Struct("<I")
_COMPRESSED_BIT = 2


class BlobType(IntEnum):
    """What a blob holds; each kind has its own packs."""

    DATA = 0
    TREE = 1


class Damaged(Exception):
    """A sealed blob or header is not what it should be; callers name the object."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a blob lies. Lengths in bytes; `raw_length` is 0 for a blob that is not compressed."""

    pack: bytes
    offset: int
    length: int
    raw_length: int

    @property
    def plaintext_length(self) -> int:
        """Bytes of the blob once opened."""
        return self.raw_length or self.length - OVERHEAD


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """A blob ready for a pack."""

    id: bytes
    data: Bytes
    raw_length: int


def seal_blob(key: Key, blob_id: bytes, plaintext: Bytes) -> SealedBlob:
    """Compress where it pays, then encrypt."""
    packed = compress_blob(plaintext)
    if packed is None:
        return SealedBlob(blob_id, key.seal(plaintext), 0)
    return SealedBlob(blob_id, key.seal(packed), memoryview(plaintext).nbytes)


def open_blob(key: Key, blob_id: bytes, sealed: Bytes, raw_length: int) -> bytes:
    """Authenticate, decrypt, decompress and hash. Raises Damaged unless exactly this blob comes out."""
    try:
        plaintext = key.open(sealed)
        if raw_length:
            plaintext = decompress_blob(plaintext, raw_length)
    except Unauthentic:
        raise Damaged("its authentication fails") from None
    except NotDecodable as error:
        raise Damaged(f"it does not decompress: {error}") from None
    if hash_id(plaintext) != blob_id:
        raise Damaged("its content has another hash")
    return plaintext


@dataclass
class Pack:
    """A pack that is being filled with blobs of one type."""

    type: BlobType
    blobs: list[SealedBlob] = field(default_factory=list)
    size: int = 0

    def add(self, blob: SealedBlob) -> None:
        """Put a blob at the end."""
        self.blobs.append(blob)
        self.size += len(blob.data)

    def finish(self, key: Key) -> tuple[bytes, list[Bytes]]:
        """Give the pack's id and the parts of its file."""
        header = key.seal(b"".join(self._entry(blob) for blob in self.blobs))
        parts: list[Bytes] = [blob.data for blob in self.blobs]
        parts += [header, _LENGTH.pack(len(header))]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        return digest.digest(), parts

    def _entry(self, blob: SealedBlob) -> bytes:
        if blob.raw_length:
            return _COMPRESSED.pack(self.type | _COMPRESSED_BIT, len(blob.data), blob.raw_length, blob.id)
        return _PLAIN.pack(self.type, len(blob.data), blob.id)


def list_blobs(pack: Pack) -> list[tuple[bytes, int, int, int]]:
    """List (id, offset, length, raw length) of each blob, as the index does."""
    blobs = []
    offset = 0
    for blob in pack.blobs:
        blobs.append((blob.id, offset, len(blob.data), blob.raw_length))
        offset += len(blob.data)
    return blobs


def read_header(key: Key, pack: bytes) -> list[tuple[BlobType, bytes, int, int, int]]:
    """List (type, id, offset, length, raw length) of a whole pack file. Raises Damaged."""
    if len(pack) < _LENGTH.size:
        raise Damaged("it is shorter than a header")
    (length,) = _LENGTH.unpack(pack[-_LENGTH.size :])
    end = len(pack) - _LENGTH.size
    if not OVERHEAD < length <= end:
        raise Damaged("its header's length is impossible")
    try:
        header = key.open(memoryview(pack)[end - length : end])
    except Unauthentic:
        raise Damaged("its header's authentication fails") from None
    entries = []
    at = offset = 0
    while at < len(header):
        kind = header[at]
        shape = _COMPRESSED if kind & _COMPRESSED_BIT else _PLAIN
        if kind > 3 or at + shape.size > len(header):
            raise Damaged("its header is malformed")
        fields = shape.unpack_from(header, at)
        raw_length = fields[2] if shape is _COMPRESSED else 0
        entries.append((BlobType(kind & 1), fields[-1], offset, fields[1], raw_length))
        offset += fields[1]
        at += shape.size
    if offset != end - length:
        raise Damaged("its header does not describe its content")
    return entries
