"""What runs a controller: a queue of keys, workers, and what becomes of each reconcile's outcome."""

import asyncio
import logging
from typing import Protocol

from coeval.controllers.ports import Key
from coeval.kube.port import ApiError, Conflict
from coeval.kube.workqueue import QueueShutDown, WorkQueue
from coeval.runtime.metrics import ControllerMetrics

log = logging.getLogger(__name__)


class Controller(Protocol):
    """Brings one object closer to what it asks for, from whatever state it is found in."""

    async def reconcile(self, key: Key) -> float | None:
        """Seconds until the next look is needed, None when only an event can change anything.

        May raise: the same key comes back after a back-off.
        """


class Runner:
    """Feeds a controller from its queue with a number of workers."""

    def __init__(
        self, name: str, controller: Controller, metrics: ControllerMetrics, *, workers: int
    ) -> None:
        self.name = name
        self.queue: WorkQueue[Key] = WorkQueue(metrics=metrics)
        self._controller = controller
        self._metrics = metrics
        self._workers = workers

    async def run(self) -> None:
        """Until the queue is shut down; every worker finishes what it has."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueShutDown:
                return
            try:
                await self._reconcile(key)
            finally:
                self.queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        started = asyncio.get_running_loop().time()
        try:
            again = await self._controller.reconcile(key)
        except Exception as error:  # a worker outlives every fault of one object
            delay = self.queue.add_rate_limited(key, at_least=getattr(error, "retry_after", None) or 0.0)
            self._metrics.failed(_reason(error))
            self._log_failure(key, error, delay)
        else:
            self.queue.forget(key)
            if again is not None:
                self.queue.add_after(key, again)
        finally:
            self._metrics.reconciled(asyncio.get_running_loop().time() - started)

    def _log_failure(self, key: Key, error: Exception, delay: float) -> None:
        said = {"controller": self.name, "object": "/".join(filter(None, key)), "retry_in": round(delay, 2)}
        if isinstance(error, Conflict):
            log.debug("somebody else changed the object, looking again", extra=said | {"error": str(error)})
        elif isinstance(error, ApiError):
            log.warning("reconcile failed", extra=said | {"error": str(error)})
        else:
            log.error("reconcile failed", extra=said, exc_info=error)


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, ApiError) else type(error).__name__
