"""The composition of two maps and a delta, against a model: a device of blocks, and files that map to it."""

from __future__ import annotations

import pytest
from coeval.mover.changes.blocks import Blocks
from coeval.mover.changes.extents import HOLE, MOST_EXTENTS, UNKNOWN, ExtentMap
from coeval.mover.changes.through_extents import changed_blocks
from coeval.mover.changes.unknown import ChangesUnknown, Reason
from hypothesis import given, settings
from hypothesis import strategies as st

BLOCK = 4
DEVICE = 12
"""Blocks."""

# A file is a size and for each of its blocks a place on the device, a hole, or something that is not plain.
places = st.lists(st.one_of(st.integers(0, DEVICE - 1), st.sampled_from([HOLE, UNKNOWN])), max_size=10)
devices = st.lists(st.integers(0, 2), min_size=DEVICE, max_size=DEVICE)


def mapped(blocks: list[int], cut: int) -> ExtentMap:
    size = max(0, len(blocks) * BLOCK - cut)
    made = ExtentMap(size, DEVICE * BLOCK, "ext4")
    for number, place in enumerate(blocks):
        length = min(BLOCK, size - number * BLOCK)
        if place != HOLE and length > 0:
            made.add(number * BLOCK, place if place == UNKNOWN else place * BLOCK, length)
    return made


def content(blocks: list[int], cut: int, device: list[int], unknown: int) -> list[tuple[int, int]]:
    """A file's bytes, each as (value, its place within the block)."""
    size = max(0, len(blocks) * BLOCK - cut)
    values = [0 if p == HOLE else unknown if p == UNKNOWN else device[p] for p in blocks]
    return [(value, at if value else 0) for value in values for at in range(BLOCK)][:size]


@settings(max_examples=400, deadline=None)
@given(
    base=places, base_cut=st.integers(0, 3), now=places, now_cut=st.integers(0, 3),
    before=devices, after=devices, extra=st.sets(st.integers(0, DEVICE - 1)),
)  # fmt: skip
def test_every_difference_is_covered_and_nothing_else_than_maps_and_delta_say(
    base: list[int],
    base_cut: int,
    now: list[int],
    now_cut: int,
    before: list[int],
    after: list[int],
    extra: set[int],
) -> None:
    delta = Blocks()
    told = {n for n in range(DEVICE) if before[n] != after[n]} | extra
    for number in sorted(told):
        delta.add(number * BLOCK, (number + 1) * BLOCK)
    was, is_ = mapped(base, base_cut), ExtentMap.decode(mapped(now, now_cut).encode())
    changed = changed_blocks(was, is_, delta)
    assert changed.end <= is_.size
    # What is not plain may be anything, and another thing each time.
    old, new = content(base, base_cut, before, 7), content(now, now_cut, after, 8)
    reported = {at for begin, end in changed for at in range(begin, end)}
    different = {at for at in range(len(new)) if at >= len(old) or old[at] != new[at]}
    assert different <= reported
    for at in reported:
        block = at // BLOCK
        place = now[block]
        same = at < len(old) and base[block] == place
        assert not same or place == UNKNOWN or place in told


def test_neighbours_are_joined_only_where_the_device_goes_on_too() -> None:
    made = mapped([3, 4, 6, UNKNOWN, UNKNOWN, HOLE, 7], 0)
    assert list(zip(made.logical, made.physical, made.length, strict=True)) == [
        (0, 12, 8),
        (8, 24, 4),
        (12, UNKNOWN, 8),
        (24, 28, 4),
    ]


def test_a_file_in_too_many_pieces_is_not_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_EXTENTS * 24 <= 32 << 20
    monkeypatch.setattr("coeval.mover.changes.extents.MOST_EXTENTS", 2)
    with pytest.raises(ChangesUnknown) as caught:
        mapped([0, 2, 4], 0)
    assert caught.value.reason is Reason.TOO_FRAGMENTED


@pytest.mark.parametrize("text", [b"", b"{}", b"[]\n", b'{"version":2}\n', mapped([1], 0).encode()[:-1]])
def test_a_map_that_cannot_be_read_is_none(text: bytes) -> None:
    with pytest.raises(ChangesUnknown) as caught:
        ExtentMap.decode(text)
    assert caught.value.reason is Reason.NO_EXTENT_MAP
