"""Progress: counters that any thread advances, and a reporter that shows them while a command runs."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

JSON_SECONDS = 2.0


class ProgressStyle(StrEnum):
    """How progress is shown on stderr."""

    JSON = "json"
    BAR = "bar"
    NONE = "none"


class Progress:
    """Bytes done, read and added so far, of a total. Safe from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._started = time.monotonic()
        self._skipped = 0
        self.total = 0
        self.done = 0
        self.read = 0
        self.added = 0
        self.retries = 0
        """Requests to the store that failed and were made again."""

    def begin(self, total: int, skipped: int = 0) -> None:
        """Start: of `total` bytes, `skipped` need no work. Units: bytes."""
        with self._guard:
            self.total, self.done, self._skipped = total, skipped, skipped
            self._started = time.monotonic()

    def add(self, *, done: int, read: int = 0, added: int = 0) -> None:
        """Count bytes done and read; `added` is the total so far."""
        with self._guard:
            self.done += done
            self.read += read
            self.added = max(self.added, added)

    def retry(self) -> None:
        """Count a request that is made again."""
        with self._guard:
            self.retries += 1

    def snapshot(self) -> dict[str, int]:
        """Give the numbers as the operator reads them; retries only if there were any."""
        with self._guard:
            seconds = max(time.monotonic() - self._started, 1e-3)
            rate = (self.done - self._skipped) / seconds
            eta = (self.total - self.done) / rate if rate else 0
            return {
                "bytesTotal": self.total,
                "bytesDone": self.done,
                "bytesRead": self.read,
                "bytesAdded": self.added,
                "bytesPerSecond": int(rate),
                "etaSeconds": int(eta),
                **({"retries": self.retries} if self.retries else {}),
            }


@contextmanager
def shown(progress: Progress, style: ProgressStyle, label: str) -> Iterator[None]:
    """Show progress on stderr while the block runs; JSON ends with the final numbers."""
    if style is ProgressStyle.NONE:
        yield
    elif style is ProgressStyle.JSON:
        with _repeated(JSON_SECONDS, lambda: _write_line(progress)):
            yield
        _write_line(progress)
    else:
        with _bar(progress, label):
            yield


@contextmanager
def _repeated(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            action()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _bar(progress: Progress, label: str) -> Iterator[None]:
    from rich import progress as rich  # noqa: PLC0415  (slow to import, and only people see it)
    from rich.console import Console  # noqa: PLC0415

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.DownloadColumn(binary_units=True),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(label, total=None)

        def update() -> None:
            display.update(task, total=progress.total or None, completed=progress.done)

        with _repeated(0.2, update):
            yield
        update()


def _write_line(progress: Progress) -> None:
    sys.stderr.write(json.dumps({"progress": progress.snapshot()}, separators=(",", ":")) + "\n")
    sys.stderr.flush()
