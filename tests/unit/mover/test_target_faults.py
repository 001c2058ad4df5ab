"""Every system call on the target of a restore goes wrong once: the name shows the old content or the new."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from coeval.mover.errors import TargetUnusable
from coeval.mover.targets import open_target

from tests.tools.syscalls import Syscalls, dies, faults, in_child

BLOCK = 4096
OLD = b"what was there"
FIRST, LAST = b"first " * BLOCK, b"the last, which ends in no block"
NEW = FIRST + bytes(5 * BLOCK) + LAST


def restore(path: Path, *, sparse: bool) -> None:
    target = open_target(path, sparse=sparse, overwrite=True)
    try:
        target.prepare(len(NEW), len(FIRST) + len(LAST))
        target.write(0, [FIRST[:100], FIRST[100:]])
        target.zero(len(FIRST), 5 * BLOCK)
        target.write(len(NEW) - len(LAST), [LAST])
        target.finish()
    finally:
        target.close()


def calls(path: Path, *, sparse: bool) -> list[str]:
    path.write_bytes(OLD)
    with Syscalls() as counted:
        restore(path, sparse=sparse)
    assert path.read_bytes() == NEW
    return counted.names


@pytest.mark.parametrize("sparse", [False, True])
def test_an_error_at_any_call_is_named_and_leaves_old_or_new(tmp_path: Path, sparse: bool) -> None:
    path = tmp_path / "target"
    for number, name in enumerate(calls(path, sparse=sparse)):
        for fault, act in faults(name, full=errno.ENOSPC, broken=errno.EIO):
            path.write_bytes(OLD)
            done = False
            try:
                with Syscalls(number, act):
                    restore(path, sparse=sparse)
                done = True
            except TargetUnusable as error:
                assert f"--target {path}" in str(error)
            assert done == (fault == "short"), f"{fault} of {name} went by"
            assert path.read_bytes() in ({NEW} if done else {OLD, NEW})
            assert len(list(tmp_path.iterdir())) == 1 or name in ("unlink", "open"), f"{fault} of {name}"
            restore(path, sparse=sparse)
            assert path.read_bytes() == NEW and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_process_that_dies_at_any_call_leaves_old_or_new(tmp_path: Path, sparse: bool, late: bool) -> None:
    path = tmp_path / "target"
    for number in range(len(calls(path, sparse=sparse))):
        path.write_bytes(OLD)

        def run(number: int = number) -> None:
            with Syscalls(number, dies(late=late)):
                restore(path, sparse=sparse)

        assert in_child(run) == 9
        assert path.read_bytes() in {OLD, NEW}
        restore(path, sparse=sparse)
        assert path.read_bytes() == NEW and len(list(tmp_path.iterdir())) == 1
