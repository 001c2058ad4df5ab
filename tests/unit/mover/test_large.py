"""Volumes of several TiB: what does not change, and what is not there, costs next to nothing."""

from __future__ import annotations

import json
import os
import sys
from array import array
from itertools import pairwise
from pathlib import Path
from typing import Any

from coeval.mover.content import ContentList
from coeval.mover.ranges import Ranges
from coeval.mover.retime import make_plan
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.measure import Command, run
from tests.tools.repositories import Cli

MIB, TIB = 1 << 20, 1 << 40
SIZE = 2 * TIB + 4097
PLACES = (5 * MIB - 1, TIB + 12345, SIZE - 9)


def measured(cli: Cli, *words: str) -> dict[str, Any]:
    """Run a command as a process; it must keep to the memory that a mover is promised."""
    group, verb, *rest = words
    command = [sys.executable, "-m", "coeval.cli.main", group, verb, *cli.access, *rest]
    usage, output = run(Command(command))
    assert usage.peak_rss <= 300 * MIB + SIZE // TIB * 60 * MIB
    document: dict[str, Any] = json.loads(output)
    return document


def test_a_sparse_volume_of_terabytes_is_quick_and_small(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    image, target = tmp_path / "image", tmp_path / "target"
    with image.open("wb") as file:
        file.truncate(SIZE)
        for place in PLACES:
            os.pwrite(file.fileno(), b"something", place)
    copy = ("volume", "copy", "--name", "root", "--source", str(image))

    full = measured(cli, *copy)
    assert full["chunks"] == -(-SIZE // MIB) and full["bytes_added"] < MIB
    assert full["bytes_read"] < 10 * MIB

    (tmp_path / "ranges").write_text(json.dumps({"size": SIZE, "ranges": [[PLACES[1], 1]]}))
    known = measured(cli, *copy, "--parent", full["snapshot"], "--changed", str(tmp_path / "ranges"))
    assert known["chunks_changed"] == 0 and "fallback" not in known

    cli.run("commit", "--snapshot", full["snapshot"])
    words = ("--name", "root", "--snapshot", "latest", "--target", str(target), "--sparse")
    assert measured(cli, "volume", "restore", *words)["bytes_total"] == SIZE
    assert target.stat().st_size == SIZE and target.stat().st_blocks * 512 < 10 * MIB
    with target.open("rb") as file:
        for place in PLACES:
            assert os.pread(file.fileno(), 9, place) == b"something"


@given(
    chunks=st.lists(st.integers(1, 9), max_size=12),
    size=st.integers(0, 90),
    edges=st.sets(st.integers(0, 90), max_size=8).map(sorted),
)
def test_dirty_and_clean_chunks_are_told_apart(chunks: list[int], size: int, edges: list[int]) -> None:
    base = ContentList(
        bytearray(b"".join(bytes([n + 1]) * 32 for n in range(len(chunks)))), array("I", chunks)
    )
    ranges = [(a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=False) if b <= size]
    plan = make_plan(base, Ranges(size, tuple(ranges)), size, 8)

    assert plan.content.size == size and len(plan.content.ids) == 32 * len(plan.content)
    dirty = list(plan.dirty)
    assert dirty == sorted(set(dirty))
    clean = [slot for slot in range(len(plan.content)) if slot not in dirty]
    assert [plan.clean_slot(number) for number in range(plan.clean)] == clean
    assert [slot for first, stop in plan.runs(0, len(dirty)) for slot in range(first, stop)] == dirty
    assert all(first > before for (_, before), (first, _) in pairwise(plan.runs(0, len(dirty))))
    for slot in clean:
        offset, length = plan.offsets[slot], plan.content.lengths[slot]
        assert plan.content.id(slot) == base.id(slot) and length == base.lengths[slot]
        assert not any(begin < offset + length and offset < begin + count for begin, count in ranges)


@given(counts=st.lists(st.tuples(st.sampled_from(b"abc"), st.integers(1, 40)), max_size=6))
def test_stretches_are_all_chunks_in_order(counts: list[tuple[int, int]]) -> None:
    content = ContentList()
    for letter, count in counts:
        for _ in range(count):
            content.append(bytes([letter]) * 32, 7)
    walked = 0
    for slot, count in content.stretches():
        assert slot == walked
        assert {content.id(at) for at in range(slot, slot + count)} == {content.id(slot)}
        walked += count
    assert walked == len(content)
