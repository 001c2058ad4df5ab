"""What a program costs: it runs as a process of its own, and the kernel says what that took."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
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
    """What a run took. Bytes, seconds; `bytes_read` is by system calls, whether the cache had them or not.

    `peak_rss` cannot be less than that of the process that starts the program: about 30 MiB here.
    """

    seconds: float
    cpu_seconds: float
    peak_rss: int
    bytes_read: int


def run(command: Command) -> tuple[Usage, bytes]:
    """Run a program to its end; give what it took, and its stdout. Raises ProgramFailed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begun = time.monotonic()
        process = subprocess.Popen(
            [str(word) for word in command.words],
            env=os.environ | dict(command.environment),
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        # Not yet reaped, so that its counters can still be read.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.monotonic() - begun
        counters = Path(f"/proc/{process.pid}/io").read_text().split()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            words = " ".join(str(word) for word in command.words)
            said = (err.read() + out.read()).decode(errors="replace")[-2000:]
            raise ProgramFailed(f"{words} ended with {process.returncode}:\n{said}")
        cpu = usage.ru_utime + usage.ru_stime
        return Usage(seconds, cpu, usage.ru_maxrss << 10, int(counters[1])), out.read()


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
