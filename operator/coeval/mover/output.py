"""The file or device that a restore fills: written around the page cache, where it lets us."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from coeval.mover.errors import TargetUnusable
from coeval.repository import direct


class Output:
    """Writes from any thread, once begun. `file` is open at `place`; messages name `target`.

    No page is written in both ways, or one could undo the other: what does not begin and end at a block
    goes through the cache, and so does then its neighbour.
    """

    def __init__(self, file: int, place: Path, target: Path) -> None:
        self._file = file
        self._place = place
        self._target = target
        self._direct: int | None = None
        self._one = threading.Lock()

    def begin(self) -> None:
        """Find out which way to write. Raises OSError."""
        try:
            self._direct = os.open(self._place, os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as error:
            if not direct.refused(error):  # some filesystems keep everything in the cache
                raise

    def write(self, offset: int, parts: Sequence[bytes]) -> None:
        """Write parts one behind the other. Raises TargetUnusable."""
        try:
            if self._direct is None or offset % direct.BLOCK or sum(map(len, parts)) % direct.BLOCK:
                for part in parts:
                    self._through_cache(offset, memoryview(part))
                    offset += len(part)
            else:
                self._around_cache(self._direct, offset, parts)
        except OSError as error:
            raise TargetUnusable(f"--target {self._target}: near byte {offset}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of what was opened here."""
        if self._direct is not None:
            os.close(self._direct)

    def _through_cache(self, offset: int, view: memoryview) -> None:
        with self._one:  # the kernel lets one write a file at a time; the others would spin
            direct.write_at(self._file, offset, view)

    def _around_cache(self, file: int, offset: int, parts: Sequence[bytes]) -> None:
        buffer = direct.buffer()
        for filled in direct.fill(buffer, parts):
            try:
                direct.write_at(file, offset, buffer[:filled])
            except OSError as error:
                if not direct.refused(error):
                    raise
                self._through_cache(offset, buffer[:filled])  # it wants larger blocks, or wrote half of one
            offset += filled
