"""/healthz: does it need a restart? /readyz: can it do its work? /metrics.

Each check says what is wrong, and the answers list them all.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from coeval.runtime.metrics import Metrics

log = logging.getLogger(__name__)

Check = Callable[[], str | None]  # None: well; else what is wrong, for a person


class Health:
    """Checks by name. A check that raises counts as failed."""

    def __init__(self, metrics: Metrics) -> None:
        self.live: dict[str, Check] = {}
        self.ready: dict[str, Check] = {}
        self._metrics = metrics

    @asynccontextmanager
    async def serve(self, host: str | None, port: int) -> AsyncIterator[int]:
        """Serve while the context lasts; yields the port (a free one where 0 was asked for)."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._exposition)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            bound: int = runner.addresses[0][1]
            log.info("serving health and metrics", extra={"port": bound})
            yield bound
        finally:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return self._answer(self.live)

    async def _readyz(self, _: web.Request) -> web.Response:
        return self._answer(self.ready)

    def _answer(self, checks: Mapping[str, Check]) -> web.Response:
        said = {name: _ask(check) for name, check in checks.items()}
        lines = [f"{name}: {wrong or 'ok'}\n" for name, wrong in said.items()]
        return web.Response(text="".join(lines), status=503 if any(said.values()) else 200)

    async def _exposition(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.exposition(),
            headers={"Content-Type": CONTENT_TYPE_LATEST},
        )


def _ask(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:  # a broken check must be seen, not end the server
        return repr(error)


class Heartbeat:
    """Shows that another thread's loop still turns: asked for an answer, it tells the age of the last one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._answered = clock()

    def ask(self) -> None:
        """Ask for a sign of life; the answer comes when the loop gets to it."""
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            return  # closed: it will never answer again, and its age shows that

    def _answer(self) -> None:
        self._answered = self._clock()

    def age(self) -> float:
        """Seconds since the last answer."""
        return self._clock() - self._answered
