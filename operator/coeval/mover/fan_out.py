"""Run a function over many items in several threads, with few items under way at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from coeval.mover.pipeline import WORKERS

T = TypeVar("T")


def fan_out(items: Iterable[T], action: Callable[[T], None], workers: int = WORKERS) -> None:
    """Call `action` for every item, in any order. Raises the first error; later items are not begun."""
    failures: list[BaseException] = []
    free = threading.BoundedSemaphore(2 * workers)

    def run(item: T) -> None:
        try:
            if not failures:
                action(item)
        except BaseException as error:  # raised again by the calling thread
            failures.append(error)
        finally:
            free.release()

    with ThreadPoolExecutor(workers, thread_name_prefix="blob") as threads:
        try:
            for item in items:
                free.acquire()
                if failures:
                    break
                threads.submit(run, item)
        except BaseException as error:
            failures.append(error)
    if failures:
        raise failures[0]
