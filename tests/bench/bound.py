"""The bound: what the libraries alone make of an image's data on all cores, with no reading and no writing.

Run as a process: `python -m tests.bench.bound IMAGE` prints seconds and CPU seconds of two pipelines as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK = 1 << 20
BATCH = 64
_KEY = bytes(range(32))
_ZERO = bytes(CHUNK)


def measure(image: Path) -> dict[str, dict[str, float]]:
    """Give seconds and CPU seconds of the whole pipeline and of reading and hashing, over an image's data.

    Chunks of zeros are left out: no pipeline needs to do anything with them.
    """
    workers = len(os.sched_getaffinity(0))
    full, hashing = [0.0, 0.0], [0.0, 0.0]
    # A compressor is expensive to make: one for each worker.
    compressors = [zstd.ZstdCompressor(level=1) for _ in range(workers)]
    with image.open("rb", buffering=0) as file, ThreadPoolExecutor(workers) as pool:
        offsets = [at for at in range(0, image.stat().st_size, CHUNK) if _data(file.fileno(), at)]

        def compress(lane: int, chunks: list[bytes]) -> None:
            for chunk in chunks[lane::workers]:
                _pipeline(compressors[lane], chunk)

        def read(lane: int, at: list[int]) -> None:
            buffer = bytearray(CHUNK)
            for offset in at[lane::workers]:
                count = os.preadv(file.fileno(), [buffer], offset)
                hashlib.sha256(memoryview(buffer)[:count]).digest()

        for begin in range(0, len(offsets), BATCH):
            batch = offsets[begin : begin + BATCH]
            chunks = [os.pread(file.fileno(), CHUNK, at) for at in batch]
            with _timed(full):
                list(pool.map(compress, range(workers), [chunks] * workers))
            with _timed(hashing):
                list(pool.map(read, range(workers), [batch] * workers))
    return {
        name: {"seconds": seconds, "cpu_seconds": cpu}
        for name, (seconds, cpu) in (("pipeline", full), ("hash", hashing))
    }


def _pipeline(compressor: zstd.ZstdCompressor, chunk: bytes) -> None:
    hashlib.sha256(chunk).digest()
    packed = compressor.compress(chunk, zstd.ZstdCompressor.FLUSH_FRAME)
    sealed = Cipher(algorithms.AES(_KEY), modes.CTR(_KEY[:16])).encryptor().update(packed)
    mac = Poly1305(_KEY)
    mac.update(sealed)
    mac.finalize()


def _data(file: int, at: int) -> bool:
    chunk = os.pread(file, CHUNK, at)
    return chunk != _ZERO[: len(chunk)]


@contextmanager
def _timed(total: list[float]) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    total[0] += time.perf_counter() - wall
    total[1] += time.process_time() - cpu


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
