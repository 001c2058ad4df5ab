"""The volumes that are measured: made of what the machine has, by a fixed seed, kept between runs.

A volume is three image files: its first moment, and two later ones with a hundredth of it written anew.
Two, because what one run stored would spare the next.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
Words = list[str | Path]
SEED = 20261123
_FULL = 0.6
"""Of a VM's disk that is filled with files, before every eighth of them is deleted again."""
_SOURCES = ("/usr/bin", "/usr/lib", "/usr/share", "/usr/local", "/opt")
_PAGE = 4096


@dataclass(frozen=True)
class Volume:
    """Image files by moment, with the ranges by which each differs from the first."""

    name: str
    size: int
    folder: Path

    def image(self, moment: str) -> Path:
        """Give the image at `base`, `later` or `last`; each is alone in its folder."""
        return self.folder / moment / "disk.img"

    def ranges(self, moment: str) -> Path:
        """Give the file of ranges that lead from the first moment to this one, in either direction."""
        return self.folder / f"{moment}.json"


KINDS = ("vm", "random", "zero", "database")


def volume_in(folder: Path, kind: str, size: int) -> Volume:
    """Give a volume; it is made if it is not there. `size` in bytes, a multiple of a MiB.

    Made by another process: what this one once needed would count for every program that it starts.
    """
    volume = Volume(kind, size, folder / f"{kind}-{size // MIB}M")
    if not volume.folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        words: Words = [sys.executable, "-m", "tests.bench.images", folder, kind, str(size)]
        subprocess.run(words, check=True)
    return volume


def _make(folder: Path, kind: str, size: int) -> None:
    final = folder / f"{kind}-{size // MIB}M"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Volume(kind, size, Path(scratch) / final.name)
        for moment in ("base", "later", "last"):
            made.image(moment).parent.mkdir(parents=True)
        _MAKERS[kind](made.image("base"), size, Path(scratch))
        made.ranges("base").write_text(json.dumps({"size": size, "ranges": []}))
        for number, moment in enumerate(("later", "last")):
            subprocess.run(["cp", "--sparse=auto", made.image("base"), made.image(moment)], check=True)
            ranges = _rewrite(made.image(moment), size, random.Random(SEED + number))  # noqa: S311
            made.ranges(moment).write_text(json.dumps({"size": size, "ranges": ranges}))
        made.folder.rename(final)


def _vm(image: Path, size: int, scratch: Path) -> None:
    """Make an ext4 filesystem with programs and texts in it, a part of them deleted, the rest holes."""
    tree = scratch / "files"
    tree.mkdir()
    copied = 0
    names: list[str] = []
    for path in _files():
        length = path.stat().st_size
        if copied + length > _FULL * size:
            continue
        target = tree / f"{len(names) % 97}" / f"{len(names)}-{path.name}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
        names.append(str(target.relative_to(tree)))
        copied += length
        if copied > (_FULL - 0.02) * size:
            break
    make: Words = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, image, f"{size // 1024}k"]
    subprocess.run(make, check=True, capture_output=True)
    gone = "".join(f'rm "/{name}"\n' for name in names[::8])
    subprocess.run(["debugfs", "-w", "-f", "-", image], input=gone.encode(), check=True, capture_output=True)
    shutil.rmtree(tree)


def _files() -> Iterator[Path]:
    """Give the machine's own files, in an order that mixes kinds but is the same every time."""
    found: list[Path] = []
    for top in _SOURCES:
        for folder, _, names in os.walk(top):
            found += [Path(folder, name) for name in names]
    found.sort()
    random.Random(SEED).shuffle(found)  # noqa: S311
    return (path for path in found if path.is_file() and not path.is_symlink())


def _random(image: Path, size: int, _: Path) -> None:
    generator = random.Random(SEED)  # noqa: S311
    with image.open("wb") as file:
        for _at in range(0, size, MIB):
            file.write(generator.randbytes(MIB))


def _zero(image: Path, size: int, _: Path) -> None:
    """Zeros that are really there: a disk that was wiped, not one with holes."""
    with image.open("wb") as file:
        for _at in range(0, size, MIB):
            file.write(bytes(MIB))


def _database(image: Path, size: int, scratch: Path) -> None:
    """Make a database of rows as of a shop: numbers, times, names, some of it random."""
    generator = random.Random(SEED)  # noqa: S311
    path = scratch / "shop.sqlite"
    words = [generator.randbytes(4).hex() for _ in range(5000)]
    database = sqlite3.connect(path)
    database.execute("pragma journal_mode = off")
    database.execute("pragma synchronous = off")
    database.execute("create table orders (id integer primary key, at text, who text, what text, token blob)")
    while path.stat().st_size < size:
        database.executemany(
            "insert into orders (at, who, what, token) values (?, ?, ?, ?)",
            (
                (
                    f"2026-11-{generator.randrange(1, 31):02}T{generator.randrange(24):02}:00:00Z",
                    " ".join(generator.choices(words, k=3)),
                    " ".join(generator.choices(words, k=generator.randrange(5, 40))),
                    generator.randbytes(48),
                )
                for _ in range(20_000)
            ),
        )
        database.commit()
    database.close()
    os.truncate(path, size)
    path.rename(image)


_MAKERS: dict[str, Callable[[Path, int, Path], None]] = {
    "vm": _vm,
    "random": _random,
    "zero": _zero,
    "database": _database,
}


def _rewrite(image: Path, size: int, generator: random.Random) -> list[list[int]]:
    """Write a hundredth anew as a guest does: two thirds of it as whole files, one third as single pages."""
    budget = size // 100
    places: dict[int, int] = {}
    while budget > 0:
        length = MIB if generator.random() < 1 / 32 else 4 * _PAGE
        length = min(length, max(_PAGE, budget // _PAGE * _PAGE))
        at = generator.randrange(0, max(1, size - length)) // _PAGE * _PAGE
        places[at] = max(length, places.get(at, 0))
        budget -= length
    ranges: list[list[int]] = []
    with image.open("r+b") as file:
        for at, length in sorted(places.items()):
            file.seek(at)
            file.write(generator.randbytes(length // 2) + b"changed " * (length // 16))
            if ranges and at <= sum(ranges[-1]):
                ranges[-1][1] = max(sum(ranges[-1]), at + length) - ranges[-1][0]
            else:
                ranges.append([at, length])
    return ranges


if __name__ == "__main__":
    _make(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
