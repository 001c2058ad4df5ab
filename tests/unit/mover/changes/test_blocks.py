"""Stretches: joined as they come, found by place, rounded out to chunks without running into each other."""

from __future__ import annotations

import pytest
from coeval.mover.changes.blocks import Blocks


def blocks(*stretches: tuple[int, int]) -> Blocks:
    made = Blocks()
    for begin, end in stretches:
        made.add(begin, end)
    return made


def test_neighbours_are_joined_and_disorder_is_refused() -> None:
    made = blocks((0, 4), (4, 8), (8, 8), (9, 12))
    assert (list(made), made.total, made.end) == ([(0, 8), (9, 12)], 11, 12)
    with pytest.raises(ValueError, match="begins before 12"):
        made.add(11, 13)


@pytest.mark.parametrize(
    ("begin", "end", "found"),
    [
        (0, 100, [(2, 4), (8, 12), (20, 21)]),
        (3, 9, [(3, 4), (8, 9)]),
        (4, 8, []),
        (9, 10, [(9, 10)]),
        (12, 20, []),
        (21, 99, []),
    ],
)
def test_finds_what_lies_within(begin: int, end: int, found: list[tuple[int, int]]) -> None:
    assert list(blocks((2, 4), (8, 12), (20, 21)).within(begin, end)) == found


def test_ranges_are_whole_units_up_to_the_end_of_the_volume() -> None:
    made = blocks((1, 2), (3, 9), (17, 18), (29, 40))
    assert made.ranges(31, 8).ranges == ((0, 31),)
    assert blocks((1, 2), (9, 10), (25, 26)).ranges(100, 8).ranges == ((0, 16), (24, 8))
    assert blocks((50, 60)).ranges(40, 8).ranges == ()
    assert Blocks().ranges(0, 8).ranges == ()
