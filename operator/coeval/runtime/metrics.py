"""What Prometheus may ask for, in a registry of our own. Names and labels are part of what users build on."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from coeval.api.v1alpha1.vmbackup import Phase
from coeval.controllers.ports import Key
from coeval.kube.port import Object

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asks for

SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class ControllerMetrics:
    """Of one controller and its queue; the queue's own reports (`QueueMetrics`) among them."""

    def __init__(self, metrics: "Metrics", controller: str) -> None:
        self._depth = metrics.queue_depth.labels(controller)
        self._waited = metrics.queue_seconds.labels(controller)
        self._retries = metrics.queue_retries.labels(controller)
        self._seconds = metrics.reconcile_seconds.labels(controller)
        self._errors = metrics.reconcile_errors
        self._controller = controller

    def depth(self, keys: int) -> None:
        """Keys that wait for a worker."""
        self._depth.set(keys)

    def waited(self, seconds: float) -> None:
        """A key went to a worker after that long."""
        self._waited.observe(seconds)

    def retried(self) -> None:
        """A key was put back after a failure."""
        self._retries.inc()

    def reconciled(self, seconds: float) -> None:
        """A reconcile ended, well or not."""
        self._seconds.observe(seconds)

    def failed(self, reason: str) -> None:
        """A reconcile raised."""
        self._errors.labels(self._controller, reason).inc()


class Metrics:
    """The registry and all that is in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = ("controller",)
        self.queue_depth = Gauge(
            "coeval_queue_depth", "Objects that wait for a look", of, registry=self.registry
        )
        self.queue_seconds = Histogram(
            "coeval_queue_seconds", "How long objects waited for a look", of,
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.queue_retries = Counter(
            "coeval_queue_retries", "Looks that were put back after a failure", of, registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "coeval_reconcile_seconds", "How long looks took", of, buckets=SECONDS, registry=self.registry
        )
        self.reconcile_errors = Counter(
            "coeval_reconcile_errors", "Looks that failed", ("controller", "reason"), registry=self.registry
        )
        self.leading = Gauge("coeval_leading", "1 on the replica that works", registry=self.registry)
        self.watch_events = Counter(
            "coeval_watch_events", "Events that the watches delivered", ("kind",), registry=self.registry
        )
        self.backups = Backups()
        self.registry.register(self.backups)

    def controller(self, name: str) -> ControllerMetrics:
        """The part of one controller."""
        return ControllerMetrics(self, name)

    def exposition(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class _Backup:
    phase: str
    frozen_since: datetime | None


class Backups(Collector):
    """The VMBackups as last seen: their phases, and since when a guest has been held.

    Fed by watch events and corrected by every full list. `now` is for tests.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._seen: dict[Key, _Backup] = {}

    def saw(self, key: Key, backup: Object | None) -> None:
        """One object as it is now; None: it is gone."""
        if backup is None:
            self._seen.pop(key, None)
        else:
            self._seen[key] = _view(backup)

    def saw_all(self, backups: Iterable[tuple[Key, Object]]) -> None:
        """All there are: whatever else was known is gone."""
        self._seen = {key: _view(backup) for key, backup in backups}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, computed when they are asked for."""
        seen = dict(self._seen)
        by_phase = GaugeMetricFamily("coeval_backups", "VMBackups by phase", labels=("phase",))
        counts = dict.fromkeys((phase.value for phase in Phase), 0)
        for backup in seen.values():
            counts[backup.phase] = counts.get(backup.phase, 0) + 1
        for phase, count in counts.items():
            by_phase.add_metric((phase,), count)
        yield by_phase
        frozen = GaugeMetricFamily(
            "coeval_vm_frozen_seconds",
            "Since the intent to hold a guest, while its release has not been seen",
            labels=("namespace", "backup"),
        )
        now = self._now()
        for key, backup in seen.items():
            if backup.frozen_since is not None:
                frozen.add_metric(key, (now - backup.frozen_since).total_seconds())
        yield frozen


def _view(backup: Object) -> _Backup:
    status: dict[str, Any] = backup.get("status") or {}
    quiesce = status.get("quiesce") or {}
    held = quiesce.get("intentAt") if not quiesce.get("releaseSeenAt") else None
    since = datetime.fromisoformat(held) if held else None
    return _Backup(status.get("phase") or Phase.PENDING.value, since)
