"""zstd as the format uses it: blobs may stand uncompressed, unpacked files carry a version byte."""

from __future__ import annotations

import io
import sys
import threading

from coeval.repository.crypto import Bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 1
"""Compression is what bounds our speed (0.4 to 0.5 GB/s a core at level 1, half of that at 3)."""

SAMPLES = 16
SAMPLE_SIZE = 4096
"""A blob is tried in these pieces (bytes) first: incompressible data (media, archives, ciphertext) zstd would
leave as it is, after a third of SHA-256's time; the pieces take a third of that."""

UNPACKED_VERSION = 2
"""First byte of an unpacked file whose rest is zstd. Files that start with `{` or `[` are plain JSON."""

UNPACKED_LIMIT = 1 << 30
"""No index, snapshot or lock is larger once unpacked; more is damage, or an attempt to exhaust our memory."""

_PIECE = 8 << 20
"""Larger data is decompressed in pieces (bytes)."""
_NO_END = "the frame does not end where it should"

_local = threading.local()


class NotDecodable(Exception):
    """The compressed data is damaged or has another size than recorded."""


def compress_blob(plaintext: Bytes) -> Bytes | None:
    """Compress a blob; None where that would not make it smaller, so that it is stored as it is."""
    compressor = _compressor()
    with memoryview(plaintext) as view:
        if not _promising(compressor, view):
            return None
        packed = compressor.compress(view, zstd.ZstdCompressor.FLUSH_FRAME)
        return packed if len(packed) < view.nbytes else None


def decompress_blob(packed: Bytes, size: int) -> bytes:
    """Decompress a blob of `size` bytes. Raises NotDecodable, also where the size is another."""
    plaintext = _decompress(packed, size)
    if len(plaintext) != size:
        raise NotDecodable(f"{len(plaintext)} bytes instead of {size}")
    return plaintext


def pack_file(plaintext: bytes) -> bytes:
    """Compress an unpacked file (index, snapshot, lock) behind its version byte."""
    return bytes([UNPACKED_VERSION]) + _compressor().compress(plaintext, zstd.ZstdCompressor.FLUSH_FRAME)


def unpack_file(packed: bytes) -> bytes:
    """Undo pack_file; accepts plain JSON as older writers left it. Raises NotDecodable."""
    if not packed or packed[:1] in b"{[":
        return packed
    if packed[0] != UNPACKED_VERSION:
        raise NotDecodable(f"unknown encoding {packed[0]}")
    return _decompress(memoryview(packed)[1:], UNPACKED_LIMIT)


def _promising(compressor: zstd.ZstdCompressor, view: memoryview) -> bool:
    """Tell whether any of some evenly spread pieces shrinks, by at least a thirty-second."""
    if view.nbytes < 4 * SAMPLES * SAMPLE_SIZE:
        return True
    for number in range(SAMPLES):
        at = number * view.nbytes // SAMPLES
        piece = compressor.compress(view[at : at + SAMPLE_SIZE], zstd.ZstdCompressor.FLUSH_FRAME)
        if len(piece) <= SAMPLE_SIZE - SAMPLE_SIZE // 32:
            return True
    return False


def _compressor() -> zstd.ZstdCompressor:
    # A context is expensive to make and may not be shared between threads.
    if not hasattr(_local, "compressor"):
        _local.compressor = zstd.ZstdCompressor(level=LEVEL)
    compressor: zstd.ZstdCompressor = _local.compressor
    return compressor


def _decompress(packed: Bytes, limit: int) -> bytes:
    decoder = zstd.ZstdDecompressor()
    try:
        if limit > _PIECE:
            return _decompress_large(decoder, memoryview(packed), limit)
        plaintext = decoder.decompress(packed, max_length=limit + 1)
    except zstd.ZstdError as error:
        raise NotDecodable(str(error)) from error
    if len(plaintext) > limit or not decoder.eof or decoder.unused_data:
        raise NotDecodable(_NO_END)
    return plaintext


def _decompress_large(decoder: zstd.ZstdDecompressor, packed: memoryview, limit: int) -> bytes:
    """Decompress what may be large, as the folder of a volume of many TiB is, without having it twice."""
    out, at = io.BytesIO(), 0
    while not decoder.eof and out.tell() <= limit:
        fed = packed[at : at + _PIECE] if decoder.needs_input else b""
        if decoder.needs_input and not fed:
            break
        at += len(fed)
        out.write(decoder.decompress(fed, max_length=_PIECE))
    if out.tell() > limit or not decoder.eof or decoder.unused_data or at < packed.nbytes:
        raise NotDecodable(_NO_END)
    return out.getvalue()  # this is its buffer, no copy
