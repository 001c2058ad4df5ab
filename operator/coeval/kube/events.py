"""Events for people (events.k8s.io/v1): few, counted instead of repeated, and never in the way.

`event` only puts the record into a queue: a slow API server may not delay a caller that holds a guest frozen,
and no failure reaches it. `run` writes them.
"""

import asyncio
import hashlib
import logging
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from coeval.kube.kinds import EVENT
from coeval.kube.port import ApiError, KubeApi, NotFound, Object

log = logging.getLogger(__name__)

REPORTING_CONTROLLER = "coeval.dev/operator"
NOTE_BYTES = 1024  # limits of the API server
REASON_CHARACTERS = 128
SERIES_SECONDS = 360.0  # the same again within this time continues the series, as in client-go
WRITE_SECONDS = 30.0  # a series is written at its second event, then at most this often
BACKLOG = 1000
MEMORY = 1024


@dataclass(slots=True)
class _Series:
    name: str
    namespace: str
    count: int
    last: float
    written: float


class EventRecorder:
    """`Recorder` of the controllers. `instance` names this process, usually its pod."""

    def __init__(self, api: KubeApi, *, instance: str, backlog: int = BACKLOG) -> None:
        self._api = api
        self._instance = instance
        self._queue: asyncio.Queue[tuple[Object, str, str, str]] = asyncio.Queue(backlog)
        self._series: OrderedDict[str, _Series] = OrderedDict()

    async def event(self, regarding: Object, *, type: str, reason: str, message: str) -> None:
        """Tell about an object; `type` is Normal or Warning. Returns at once."""
        meta = regarding["metadata"]
        reference = {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": meta["name"],
            **{k: meta[k] for k in ("namespace", "uid", "resourceVersion") if k in meta},
        }
        try:
            self._queue.put_nowait((reference, type, reason, message))
        except asyncio.QueueFull:
            log.warning(
                "event dropped, the backlog is full", extra={"reason": reason, "object": meta["name"]}
            )

    async def run(self) -> None:
        """Write events for ever."""
        while True:
            await self._write_next()

    async def flush(self) -> None:
        """Write what is waiting. Time limits are the caller's."""
        while not self._queue.empty():
            await self._write_next()

    async def _write_next(self) -> None:
        regarding, type_, reason, message = await self._queue.get()
        try:
            await self._write(regarding, type_, reason, message)
        except ApiError as error:
            log.warning("event not written", extra={"reason": reason, "error": str(error)})

    async def _write(self, regarding: Object, type_: str, reason: str, message: str) -> None:
        now = asyncio.get_running_loop().time()
        identity = "\0".join((str(regarding.get("uid", regarding["name"])), type_, reason, message))
        key = hashlib.sha256(identity.encode()).hexdigest()
        series = self._series.pop(key, None)
        if series is not None and now - series.last <= SERIES_SECONDS:
            self._series[key] = series
            try:
                await self._continue(series, now)
                return
            except NotFound:
                pass  # events are removed after an hour: start a new one
        self._series[key] = await self._start(regarding, type_, reason, message, now)
        while len(self._series) > MEMORY:
            self._series.popitem(last=False)

    async def _continue(self, series: _Series, now: float) -> None:
        series.count += 1
        series.last = now
        if series.count > 2 and now - series.written < WRITE_SECONDS:
            return
        body = {"series": {"count": series.count, "lastObservedTime": _micro_time()}}
        await self._api.patch(EVENT, series.name, body, series.namespace)
        series.written = now

    async def _start(self, regarding: Object, type_: str, reason: str, message: str, now: float) -> _Series:
        namespace = regarding.get("namespace", "default")  # where events of cluster-scoped objects live
        name = f"{regarding['name'][:200]}.{uuid.uuid4().hex[:16]}"
        body = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": _micro_time(),
            "reportingController": REPORTING_CONTROLLER,
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "type": type_,
            "reason": reason[:REASON_CHARACTERS],
            "regarding": regarding,
            "note": _shortened(message, NOTE_BYTES),
        }
        await self._api.create(EVENT, body, namespace)
        return _Series(name, namespace, 1, now, now)


def _shortened(text: str, size: int) -> str:
    """At most `size` bytes of UTF-8, with a mark where something was cut."""
    data = text.encode()
    if len(data) <= size:
        return text
    return data[: size - len("…".encode())].decode(errors="ignore") + "…"


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
