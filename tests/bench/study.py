"""The study behind the settings: a copy and a changed copy for each value of one, the rest as chosen.

`python -m tests.bench.study FOLDER-OF-A-VOLUME [rounds]` (a folder that the bench made) prints a table.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from coeval.mover import pipeline, volumes
from coeval.mover.changes.sources import Given
from coeval.mover.content import CHUNK_SIZE
from coeval.mover.memory import keep_freed_memory
from coeval.mover.progress import Progress
from coeval.mover.ranges import Ranges, read_ranges
from coeval.mover.sources import open_source
from coeval.repository import compression, writer
from coeval.repository.file_store import FileStore
from coeval.repository.pack import TARGET_SIZE
from coeval.repository.repository import Repository

from tests.bench.measure import contents

KIB, MIB = 1 << 10, 1 << 20
SETTINGS: dict[str, list[int]] = {
    "chunk size": [256 * KIB, 512 * KIB, MIB, 2 * MIB, 4 * MIB],
    "pack size": [8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB],
    "zstd level": [-5, -1, 1, 2, 3],
    "workers": [1, 2, pipeline.WORKERS, pipeline.CORES + 2, 2 * pipeline.CORES + 2],
}


@dataclass(frozen=True)
class Values:
    """One set of settings; sizes in bytes."""

    chunk_size: int = CHUNK_SIZE
    pack_size: int = TARGET_SIZE
    level: int = compression.LEVEL
    workers: int = pipeline.WORKERS


def main() -> None:
    """Measure every value of every setting, in a changing order, and print medians."""
    if len(sys.argv) > 3:
        print(json.dumps(_once(Path(sys.argv[1]), Values(*map(int, sys.argv[2:])))))
        return
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        cases = [(name, value) for name, values in SETTINGS.items() for value in values]
        random.shuffle(cases)
        for name, value in cases:
            values = Values(**{name.replace("zstd ", "").replace(" ", "_"): value})
            found.setdefault((name, value), []).append(_apart(folder, values))
    print(
        "| setting | value | s | CPU s | stored MiB | 1 % changed: stored MiB | objects |\n|" + " --- |" * 7
    )
    for (name, value), runs in sorted(found.items()):
        cells = [
            f"{median(run[what] for run in runs):.2f}" for what in ("seconds", "cpu", "stored", "changed")
        ]
        print(f"| {name} | {value} | {' | '.join(cells)} | {median(run['objects'] for run in runs):.0f} |")


def _apart(folder: Path, values: Values) -> dict[str, float]:
    """Measure in a process of its own, which remembers nothing of the one before."""
    numbers = [str(each) for each in (values.chunk_size, values.pack_size, values.level, values.workers)]
    command = [sys.executable, "-m", "tests.bench.study", str(folder), *numbers]
    done: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return done


def _once(folder: Path, values: Values) -> dict[str, float]:
    keep_freed_memory()
    with (
        tempfile.TemporaryDirectory(dir=folder.parent) as scratch,
        patch.object(pipeline, "WORKERS", values.workers),
        patch.object(compression, "LEVEL", values.level),
        patch.object(writer.BlobWriter.__init__, "__kwdefaults__", {"pack_size": values.pack_size}),
    ):
        repository = Repository.init(FileStore(scratch), "study")[0]
        begun, cpu = time.monotonic(), time.process_time()
        first = _copy(repository, folder / "base/disk.img", values)
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
        stored, objects = contents(Path(scratch))
        changed = read_ranges(folder / "later.json")
        _copy(repository, folder / "later/disk.img", values, changed=changed, parent=first["snapshot"])
        more, _ = contents(Path(scratch))
    return {
        "seconds": seconds,
        "cpu": cpu,
        "stored": stored / MIB,
        "changed": (more - stored) / MIB,
        "objects": objects,
    }


def _copy(
    repository: Repository,
    image: Path,
    values: Values,
    changed: Ranges | None = None,
    parent: str | None = None,
) -> dict[str, Any]:
    source = open_source(image)
    changes = Given(changed) if changed else None
    job = volumes.VolumeJob("root", datetime.now(UTC), chunk_size=values.chunk_size, changes=changes)
    try:
        with repository.lock() as lock:
            return volumes.copy_volume(repository, lock, source, job, progress=Progress(), parent=parent)
    finally:
        source.close()


if __name__ == "__main__":
    main()
