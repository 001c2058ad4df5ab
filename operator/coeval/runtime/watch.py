"""Kopf as the deliverer of events: it watches, we get told. Nothing else of Kopf is used.

Each `Watch` runs in a thread with an event loop of its own, because Kopf takes every task of its loop for its
own and cancels it at the end. Two are needed: our kinds and snapshots are watched everywhere, other children
only where the operator lives, which is all that its rights allow. Kopf reconnects silent streams after 70 s
and dies with a watcher that failed; then `failed` tells and the process restarts. What a watch loses all the
same (an object deleted during a relist), the resync finds.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

from coeval.domain.naming import MANAGED_BY
from coeval.kube.client import Credentials
from coeval.kube.port import Kind, Object

log = logging.getLogger(__name__)

# (kind, type of the event, object); called in the watch's thread. The type is None for what was there before.
Deliver = Callable[[Kind, str | None, Object], None]

CHUNK = 500
# A pod's token is replaced at four fifths of its hour; Kopf itself would ask again only after a 401.
LOGIN_LASTS = timedelta(minutes=10)


@dataclass(frozen=True)
class Watched:
    """A kind to watch; `children`: only those that carry our label, selected by the server."""

    kind: Kind
    children: bool = False


class Watch:
    """Watches some kinds, in one namespace or (None) everywhere."""

    def __init__(
        self,
        watched: Sequence[Watched],
        *,
        namespace: str | None,
        credentials: Callable[[], Awaitable[Credentials]],
        deliver: Deliver,
    ) -> None:
        self._watched = watched
        self._namespace = namespace
        self._credentials = credentials
        self._deliver = deliver
        self._stop = threading.Event()
        self._ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._home = asyncio.get_running_loop()
        name = f"watch-{namespace or 'everywhere'}"
        # A daemon: a watcher that hangs may not keep the process, which has given up its Lease, alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin. `failed` gets an exception if it ends by itself."""
        self._thread.start()

    def is_ready(self) -> bool:
        """Whether Kopf has logged in and started to watch."""
        return self._ready.is_set() and self._thread.is_alive()

    async def stop(self, seconds: float) -> None:
        """Ask it to end and wait that long."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, seconds)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(self._operate())
        except BaseException as raised:  # a thread has no caller: main must hear of it
            error = raised
        finally:
            self.loop.close()
            self._home.call_soon_threadsafe(self._ended, error)

    def _ended(self, error: BaseException | None) -> None:
        if not self.failed.done() and not self._stop.is_set():
            self.failed.set_exception(WatchEnded(f"{self._thread.name} ended: {error!r}"))

    async def _operate(self) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=self._settings(),
            standalone=True,
            # Made up from the user's name otherwise, and uid 107 of the image has none.
            identity=self._thread.name,  # type: ignore[arg-type]
            clusterwide=self._namespace is None,
            namespaces=[] if self._namespace is None else [self._namespace],
            stop_flag=self._stop,
            ready_flag=self._ready,
        )

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        # Which kinds are served is checked before; finding out for ever would need rights on all CRDs.
        settings.scanning.disabled = True
        settings.networking.request_timeout = 30
        settings.networking.connect_timeout = 10
        settings.watching.connect_timeout = 10
        settings.watching.chunk_size = CHUNK
        settings.process.ultimate_exiting_timeout = None
        for watched in self._watched:
            if watched.children:
                selector = "=".join(MANAGED_BY)
                settings.watching.label_selectors[watched.kind.group, watched.kind.plural] = selector
        return settings

    def _registry(self) -> Any:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for watched in self._watched:
            kind = watched.kind
            kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(self._handler(kind))
        return registry

    def _handler(self, kind: Kind) -> Any:
        # Nothing here may fail: Kopf logs an exception of an event handler and forgets the event.
        async def handle(event: Any, **_kopf: Any) -> None:
            self._deliver(kind, event["type"], dict(event["object"]))

        return handle

    async def _login(self, **_kopf: Any) -> kopf.ConnectionInfo:
        now = await self._credentials()
        scheme, _, token = (now.authorization or "").partition(" ")
        return kopf.ConnectionInfo(
            server=now.server,
            ca_path=now.ca_path,
            ca_data=now.ca_data,
            insecure=not now.verify,
            certificate_path=now.certificate_path,
            private_key_path=now.key_path,
            scheme=scheme or None,
            token=token or None,
            expiration=datetime.now(UTC) + LOGIN_LASTS,
        )


class WatchEnded(Exception):
    """Kopf ended by itself: nothing is delivered any more, the process has to start again."""
