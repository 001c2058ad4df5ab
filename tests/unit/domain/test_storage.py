"""The snapshot class is the one that the snapshot controller itself would take."""

import pytest
from coeval.domain.storage import SnapshotClass, choose_class

A = SnapshotClass("a", "one")
B = SnapshotClass("b", "one")
B_DEFAULT = SnapshotClass("b", "one", default=True)
A_DEFAULT = SnapshotClass("a", "one", default=True)
OTHER = SnapshotClass("o", "two", default=True)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([A, OTHER], "a"),
        ([A, B_DEFAULT], "b"),
        ([B_DEFAULT, A], "b"),
    ],
)
def test_choice(classes: list[SnapshotClass], expected: str) -> None:
    found = choose_class(classes, "one")
    assert isinstance(found, SnapshotClass)
    assert found.name == expected


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([], "no VolumeSnapshotClass"),
        ([OTHER], "no VolumeSnapshotClass"),
        ([A, B], "none of"),
        ([A_DEFAULT, B_DEFAULT], "more than one"),
    ],
)
def test_no_choice(classes: list[SnapshotClass], words: str) -> None:
    found = choose_class(classes, "one")
    assert isinstance(found, str)
    assert words in found
