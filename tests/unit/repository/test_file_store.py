"""The store in a folder: whole or not at all, restic's layout, and its failures by name."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Any

import pytest
from coeval.repository import direct
from coeval.repository.errors import InvalidArgument, RepositoryUnreachable
from coeval.repository.file_store import FileStore
from coeval.repository.store import CONFIG_NAME, Kind, open_store

NAME = "ab" * 32


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(str(tmp_path / "deep" / "down" / "repository"))


def test_objects_lie_where_restic_looks(files: FileStore) -> None:
    files.save(Kind.PACK, NAME, [b"a", b"", b"bc"])
    files.save(Kind.INDEX, NAME, [b"i"])
    assert files.create(Kind.CONFIG, CONFIG_NAME, [b"c"])
    found = {str(path.relative_to(files.root)) for path in files.root.rglob("*") if path.is_file()}
    assert found == {f"data/ab/{NAME}", f"index/{NAME}", "config"}, "and nothing in tmp/"
    assert files.load(Kind.PACK, NAME) == b"abc"
    assert list(files.entries(Kind.PACK)) == [(NAME, 3)]
    assert list(files.entries(Kind.CONFIG)) == [(CONFIG_NAME, 1)]
    assert (files.root / "config").stat().st_mode & 0o777 == 0o440
    assert files.root.stat().st_mode & 0o070 == 0o070, "movers of one group share the volume"


@pytest.mark.parametrize("refusing", ["", "fcntl", "pwrite"])
def test_a_pack_is_whole_however_the_filesystem_lets_us_write(
    files: FileStore, monkeypatch: pytest.MonkeyPatch, refusing: str
) -> None:
    original = os.pwrite

    def refuse(*arguments: Any) -> int:
        if refusing == "fcntl" and arguments[-1] == 0:  # switching the way off again
            return 0
        if refusing == "pwrite" and arguments[-1] == 0:  # the first piece goes, the second does not
            return original(*arguments)
        raise OSError(errno.EINVAL, "not in this way")

    if refusing:
        monkeypatch.setattr(fcntl if refusing == "fcntl" else os, refusing, refuse)
    parts = [os.urandom(direct.AT_ONCE // 3) for _ in range(5)] + [b"the end"]
    files.save(Kind.PACK, NAME, parts)
    assert files.load(Kind.PACK, NAME) == b"".join(parts)


def test_foreign_names_are_not_listed(files: FileStore) -> None:
    files.save(Kind.PACK, NAME, [b""])
    for name in (f"{NAME}-tmp-1", ".DS_Store"):
        (files.root / "data/ab" / name).write_bytes(b"")
    (files.root / "data/lost+found").mkdir()
    assert [name for name, _ in files.entries(Kind.PACK)] == [NAME]
    assert list(files.entries(Kind.LOCK)) == []


def test_only_old_leavings_are_swept(files: FileStore) -> None:
    files.save(Kind.PACK, NAME, [b""])
    old, young = files.root / "tmp/1-old", files.root / "tmp/2-young"
    for path in (old, young):
        path.write_bytes(b"half a pack")
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    assert files.sweep() == 1
    assert young.exists() and not old.exists()


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    blocked = FileStore(str(tmp_path / "file" / "below"))
    with pytest.raises(RepositoryUnreachable, match="Not a directory"):
        blocked.save(Kind.PACK, NAME, [b""])
    with pytest.raises(RepositoryUnreachable, match="Not a directory"):
        blocked.load(Kind.PACK, NAME)


@pytest.mark.parametrize("url", ["", "/plain/path", "file://host/path", "file:relative", "ftp://x/y"])
def test_urls_that_are_no_store_are_refused_with_a_way_out(url: str) -> None:
    with pytest.raises(InvalidArgument, match=r"--repository .*file:///path"):
        open_store(url)
