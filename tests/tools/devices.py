"""Loop devices that end with who made them, even if that is killed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Device:
    """A block device over a file, which is made or grown to `size` bytes."""

    def __init__(self, backing: Path, size: int) -> None:
        with backing.open("ab") as file:
            file.truncate(size)
        made = _run("losetup", "--find", "--show", str(backing))
        self.path = Path(made)
        self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        # The kernel does that when nobody has it open any more; that is when we end, too.
        _run("losetup", "--detach", made)

    def read(self) -> bytes:
        """Give what lies on it, not what is about to."""
        self.flush()
        return self.path.read_bytes()

    def flush(self) -> None:
        _run("blockdev", "--flushbufs", str(self.path))

    def close(self) -> None:
        os.close(self._file)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
