"""What a program costs: it runs as a process of its own, and the kernel says what that took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class ProgramFailed(Exception):
    """A measured program ended with an error; the message has its last words."""


@dataclass(frozen=True)
class Command:
    """A program's call."""

    words: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


@dataclass(frozen=True)
class Usage:
    """What a run took. Bytes, seconds; `bytes_read` is by system calls, whether the cache had them or not."""

    seconds: float
    cpu_seconds: float
    peak_rss: int
    bytes_read: int


_LAUNCHER = """
import json, os, sys, time
begun = time.monotonic()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # not yet reaped: its counters can still be read
seconds = time.monotonic() - begun
read = int(open(f"/proc/{pid}/io").read().split()[1])
_, status, used = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([seconds, used.ru_utime + used.ru_stime, used.ru_maxrss << 10, read], file)
sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
"""
# The kernel counts the memory of whoever starts a program into that program's peak: a small one starts it.


def run(command: Command) -> tuple[Usage, bytes]:
    """Run a program to its end; give what it took, and its stdout. Raises ProgramFailed."""
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.NamedTemporaryFile() as used,
    ):
        words = [str(word) for word in command.words]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, used.name, *words],
            env=os.environ | dict(command.environment),
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            check=False,
        )
        out.seek(0)
        err.seek(0)
        if done.returncode:
            said = (err.read() + out.read()).decode(errors="replace")[-2000:]
            raise ProgramFailed(f"{' '.join(words)} ended with {done.returncode}:\n{said}")
        return Usage(*json.load(used)), out.read()


def contents(folder: Path) -> tuple[int, int]:
    """Give bytes and number of the files in a folder."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return sum(sizes), len(sizes)


def warm(path: Path) -> None:
    """Bring a file into the page cache."""
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def make_durable(folder: Path) -> None:
    """Wait until a folder's files are written. Not what others wrote: that may be much."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)


def drop_caches() -> None:
    """Empty the page cache of the machine. Needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
