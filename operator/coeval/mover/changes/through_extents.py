"""What of a file changed, from where its blocks lie at two moments and which device blocks changed between.

A block of the file is unchanged only if both maps put it at the same place on the device and that place is
not in the delta, or if it is a hole in both. This is right whatever happened in between (defragmentation,
another file of the same name), because a file's content is a function of the map and the device alone, on the
filesystems that `extents` accepts.
"""

from __future__ import annotations

from collections.abc import Iterator

from coeval.mover.changes.blocks import Blocks
from coeval.mover.changes.extents import HOLE, UNKNOWN, ExtentMap


def changed_blocks(base: ExtentMap, now: ExtentMap, delta: Blocks) -> Blocks:
    """Give what of the file that `now` maps may differ from the one that `base` maps. Offsets in the file.

    `delta` covers the device: every place where the two moments differ. What lies beyond the end of the base
    is taken for changed.
    """
    common = min(base.size, now.size)
    changed = Blocks()
    for begin, end, was, is_ in _side_by_side(base, now, common):
        if was == is_ == HOLE:
            continue
        if was != is_ or is_ == UNKNOWN:
            changed.add(begin, end)
            continue
        for dirty_begin, dirty_end in delta.within(is_, is_ + end - begin):
            changed.add(begin + dirty_begin - is_, begin + dirty_end - is_)
    changed.add(common, now.size)
    return changed


def _side_by_side(base: ExtentMap, now: ExtentMap, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut [0, limit) where either map begins a piece; give begin, end and both device offsets."""
    others = base.pieces(limit)
    other_begin = other_end = 0
    other = HOLE
    for piece_begin, end, physical in now.pieces(limit):
        begin = piece_begin
        while begin < end:
            while other_end <= begin:
                other_begin, other_end, other = next(others)
            stop = min(end, other_end)
            yield begin, stop, _at(other, begin - other_begin), _at(physical, begin - piece_begin)
            begin = stop


def _at(physical: int, skipped: int) -> int:
    return physical if physical in (HOLE, UNKNOWN) else physical + skipped
