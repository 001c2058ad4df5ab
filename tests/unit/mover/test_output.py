"""The two ways into a target: whatever the filesystem refuses, the bytes are the same."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from coeval.mover.output import Output
from coeval.repository.direct import AT_ONCE, BLOCK


def refuses_to_open(real: Callable[..., Any], flag: int) -> Callable[..., int]:
    def opened(path: Path, flags: int, *more: Any) -> int:
        if flags & flag:
            raise OSError(errno.EINVAL, "no such way")
        return int(real(path, flags, *more))

    return opened


def refuses_to_write(real: Callable[..., int]) -> Callable[..., int]:
    def written(file: int, view: memoryview, offset: int) -> int:
        if os.O_DIRECT & flags(file):
            raise OSError(errno.EINVAL, "larger blocks, please")
        return real(file, view, offset)

    return written


def flags(file: int) -> int:
    text = Path(f"/proc/self/fdinfo/{file}").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("flags:")), 8)


@pytest.mark.parametrize("refused", ["nothing", "open", "write"])
def test_every_way_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    if refused == "open":
        monkeypatch.setattr(os, "open", refuses_to_open(os.open, os.O_DIRECT))
    if refused == "write":
        monkeypatch.setattr(os, "pwrite", refuses_to_write(os.pwrite))
    chosen = random.Random(refused)  # noqa: S311
    # Chunks that end at blocks and some that do not, and one longer than what is written at once.
    lengths = [chosen.choice([BLOCK, 5 * BLOCK, BLOCK // 2]) for _ in range(60)] + [AT_ONCE + 3 * BLOCK]
    pieces = [chosen.randbytes(length) for length in lengths]
    runs: list[tuple[int, list[bytes]]] = []
    offset = 0
    while pieces:
        run = [pieces.pop(0) for _ in range(min(len(pieces), chosen.randint(1, 3)))]
        runs.append((offset, run))
        offset += sum(map(len, run))
    path = tmp_path / "target"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, offset)
    output = Output(file, path, path)
    output.begin()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda run: output.write(*run), chosen.sample(runs, len(runs))))
    output.close()
    os.close(file)
    assert path.read_bytes() == b"".join(b"".join(run) for _, run in runs)
