"""What /metrics says."""

from datetime import UTC, datetime
from typing import Any

from coeval.controllers.ports import Key
from coeval.runtime.metrics import Backups, Metrics
from prometheus_client import CollectorRegistry

NOW = datetime(2026, 11, 23, 10, 1, tzinfo=UTC)


def backup(phase: str | None = None, **quiesce: str) -> dict[str, Any]:
    return {"status": {"phase": phase, "quiesce": quiesce}} if phase else {}


def values(backups: Backups) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(backups)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.value
    }


def test_backups_by_phase_and_guests_that_are_held() -> None:
    backups = Backups(now=lambda: NOW)
    backups.saw(Key("shop", "new"), backup())
    backups.saw(Key("shop", "a"), backup("Quiescing", intentAt="2026-11-23T10:00:00Z"))
    backups.saw(
        Key("shop", "b"),
        backup("Copying", intentAt="2026-11-23T10:00:00Z", releaseSeenAt="2026-11-23T10:00:02.5Z"),
    )
    assert values(backups) == {
        ("coeval_backups", "Pending"): 1,
        ("coeval_backups", "Quiescing"): 1,
        ("coeval_backups", "Copying"): 1,
        ("coeval_vm_frozen_seconds", "shop", "a"): 60,
    }


def test_gone_objects_are_forgotten_and_a_full_list_heals() -> None:
    backups = Backups(now=lambda: NOW)
    for name in "abc":
        backups.saw(Key("shop", name), backup("Completed"))
    backups.saw(Key("shop", "a"), None)
    backups.saw(Key("shop", "never seen"), None)
    assert values(backups) == {("coeval_backups", "Completed"): 2}
    backups.saw_all([(Key("shop", "c"), backup("Failed"))])
    assert values(backups) == {("coeval_backups", "Failed"): 1}


def test_every_phase_is_there_from_the_start() -> None:
    text = Metrics().exposition().decode()
    assert 'coeval_backups{phase="SnapshottingT1"} 0.0' in text


def test_a_controllers_numbers() -> None:
    metrics = Metrics()
    one = metrics.controller("vmbackup")
    one.depth(3)
    one.waited(0.2)
    one.retried()
    one.reconciled(2)
    one.failed("Conflict")
    text = metrics.exposition().decode()
    for line in (
        'coeval_queue_depth{controller="vmbackup"} 3.0',
        'coeval_queue_seconds_count{controller="vmbackup"} 1.0',
        'coeval_queue_retries_total{controller="vmbackup"} 1.0',
        'coeval_reconcile_seconds_sum{controller="vmbackup"} 2.0',
        'coeval_reconcile_errors_total{controller="vmbackup",reason="Conflict"} 1.0',
    ):
        assert line in text
