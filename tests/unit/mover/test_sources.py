"""Sources: holes are not read, sizes may be anything, ranges are checked entry by entry."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from coeval.mover.errors import InvalidRanges, SourceSizeMismatch, SourceUnreadable
from coeval.mover.ranges import Ranges, read_ranges
from coeval.mover.sources import open_source

PAGE = 64 << 10
"""Larger than any block of a filesystem that tests meet, so that holes stay holes."""


def test_a_sparse_file_is_read_where_it_has_data(tmp_path: Path) -> None:
    path = tmp_path / "image"
    size = 10 * PAGE + 7
    with path.open("wb") as file:
        file.truncate(size)
        for page in (2, 3, 6):
            file.seek(page * PAGE)
            file.write(b"d" * PAGE)
    expected = path.read_bytes()
    source = open_source(path)
    assert source.size == size
    for length in (PAGE // 2, PAGE, 3 * PAGE, size):
        total = 0
        for offset in range(0, size, length):
            view = memoryview(bytearray(b"?" * min(length, size - offset)))
            read = source.read_into(offset, view)
            total += read
            assert (bytes(view) if read else bytes(len(view))) == expected[offset : offset + length]
        assert total == 3 * PAGE
    source.close()


def test_a_file_that_shrinks_is_an_error_not_zeros(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"d" * 4 * PAGE)
    source = open_source(path)
    os.truncate(path, PAGE)
    with pytest.raises(SourceSizeMismatch, match=str(path)):
        source.read_into(2 * PAGE, memoryview(bytearray(PAGE)))
    with pytest.raises(SourceSizeMismatch, match=str(path)):
        source.read_into(0, memoryview(bytearray(2 * PAGE)))


def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(SourceUnreadable, match=f"--source {path}"):
            open_source(path)


def write(path: Path, document: object) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_good_ranges_are_read(tmp_path: Path) -> None:
    document = {"size": 100, "ranges": [[0, 10], [10, 5], [99, 1]]}
    assert read_ranges(write(tmp_path / "r", document)) == Ranges(100, ((0, 10), (10, 5), (99, 1)))
    assert read_ranges(write(tmp_path / "r", {"size": 0, "ranges": []})) == Ranges(0, ())


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ("", "r: "),
        ("[]", "object"),
        ({"size": 1}, "object"),
        ({"size": 1, "ranges": [], "more": 1}, "object"),
        ({"size": -1, "ranges": []}, "size -1"),
        ({"size": True, "ranges": []}, "size True"),
        ({"size": 1, "ranges": {}}, "not a list"),
        ({"size": 9, "ranges": [[0, 1], [3]]}, r"ranges\[1\] = \[3\]"),
        ({"size": 9, "ranges": [[0, 1], "x"]}, r"ranges\[1\]"),
        ({"size": 9, "ranges": [[0, 1.5]]}, r"ranges\[0\] = \[0, 1.5\]"),
        ({"size": 9, "ranges": [[-1, 1]]}, r"ranges\[0\]"),
        ({"size": 9, "ranges": [[1, 0]]}, "is empty"),
        ({"size": 9, "ranges": [[4, 2], [5, 1]]}, r"ranges\[1\] = \[5, 1\] begins before"),
        ({"size": 9, "ranges": [[4, 2], [1, 1]]}, "begins before"),
        ({"size": 9, "ranges": [[4, 6]]}, "ends beyond the volume's size of 9"),
    ],
)
def test_bad_ranges_are_refused_with_the_entry_named(tmp_path: Path, document: object, named: str) -> None:
    with pytest.raises(InvalidRanges, match=named):
        read_ranges(write(tmp_path / "r", document))
    with pytest.raises(InvalidRanges, match="missing"):
        read_ranges(tmp_path / "missing")
