"""The judge: do these disks show one moment?

The guest's writer puts step n on its first disk, makes that durable, then on the second, and so on (see
build/guest/writer). At any one moment no disk is ahead of one before it in that order, and none is more than
one step behind. Restored disks that show anything else are of different moments.

    python -m tests.cluster.guest.judge a0=a0.img b0=b0.img

Each file is a whole disk: an ext4 file system, or an MBR whose Linux partition is one. The files are only
read; journals are replayed in temporary copies by e2fsck, which needs neither root nor a mount.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RECORD = 64
"""Bytes of a record: `number disk crc32`, padded, with a newline."""
HISTORY = 4096
"""Records in the ring: record n is at slot n mod HISTORY."""


class CannotJudge(Exception):
    """A disk holds no file system, or no sequence was ever written."""


@dataclass(frozen=True)
class Reading:
    """What one disk says: the last step on it, and the steps before it that are not where they must be."""

    disk: str
    last: int
    lost: tuple[int, ...] = ()
    damage: str = ""
    """What the check of the file system found beyond repair, in its own words."""


@dataclass(frozen=True)
class Verdict:
    """Whether disks show one moment. `a` and `b` are the steps of the two that differ most, in order."""

    consistent: bool
    a: int
    b: int
    steps: int
    """How many steps separate `a` and `b` from the nearest state that one moment allows."""
    sentence: str
    readings: tuple[Reading, ...]


def judge(disks: Mapping[str, Path]) -> Verdict:
    """Judges whole disks by name, in any order. Raises CannotJudge."""
    return decide([read_disk(disk, disks[disk]) for disk in order(disks)])


def order(disks: Mapping[str, Path] | Sequence[str]) -> list[str]:
    """The writer's order: a0 b0 a1 b1 …, images and direct disks in turn."""
    return sorted(disks, key=lambda disk: (int(disk[1:]), disk[0]))


def decide(readings: Sequence[Reading]) -> Verdict:
    """The verdict over readings in the writer's order. Raises CannotJudge when nothing was ever written."""
    if len(readings) < 2 or not any(reading.last for reading in readings):
        raise CannotJudge("no sequence was written to these disks: was the guest's writer ever running?")
    pairs = [(first, second) for i, first in enumerate(readings) for second in readings[i + 1 :]]
    first, second = max(pairs, key=lambda pair: (_steps(*pair), abs(pair[0].last - pair[1].last)))
    steps = _steps(first, second)
    faults = [text for reading in readings if (text := _fault(reading))]
    seen = ", ".join(f"{reading.disk} at step {reading.last}" for reading in readings)
    if steps:
        late, early = (second, first) if second.last > first.last else (first, second)
        many = "1 step" if steps == 1 else f"{steps} steps"
        sentence = f"broken by {many}: {seen}; {late.disk} is of a later moment than {early.disk}"
        sentence = "; ".join([sentence, *faults])
    elif faults:
        sentence = f"broken: {'; '.join(faults)} ({seen})"
    else:
        sentence = f"consistent: {seen}, as at one moment"
    return Verdict(not steps and not faults, first.last, second.last, steps, sentence, tuple(readings))


def _steps(first: Reading, second: Reading) -> int:
    """How far `second` is from the two values that it can have beside `first`: as many, or one less."""
    return max(second.last - first.last, first.last - second.last - 1, 0)


def _fault(reading: Reading) -> str:
    """What is wrong with one disk by itself."""
    if reading.damage:
        return f"{reading.disk} has a damaged file system ({reading.damage})"
    if reading.lost:
        return (
            f"{reading.disk} mixes moments: {len(reading.lost)} of its steps before {reading.last} are not "
            f"in their places, the first is {reading.lost[0]}"
        )
    return ""


def parse(disk: str, content: bytes) -> Reading:
    """Reads a sequence file.

    Only the place of the next record may hold anything at all: a step that was being written. Every other one
    of the ring holds the step that belongs there.
    """
    slots = {}
    for slot in range(len(content) // RECORD):
        number = parse_record(disk, content[slot * RECORD : (slot + 1) * RECORD])
        if number is not None:
            slots[slot] = number
    last = max(slots.values(), default=0)
    expected = range(max(1, last - HISTORY + 2), last + 1)
    return Reading(disk, last, tuple(n for n in expected if slots.get(n % HISTORY) != n))


def parse_record(disk: str, record: bytes) -> int | None:
    """The step that a record tells, or None if it is not a whole record of this disk."""
    fields = record.decode("ascii", "replace").split()
    if len(fields) != 3 or fields[1] != disk or not fields[0].isdecimal() or record[-1:] != b"\n":
        return None
    checksum = zlib.crc32(record[: record.index(b" ") + 1 + len(disk)])
    return int(fields[0]) if fields[2] == f"{checksum:08x}" else None


def read_disk(disk: str, path: Path) -> Reading:
    """Reads the sequence of one disk from its file or device, which stays as it is. Raises CannotJudge."""
    offset, length = file_system(path)
    with tempfile.TemporaryDirectory(prefix="coeval-judge-") as folder:
        copy = Path(folder) / "file-system"
        flags = ["bs=1M", "iflag=skip_bytes,count_bytes", "conv=sparse", "status=none"]
        dd = ["dd", f"if={path}", f"of={copy}", f"skip={offset}", f"count={length}", *flags]
        subprocess.run(dd, check=True)
        with copy.open("r+b") as file:
            file.truncate(length)  # conv=sparse leaves a hole at the end out
        # Replays the journal and repairs only what a power cut may leave; 4 and more is damage.
        check = subprocess.run(["e2fsck", "-f", "-p", str(copy)], capture_output=True, text=True, check=False)
        damage = (
            check.stdout.strip().splitlines()[0].replace(str(copy), disk) if check.returncode >= 4 else ""
        )
        target = Path(folder) / "sequence"
        dump = ["debugfs", "-R", f"dump /sequence {target}", str(copy)]
        subprocess.run(dump, capture_output=True, check=False)
        reading = parse(disk, target.read_bytes() if target.exists() else b"")
    return Reading(disk, reading.last, reading.lost, damage)


def file_system(path: Path) -> tuple[int, int]:
    """Where the ext4 file system of a disk is, as offset and length in bytes. Raises CannotJudge."""
    with path.open("rb") as disk:
        size = disk.seek(0, 2)
        disk.seek(0)
        head = disk.read(2048)
        if head[1080:1082] == b"\x53\xef":
            return 0, size
        for entry in range(446, 510, 16) if head[510:512] == b"\x55\xaa" else ():
            start = int.from_bytes(head[entry + 8 : entry + 12], "little") * 512
            length = int.from_bytes(head[entry + 12 : entry + 16], "little") * 512
            disk.seek(start + 1080)
            if head[entry + 4] == 0x83 and disk.read(2) == b"\x53\xef":
                return start, length
    raise CannotJudge(f"{path} holds no ext4 file system: was the guest ever started?")


def main(arguments: Sequence[str]) -> int:
    """Prints the sentence; 0 is consistent, 1 broken, 2 cannot be judged."""
    disks = {name: Path(path) for name, _, path in (argument.partition("=") for argument in arguments)}
    try:
        verdict = judge(disks)
    except CannotJudge as error:
        print(error)
        return 2
    print(verdict.sentence)
    return 0 if verdict.consistent else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
