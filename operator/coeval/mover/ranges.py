"""Changed ranges: which bytes of a volume may differ between two moments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from coeval.mover.errors import InvalidRanges
from coeval.repository.documents import parse_document


@dataclass(frozen=True)
class Ranges:
    """Byte ranges (offset, length), ascending and apart, within a volume of `size` bytes."""

    size: int
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def everything(cls, size: int) -> Ranges:
        """Take the whole volume for changed: the comparison of chunk ids then finds what really is."""
        return cls(size, ((0, size),) if size else ())


def read_ranges(path: Path) -> Ranges:
    """Read `{"size": bytes, "ranges": [[offset, length], …]}`. Raises InvalidRanges, naming the bad entry."""
    try:
        doc = parse_document(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRanges(f"--changed {path}: {error}") from error
    if not isinstance(doc, dict) or set(doc) != {"size", "ranges"}:
        raise InvalidRanges(f'--changed {path}: it must be an object with just "size" and "ranges"')
    size, ranges = doc["size"], doc["ranges"]
    if not _count(size):
        raise InvalidRanges(f"--changed {path}: size {size!r} is not a number of bytes")
    if not isinstance(ranges, list):
        raise InvalidRanges(f"--changed {path}: ranges is not a list")
    end = 0
    for number, entry in enumerate(ranges):
        problem = _problem(entry, end, size)
        if problem:
            raise InvalidRanges(f"--changed {path}: ranges[{number}] = {json.dumps(entry)} {problem}")
        end = entry[0] + entry[1]
    return Ranges(size, tuple((offset, length) for offset, length in ranges))


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _problem(entry: object, end: int, size: int) -> str | None:
    if not isinstance(entry, list) or len(entry) != 2 or not all(_count(value) for value in entry):
        return "is not [offset, length] in bytes"
    offset, length = entry
    if length == 0:
        return "is empty"
    if offset < end:
        return f"begins before the previous one ends, at {end}: ranges must ascend and not overlap"
    if offset + length > size:
        return f"ends beyond the volume's size of {size}"
    return None
