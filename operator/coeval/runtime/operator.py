"""What runs beside what, and in which order it starts and ends (main.py tells the story)."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Protocol

from coeval.controllers.ports import Key
from coeval.kube.client import Credentials
from coeval.kube.events import EventRecorder
from coeval.kube.kinds import (
    BACKUP_REPOSITORY,
    JOB,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    VM_BACKUP,
    VOLUME_SNAPSHOT,
)
from coeval.kube.lease import Elector
from coeval.kube.port import ApiError, Kind, KubeApi, NotFound, Object
from coeval.runtime.controller import Controller, Runner
from coeval.runtime.health import Health, Heartbeat
from coeval.runtime.metrics import Metrics
from coeval.runtime.owners import owner
from coeval.runtime.settings import RuntimeSettings
from coeval.runtime.watch import Watch, Watched

log = logging.getLogger(__name__)

LEASE_NAME = "coeval-operator"
EVERYWHERE = (Watched(VM_BACKUP), Watched(BACKUP_REPOSITORY), Watched(VOLUME_SNAPSHOT, children=True))
AT_HOME = (
    Watched(JOB, children=True),
    Watched(POD, children=True),
    Watched(PERSISTENT_VOLUME_CLAIM, children=True),
)

WORKERS = 8  # per kind; they mostly wait for the API server
HEARTBEAT_SECONDS = 5.0
DEAD_SECONDS = 60.0  # a loop that does not turn, a key that no worker takes
STUCK_SECONDS = 600.0  # one reconcile; each of its calls has a time limit far below
KINDS_RETRY_SECONDS = 5.0


class Api(KubeApi, Protocol):
    """The API server, and how the watches log in to it."""

    async def credentials(self) -> Credentials:
        """As they are now; called from other event loops."""


class Operator:
    """All parts of the running operator."""

    def __init__(
        self,
        settings: RuntimeSettings,
        client: Api,
        recorder: EventRecorder,
        controllers: Mapping[Kind, Controller],
    ) -> None:
        self._settings = settings
        self._client = client
        self._recorder = recorder
        self.metrics = Metrics()
        self.health = Health(self.metrics)
        self._elector = Elector(
            client, namespace=settings.namespace, name=LEASE_NAME, identity=settings.pod_name
        )
        self._runners = {
            kind: Runner(
                kind.kind.lower(),
                controller,
                self.metrics.controller(kind.kind.lower()),
                workers=WORKERS,
            )
            for kind, controller in controllers.items()
        }
        self._missing_kinds = "not asked yet"
        self._listed = False
        self._watches: list[Watch] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. Raises a group with LeaseLost or WatchEnded when going on would be wrong."""
        self._add_checks()
        async with self.health.serve(self._settings.http_host, self._settings.http_port):
            stopping = asyncio.create_task(stop.wait())
            starting = asyncio.create_task(self._become_leader())
            await asyncio.wait({stopping, starting}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                starting.cancel()
                await asyncio.wait({starting})
                if not self._elector.leading:
                    return
            else:
                await starting
            try:
                await self._lead(stopping)
            finally:
                self.metrics.leading.set(0)
                await self._elector.release()

    async def _become_leader(self) -> None:
        await self._all_kinds_served()
        await self._elector.acquire()

    async def _lead(self, stopping: "asyncio.Task[bool]") -> None:
        self.metrics.leading.set(1)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._elector.hold()),
                group.create_task(self._recorder.run()),
            ]
            workers = [group.create_task(runner.run()) for runner in self._runners.values()]
            async with self._watching():
                background += [group.create_task(_raise(watch.failed)) for watch in self._watches]
                background.append(group.create_task(self._beat()))
                resync = group.create_task(self._resync())
                await stopping
                log.info("stopping", extra={"seconds": self._settings.shutdown_seconds})
                resync.cancel()
                for runner in self._runners.values():
                    runner.queue.shut_down()
            # The Lease is held until the last worker is through.
            _, busy = await asyncio.wait(workers, timeout=self._settings.shutdown_seconds)
            if busy:
                log.warning("ending in the middle of a reconcile; the next start goes on from its status")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self._recorder.flush()
            for task in [*background, *busy]:
                task.cancel()

    async def _all_kinds_served(self) -> None:
        """Wait for the CRDs: a watch on a kind that is not there would never begin."""
        missing = [watched.kind for watched in (*EVERYWHERE, *AT_HOME)]
        while missing:
            missing = [kind for kind in missing if not await self._is_served(kind)]
            self._missing_kinds = ", ".join(f"{kind.plural}.{kind.group}" for kind in missing)
            if missing:
                log.warning("waiting for kinds that are not installed", extra={"kinds": self._missing_kinds})
                await asyncio.sleep(KINDS_RETRY_SECONDS)

    async def _is_served(self, kind: Kind) -> bool:
        path = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        try:
            served = await self._client.subresource("GET", path)
        except NotFound:
            return False
        except ApiError as error:
            log.warning("API server does not answer", extra={"error": str(error)})
            return False
        return any(resource["name"] == kind.plural for resource in served["resources"])

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        home = self._settings.namespace
        loop = asyncio.get_running_loop()

        def deliver(kind: Kind, change: str | None, body: Object) -> None:
            # From the watch's thread. After the end of our loop nobody is interested any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._changed, kind, change, body)

        for watched, namespace in ((EVERYWHERE, None), (AT_HOME, home)):
            watch = Watch(watched, namespace=namespace, credentials=self._client.credentials, deliver=deliver)
            watch.start()
            self._watches.append(watch)
        try:
            yield
        finally:
            await asyncio.gather(*(watch.stop(5) for watch in self._watches))

    def _changed(self, kind: Kind, change: str | None, body: Object) -> None:
        """A watch saw something: its owner needs a look."""
        self.metrics.watch_events.labels(kind.plural).inc()
        found = owner(kind, body)
        if found is None:
            return
        owner_kind, key = found
        if kind is VM_BACKUP:
            self.metrics.backups.saw(key, None if change == "DELETED" else body)
        self._runners[owner_kind].queue.add(key)

    async def _resync(self) -> None:
        """Look at everything, now and again: it finds what the watches lost."""
        period = self._settings.resync_seconds
        while True:
            try:
                for kind in self._runners:
                    await self._look_at_all(kind, spread=period / 20 if self._listed else 0.0)
                self._listed = True
            except ApiError as error:
                log.warning("resync failed", extra={"error": str(error)})
                await asyncio.sleep(KINDS_RETRY_SECONDS)
                continue
            await asyncio.sleep(period * random.uniform(0.9, 1.1))  # noqa: S311 (jitter)

    async def _look_at_all(self, kind: Kind, *, spread: float) -> None:
        found = [(Key(o["metadata"].get("namespace") or "", o["metadata"]["name"]), o)
                 for o in await self._client.list(kind)]  # fmt: skip
        if kind is VM_BACKUP:
            self.metrics.backups.saw_all(found)
        for key, _ in found:
            self._runners[kind].queue.add_after(key, random.uniform(0, spread))  # noqa: S311 (jitter)

    async def _beat(self) -> None:
        """Ask the watches' loops for signs of life. Our own loop answers the probes itself."""
        clock = asyncio.get_running_loop().time
        hearts = [Heartbeat(watch.loop, clock) for watch in self._watches]
        for number, heart in enumerate(hearts):
            self.health.live[f"watch {number}"] = partial(_too_old, heart.age, "no sign of life for")
        while True:
            for heart in hearts:
                heart.ask()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _add_checks(self) -> None:
        for runner in self._runners.values():
            self.health.live[f"queue {runner.name}"] = partial(
                _too_old, runner.queue.oldest_age, "no worker has taken a key for"
            )
            self.health.live[f"workers {runner.name}"] = partial(
                _too_old, runner.queue.longest_run, "a reconcile has been running for", STUCK_SECONDS
            )
        self.health.ready["kinds"] = lambda: self._missing_kinds and f"missing: {self._missing_kinds}"
        self.health.ready["work"] = self._not_working

    def _not_working(self) -> str | None:
        if not self._elector.leading:
            return None  # standing by is all that a replica without the Lease has to do
        if not self._watches or not all(watch.is_ready() for watch in self._watches):
            return "watches are starting"
        return None if self._listed else "the first list has not been read"


def _too_old(age: Callable[[], float], what: str, limit: float = DEAD_SECONDS) -> str | None:
    seconds = age()
    return f"{what} {seconds:.0f} s" if seconds > limit else None


async def _raise(future: "asyncio.Future[None]") -> None:
    await future
