"""The order of services, names and addresses, and that two clusters share nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.cluster import config, objects, pki, services
from tests.cluster.layout import DRIVERS, Cluster

EVERYTHING = services.everything(Cluster("a"), 7)


def test_every_service_can_start() -> None:
    """What it waits for exists and does not wait for it."""
    started: set[str] = set()
    waiting = {service.name: service for service in EVERYTHING}
    while waiting:
        next_ones = [name for name, service in waiting.items() if set(service.after) <= started]
        assert next_ones, f"a circle or an unknown name among {sorted(waiting)}"
        started.update(next_ones)
        for name in next_ones:
            del waiting[name]
    assert len(started) == len(EVERYTHING), "names are unique"


def test_the_init_reads_what_up_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEVAL_STATE", str(tmp_path))
    cluster = Cluster("a")
    cluster.state.mkdir()
    services.write(cluster, EVERYTHING)
    read = [services.Service(**entry) for entry in json.loads(cluster.services.read_text())]
    assert [dataclasses.asdict(each) for each in read] == json.loads(
        json.dumps([dataclasses.asdict(each) for each in EVERYTHING])
    )


def test_two_clusters_share_no_folder_and_no_cgroup() -> None:
    one, two = Cluster("a"), Cluster("a-b")
    assert one.cgroup != two.cgroup
    assert not one.state.is_relative_to(two.state)
    assert not two.state.is_relative_to(one.state)
    for service in services.everything(one, 7):
        assert not any(str(two.state) in argument for argument in service.argv)


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "-a", "a-", "x" * 31])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cluster name"):
        Cluster(name)


def test_drivers_do_not_share_ports_or_sockets() -> None:
    assert len({driver.socket for driver in DRIVERS}) == len(DRIVERS)
    assert len({driver.metadata_port for driver in DRIVERS}) == len(DRIVERS)


def test_classes_name_their_driver() -> None:
    for driver in DRIVERS:
        kinds = {each["kind"]: each for each in objects.driver_objects(driver)}
        assert kinds["CSIDriver"]["metadata"]["name"] == driver.name
        assert kinds["StorageClass"]["provisioner"] == kinds["VolumeSnapshotClass"]["driver"] == driver.name


def test_keys_are_for_their_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEVAL_STATE", str(tmp_path))
    cluster = Cluster("a")
    pki.write(cluster.pki)
    config.write(cluster, 12345)
    keys = [*cluster.pki.glob("*.key"), cluster.kubeconfig, *cluster.config.glob("*.kubeconfig")]
    assert len(keys) > 10
    assert [key.name for key in keys if key.stat().st_mode & 0o077] == []
