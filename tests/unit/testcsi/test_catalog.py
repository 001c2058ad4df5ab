"""The store's shelves: the record is the commit point, whatever else a killed driver left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.csi.catalog import HANDLE, Shelf, Volume, new_handle


def volume(handle: str, size: int = 8) -> Volume:
    return Volume(handle, f"name of {handle}", size, "Block", "")


def add(shelf: Shelf[Volume], size: int = 8) -> Volume:
    handle = new_handle("vol")

    def fill(fd: int) -> Volume:
        os.write(fd, b"x" * size)
        return volume(handle, size)

    return shelf.add(handle, fill, lambda _step: None)


def test_what_was_added_is_there_after_a_restart(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "volumes", Volume)
    made = [add(shelf), add(shelf)]
    again = Shelf(tmp_path / "volumes", Volume)
    assert again.all() == shelf.all() == made
    assert again.named(made[1].name) == made[1]
    assert again.image(made[0].handle).read_bytes() == b"x" * 8


def test_half_made_and_half_deleted_ones_are_discarded(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Volume)
    kept, half_deleted = add(shelf), add(shelf)
    (tmp_path / f"{half_deleted.handle}.json").unlink()
    (tmp_path / "vol-1.new").touch()
    (tmp_path / "vol-2.img").touch()
    (tmp_path / "vol-2.json.new").write_text("{")
    assert Shelf(tmp_path, Volume).all() == [kept]
    assert {path.name for path in tmp_path.iterdir()} == {f"{kept.handle}.img", f"{kept.handle}.json"}


def test_failed_fill_leaves_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Volume)

    def fill(_fd: int) -> Volume:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        shelf.add("vol-1", fill, lambda _step: None)
    assert list(tmp_path.iterdir()) == []
    assert shelf.all() == []


def test_record_without_image_is_damage(tmp_path: Path) -> None:
    made = add(Shelf(tmp_path, Volume))
    (tmp_path / f"{made.handle}.img").unlink()
    with pytest.raises(ValueError, match=made.handle):
        Shelf(tmp_path, Volume)


def test_growth_cut_short_is_finished_at_the_next_start(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Volume)
    made = add(shelf)
    shelf.grow(volume(made.handle, 16))
    os.truncate(shelf.image(made.handle), 8)
    again = Shelf(tmp_path, Volume)
    assert again.image(made.handle).read_bytes() == b"x" * 8 + bytes(8)


def test_removal_is_idempotent(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Volume)
    made = add(shelf)
    shelf.remove(made.handle)
    shelf.remove(made.handle)
    assert list(tmp_path.iterdir()) == []


def test_handles_are_unique_and_sort_by_age() -> None:
    handles = [new_handle("snap") for _ in range(100)]
    assert len(set(handles)) == 100
    assert [handle[:21] for handle in handles] == sorted(handle[:21] for handle in handles)
    assert all(HANDLE.fullmatch(handle) for handle in handles)
