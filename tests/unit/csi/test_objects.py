"""Snapshot objects, read and made."""

from datetime import UTC, datetime

from coeval.csi import handover, snapshots
from coeval.kube.port import Object

META: Object = {"name": "s", "uid": "u", "creationTimestamp": "2026-11-23T10:00:00Z"}


def test_a_snapshot_without_status() -> None:
    found = snapshots.snapshot({"metadata": META, "spec": {}})
    assert (found.creation_time, found.ready, found.content, found.error) == (None, False, None, None)


def test_a_snapshot_that_is_ready() -> None:
    status = {
        "creationTime": "2026-11-23T10:00:05Z",
        "readyToUse": True,
        "restoreSize": "1Gi",
        "boundVolumeSnapshotContentName": "c",
        "error": {"message": "an earlier try"},
    }
    found = snapshots.snapshot({"metadata": META | {"finalizers": ["f"]}, "status": status})
    assert found.creation_time == datetime(2026, 11, 23, 10, 0, 5, tzinfo=UTC)
    assert (found.ready, found.restore_size, found.content) == (True, 1 << 30, "c")
    assert (found.error, found.finalizers, found.deleting) == ("an earlier try", ("f",), False)


def test_a_size_of_zero_is_not_known() -> None:
    assert snapshots.snapshot({"metadata": META, "status": {"restoreSize": "0"}}).restore_size is None


def test_a_content() -> None:
    ref = {"namespace": "n", "name": "s", "uid": "u"}
    found = snapshots.content(
        {
            "metadata": META,
            "spec": {"driver": "d", "volumeSnapshotRef": ref},
            "status": {"snapshotHandle": "h"},
        }
    )
    assert (found.handle, found.ref, found.driver) == ("h", ("n", "s", "u"), "d")


def test_only_true_makes_a_default_class() -> None:
    def made(value: str) -> bool:
        meta = {"name": "c", "annotations": {snapshots.DEFAULT_CLASS: value}}
        return snapshots.snapshot_class({"metadata": meta, "driver": "d"}).default

    assert made("true")
    assert not made("false")


def test_a_twin_never_owns_the_backend_snapshot() -> None:
    content = handover.twin_content(
        {"name": "t"}, namespace="ours", driver="d", class_name="k", handle="h", mode="Block"
    )
    assert content["spec"]["deletionPolicy"] == "Retain"
    assert content["spec"]["volumeSnapshotRef"] == {"name": "t", "namespace": "ours"}
    assert content["spec"]["sourceVolumeMode"] == "Block"
    twin = handover.twin_snapshot({"name": "t"}, class_name="k")
    assert twin["spec"]["source"] == {"volumeSnapshotContentName": "t"}


def test_a_claim_has_the_snapshot_s_bytes() -> None:
    claim = handover.claim_from({"name": "t"}, snapshot="t", storage_class="c", mode="Block", size=4096)
    assert claim["spec"]["resources"]["requests"]["storage"] == "4096"
    assert claim["spec"]["dataSource"]["name"] == "t"
