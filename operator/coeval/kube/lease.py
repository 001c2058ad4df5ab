"""One operator at a time, by a coordination.k8s.io Lease.

The Lease keeps two operators from doing the same work twice; it is no proof. Correctness rests on
deterministic names and preconditions, because a process that is stopped for a minute wakes up believing that
it still holds it. Time is the event loop's monotonic clock: wall clocks of two nodes are never compared, a
holder is presumed dead when its record has not changed for the duration that it promised, as seen from here.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from coeval.kube.kinds import LEASE
from coeval.kube.port import ApiError, Conflict, KubeApi, Object

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Somebody else may be leading now: end the process, finishing nothing."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `try_timeout` < `renew_deadline` < `duration`, or a hanging call would outlive the Lease."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    try_timeout: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.retry_period < self.renew_deadline < self.duration:
            raise ValueError(f"retry_period < renew_deadline < duration does not hold: {self}")
        if not 0 < self.try_timeout < self.renew_deadline:
            raise ValueError(f"try_timeout < renew_deadline does not hold: {self}")


class Elector:
    """`acquire`, then `hold` beside the work until it raises LeaseLost; `release` on the way out."""

    def __init__(
        self, api: KubeApi, *, namespace: str, name: str, identity: str, timing: Timing | None = None
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._timing = timing or Timing()
        self._seen: Object | None = None
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self._lost = False
        self.leading = False

    async def acquire(self) -> None:
        """Wait until we lead. API errors are waited out."""
        while not await self._try():  # noqa: ASYNC110 (the event is in another process)
            await asyncio.sleep(self._timing.retry_period)
        self.leading = True
        log.info("lease acquired", extra={"lease": self._name, "identity": self._identity})

    async def hold(self) -> None:
        """Renew for ever. LeaseLost when another holds it, or when no renewal succeeded in time."""
        try:
            while True:
                await asyncio.sleep(min(self._timing.retry_period, self._left()))
                left = self._left()
                if left <= 0 or (not await self._try(left) and self._other_holder()):
                    self._lost = True
                    raise LeaseLost(f"lease {self._name}: {self._other_holder() or 'could not be renewed'}")
        finally:
            self.leading = False

    def _left(self) -> float:
        """Until the Lease must have been renewed; a try that hangs may not outlive it either."""
        return max(0.0, self._renewed_at + self._timing.renew_deadline - _now())

    async def release(self) -> None:
        """Let the next one start at once. Best effort: without it, it starts when the Lease has run out."""
        if self._lost:
            return  # there is nothing to give, and the process has to end
        try:
            async with asyncio.timeout(self._timing.try_timeout):
                lease = await self._api.get(LEASE, self._name, self._namespace)
                if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                    await self._write(lease, {"holderIdentity": "", "leaseDurationSeconds": 1})
        except (ApiError, TimeoutError) as error:
            log.warning("lease not released", extra={"lease": self._name, "error": str(error)})

    async def _try(self, seconds: float | None = None) -> bool:
        """Take or renew the Lease; whether that succeeded. Time counts from before the call was sent."""
        sent = _now()
        try:
            async with asyncio.timeout(min(self._timing.try_timeout, seconds or self._timing.try_timeout)):
                if not await self._take():
                    return False
        except Conflict:
            return False  # another was faster; the next look shows who
        except (ApiError, TimeoutError) as error:
            log.warning("lease call failed", extra={"lease": self._name, "error": repr(error)})
            return False
        self._renewed_at = sent
        return True

    async def _take(self) -> bool:
        lease = await self._api.get(LEASE, self._name, self._namespace)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._timing.duration),
            "renewTime": now,
        }
        if lease is None:
            body: Object = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.kind,
                "metadata": {"name": self._name},
                "spec": ours | {"acquireTime": now, "leaseTransitions": 0},
            }
            self._look(await self._api.create(LEASE, body, self._namespace))
            return True
        self._look(lease)
        spec = lease.get("spec") or {}
        if spec.get("holderIdentity") != self._identity:
            if self._other_holder() and _now() < self._seen_at + spec.get("leaseDurationSeconds", 0):
                return False
            ours |= {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", 0) + 1}
        await self._write(lease, ours)
        return True

    async def _write(self, lease: Object, spec: Object) -> None:
        version = {"resourceVersion": lease["metadata"]["resourceVersion"]}
        self._look(
            await self._api.patch(LEASE, self._name, {"metadata": version, "spec": spec}, self._namespace)
        )

    def _look(self, lease: Object) -> None:
        """Remember the record, and since when it has been like that."""
        spec = lease.get("spec") or {}
        if spec != self._seen:
            self._seen, self._seen_at = spec, _now()

    def _other_holder(self) -> str:
        """Who holds the Lease according to its last record, '' for nobody or ourselves."""
        holder = str((self._seen or {}).get("holderIdentity") or "")
        return "" if holder == self._identity else holder


def _now() -> float:
    return asyncio.get_running_loop().time()
