"""Retries of the object store: each is counted, and said on stderr, but a store that fails all the time says
so only now and then."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from coeval.mover.progress import Progress, ProgressStyle

TELL_SECONDS = 2.0
"""No more than one line in this time: several threads may wait for one store."""

_LOGGER = logging.getLogger("coeval.repository.object_store")
"""By name: a repository in a folder must not pay for the import of the other."""


class _Teller(logging.Handler):
    def __init__(self, progress: Progress, style: ProgressStyle) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress
        self._style = style
        self._told_at = float("-inf")
        self._untold = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Called by one thread at a time."""
        self._progress.retry()
        now = time.monotonic()
        if now - self._told_at < TELL_SECONDS:
            self._untold += 1
            return
        text = record.getMessage()
        if self._untold:
            text += f" ({self._untold} other retries since the last one told)"
        self._told_at, self._untold = now, 0
        if self._style is ProgressStyle.JSON:
            text = json.dumps({"retry": text})
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


@contextmanager
def told(progress: Progress, style: ProgressStyle) -> Iterator[None]:
    """Tell retries while the block runs, and count them in `progress`."""
    teller = _Teller(progress, style)
    _LOGGER.addHandler(teller)
    try:
        yield
    finally:
        _LOGGER.removeHandler(teller)
