"""System calls that go wrong: those on files, made through `os`, are counted, and one of them is changed."""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pytest

READING = {"stat", "listdir", "scandir", "pread", "lseek", "fstatvfs", "io.open"}
WRITING = {"writev", "pwrite"}
CHANGING = {"mkdir", "chmod", "fchmod", "rename", "link", "unlink", "ftruncate", "posix_fallocate", "fsync"}
ALLOCATING = {"open", "mkdir", "rename", "link", "fsync", "ftruncate", "posix_fallocate"} | WRITING

Act = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""What happens instead of a call: given the real function and its arguments."""


@dataclass
class Syscalls:
    """Within `with`, records the names of the calls; in place of the one numbered `at`, does `act`."""

    at: int = -1
    act: Act | None = None
    names: list[str] = field(default_factory=list)

    def __enter__(self) -> Syscalls:
        self._patch = pytest.MonkeyPatch()
        for name in READING - {"io.open"} | WRITING | CHANGING | {"open", "close"}:
            self._patch.setattr(os, name, self._wrap(name, getattr(os, name)))
        self._patch.setattr(io, "open", self._wrap("io.open", io.open))
        self._patch.setattr(fcntl, "ioctl", self._wrap("ioctl", fcntl.ioctl))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patch.undo()

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.names.append(name)
            if self.act and len(self.names) - 1 == self.at:
                return self.act(real, arguments, more)
            return real(*arguments, **more)

        return call


def fails(code: int) -> Act:
    """An error, and nothing happened."""

    def act(real: Callable[..., Any], arguments: tuple[Any, ...], more: dict[str, Any]) -> Any:
        raise OSError(code, os.strerror(code))

    return act


def fails_late(code: int) -> Act:
    """An error although it happened."""

    def act(real: Callable[..., Any], arguments: tuple[Any, ...], more: dict[str, Any]) -> Any:
        with suppress(FileNotFoundError):  # of what is gone anyway
            real(*arguments, **more)
        raise OSError(code, os.strerror(code))

    return act


def writes_little(then: int | None = None) -> Act:
    """Little is written, then comes an error, or the number of bytes written as the manual says it may.

    It is a byte, or a block where a write around the page cache may end.
    """

    def act(real: Callable[..., Any], arguments: tuple[Any, ...], more: dict[str, Any]) -> Any:
        file, data, *rest = arguments
        views = [data] if isinstance(data, memoryview) else [view for view in data if len(view)]
        few: Any = views[0][:1] if len(views[0]) % 4096 else views[0][:4096]
        few = few if isinstance(data, memoryview) else [few]
        written = real(file, few, *rest)
        if then:
            raise OSError(then, os.strerror(then))
        return written

    return act


def dies(*, late: bool) -> Act:
    """The process is gone, as by SIGKILL: no handler runs, nothing is cleaned up. For use in a child."""

    def act(real: Callable[..., Any], arguments: tuple[Any, ...], more: dict[str, Any]) -> Any:
        if late:
            with suppress(OSError):  # some are made to find out whether they work
                real(*arguments, **more)
        os._exit(9)

    return act


def in_child(action: Callable[[], object]) -> int:
    """Run something in a forked process; give its status: 0, 1 after an exception, or what it ended with."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def faults(name: str, *, full: int, broken: int) -> Iterator[tuple[str, Act]]:
    """Give what may go wrong with a call, with a label."""
    if name != "close":  # a file that is still open would be ours to leak
        yield "error", fails(broken)
    if name not in READING:
        yield "late error", fails_late(broken)
    if name in ALLOCATING:
        yield "full", fails(full)
    if name in WRITING:
        yield "short", writes_little()
        yield "short, then full", writes_little(full)
