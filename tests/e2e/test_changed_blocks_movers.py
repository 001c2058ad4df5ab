"""Movers read the driver's word right, and find it out when it lies.

Through our own client and command line. A server stands in for the sidecar, as that one needs Kubernetes: it
passes calls on to the driver, with the snapshot's handle for its name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.csi_rig import MIB, Rig, pb, rigs
from tests.e2e.deltas import BLOCK, ask, fill, scatter, stretches
from tests.tools.metadata_server import Refuse, Reply, Sidecar, sidecar
from tests.tools.repositories import Cli

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")

T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with rigs() as make:
        yield make()


@pytest.fixture
def honest(rig: Rig) -> Iterator[None]:
    yield
    rig.no_faults()


@pytest.fixture
def service(rig: Rig, honest: None, tmp_path: Path) -> Iterator[Sidecar]:
    def forward(request: Any) -> Iterator[Reply]:
        name = getattr(request, "target_snapshot_name", "") or request.snapshot_name
        common = {"starting_offset": request.starting_offset, "max_results": request.max_results}
        if hasattr(request, "base_snapshot_id"):
            asked = pb.GetMetadataDeltaRequest(
                base_snapshot_id=request.base_snapshot_id, target_snapshot_id=name, **common
            )
            told = rig.call("SnapshotMetadata", "GetMetadataDelta", asked)
        else:
            asked = pb.GetMetadataAllocatedRequest(snapshot_id=name, **common)
            told = rig.call("SnapshotMetadata", "GetMetadataAllocated", asked)
        try:
            for each in told:
                blocks = [(block.byte_offset, block.size_bytes) for block in each.block_metadata]
                yield Reply(blocks, each.volume_capacity_bytes, each.block_metadata_type)
        except grpc.RpcError as error:
            raise Refuse(error.code().name, error.details()) from error

    with sidecar(tmp_path) as serving:
        serving.handlers = [forward]
        yield serving


def test_streams_that_break_give_the_whole_answer(rig: Rig, service: Sidecar) -> None:
    volume = rig.create("broken", "Block", 16)
    device = rig.publish(volume, "Block")
    before = rig.snapshot("broken-1", volume).snapshot_id
    with device.open("r+b") as file:
        for at in range(0, 12 * MIB, 4 * BLOCK):
            file.seek(at)
            file.write(b"x" * BLOCK)
        os.fsync(file.fileno())
    after = rig.snapshot("broken-2", volume).snapshot_id
    whole = stretches(ask(rig, before, after))
    assert len(whole) == 768
    rig.faults(GetMetadataDelta={"cutAfter": 1})
    assert list(service.service().delta(before, after).blocks) == whole
    assert len(service.requests) == 4, "three of 256 tuples, all cut, and one that has nothing more to tell"


class Mover:
    """The command line, in the driver's mount namespace."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self._rig = rig
        self.cli = Cli(folder)

    def run(self, *words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "coeval.cli.main", "volume", *words[:1], *self.cli.access]
        document: dict[str, Any] = json.loads(self._rig.run(*command, *words[1:]))
        return document

    def content(self, snapshot: str, folder: Path) -> bytes:
        target = folder / f"restored-{snapshot[:8]}"
        self.cli.run("volume", "restore", "--snapshot", snapshot, "--name", "d", "--target", str(target))
        return target.read_bytes()


@pytest.fixture
def mover(rig: Rig, tmp_path: Path) -> Mover:
    return Mover(rig, tmp_path)


def clone(rig: Rig, name: str, snapshot: str, mode: str, mib: int) -> Path:
    """The path of a restored volume, as the mover sees it."""
    volume = rig.create(name, mode, mib, snapshot=snapshot)
    rig.publish(volume, mode)
    target = rig.target(volume)
    return target / "disk.img" if mode == "Filesystem" else target


def moments(rig: Rig, name: str, mode: str, mib: int, image: int = 32) -> tuple[str, str]:
    """Handles of S1 and S2 of a volume that is written between the two, not at its start."""
    volume = rig.create(name, mode, mib)
    place = rig.publish(volume, mode)
    if mode == "Filesystem":
        place /= "disk.img"
        place.write_bytes(os.urandom(image * MIB))
    else:
        scatter(place, 7, mib * MIB)
    first = rig.snapshot(f"{name}-1", volume).snapshot_id
    with place.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), os.urandom(3 * BLOCK), image * MIB // 2 + 1000)
        os.fsync(file.fileno())
    return first, rig.snapshot(f"{name}-2", volume).snapshot_id


@pytest.mark.parametrize(("mode", "source"), [("Block", "csi"), ("Filesystem", "csi-through-extents")])
def test_a_copy_of_t2_is_moved_to_t1_by_the_drivers_word(
    rig: Rig, service: Sidecar, mover: Mover, tmp_path: Path, mode: str, source: str
) -> None:
    first, second = moments(rig, f"retime-{mode}", mode, 64)
    s1 = clone(rig, f"retime-{mode}-s1", first, mode, 64)
    s2 = clone(rig, f"retime-{mode}-s2", second, mode, 64)
    record = ["--record-extents"] if mode == "Filesystem" else []
    copied = mover.run("copy", "--name", "d", "--source", str(s2), "--interim", "--as-of", T2, *record)
    assert copied["change_source"] is None
    assert not record or copied["extents"]["recorded"]

    def retime() -> dict[str, Any]:
        delta = [
            "--changed-from",
            source,
            *service.options(),
            "--snapshot-name",
            second,
            "--base-handle",
            first,
        ]
        step = ["--name", "d", "--snapshot", copied["snapshot"], "--source", str(s1), "--as-of", T1]
        return mover.run("retime", *step, *delta)

    moved = retime()
    wanted = rig.inside(s1).read_bytes()
    assert mover.content(moved["snapshot"], tmp_path) == wanted != rig.inside(s2).read_bytes()
    name = {"csi": "CSI", "csi-through-extents": "CSIThroughExtents"}[source]
    assert (moved["change_source"], moved.get("fallback")) == (name, None)
    # The driver tells blocks of 4 KiB; this small ext4 may keep four from all over the file in one.
    assert 3 * BLOCK < moved["bytes_reported"] <= 5 * BLOCK
    assert moved["chunks_changed"] == 1
    assert moved["bytes_read"] <= (3 + moved["chunks_sampled"]) * MIB
    assert moved["chunks_sampled"] == 10

    rig.faults(GetMetadataDelta={"error": "NotFound"})
    without = retime()
    assert (without["change_source"], without["fallback"]["reason"]) == ("Compare", "SnapshotUnknown")
    assert mover.content(without["snapshot"], tmp_path) == wanted


def test_a_lie_is_found_by_the_sample(rig: Rig, service: Sidecar, mover: Mover, tmp_path: Path) -> None:
    volume = rig.create("liar", "Block", 16)
    device = rig.publish(volume, "Block")
    first = rig.snapshot("liar-1", volume).snapshot_id
    fill(device, MIB)
    fill(device, 9 * MIB)
    second = rig.snapshot("liar-2", volume).snapshot_id
    s1 = clone(rig, "liar-s1", first, "Block", 16)
    s2 = clone(rig, "liar-s2", second, "Block", 16)
    copied = mover.run("copy", "--name", "d", "--source", str(s2), "--interim", "--as-of", T2)
    rig.faults(GetMetadataDelta={"lies": [MIB, MIB]})
    delta = ["--changed-from", "csi", *service.options(), "--snapshot-name", second, "--base-handle", first]
    step = ["--name", "d", "--snapshot", copied["snapshot"], "--source", str(s1), "--as-of", T1]
    moved = mover.run("retime", *step, *delta)
    assert (moved["change_source"], moved["fallback"]["reason"]) == ("Compare", "SampleContradicts")
    assert moved["chunks_changed"] == 2
    assert mover.content(moved["snapshot"], tmp_path) == rig.inside(s1).read_bytes()


def test_a_first_copy_reads_what_is_allocated_and_the_next_what_changed(
    rig: Rig, service: Sidecar, mover: Mover, tmp_path: Path
) -> None:
    volume = rig.create("full", "Block", 64)
    device = rig.publish(volume, "Block")
    fill(device, 0)
    fill(device, 40 * MIB)
    first = rig.snapshot("full-1", volume).snapshot_id
    asked = ["--changed-from", "csi", *service.options()]
    s1 = clone(rig, "full-s1", first, "Block", 64)
    full = mover.run("copy", "--name", "d", "--source", str(s1), *asked, "--snapshot-name", first)
    assert full["change_source"] == "CSI"
    assert full["bytes_read"] <= (2 + full["chunks_sampled"]) * MIB
    assert mover.content(full["snapshot"], tmp_path) == rig.inside(s1).read_bytes()
    fill(device, 50 * MIB)
    second = rig.snapshot("full-2", volume).snapshot_id
    s2 = clone(rig, "full-s2", second, "Block", 64)
    since = ["--parent", full["snapshot"], "--snapshot-name", second, "--base-handle", first]
    more = mover.run("copy", "--name", "d", "--source", str(s2), *asked, *since)
    assert (more["change_source"], more["chunks_changed"], more["bytes_reported"]) == ("CSI", 1, BLOCK)
    assert mover.content(more["snapshot"], tmp_path) == rig.inside(s2).read_bytes()


def test_extents_are_not_used_where_they_prove_nothing(
    rig: Rig, service: Sidecar, mover: Mover, tmp_path: Path
) -> None:
    first, second = moments(rig, "doubt", "Filesystem", 64, image=4)
    s1 = clone(rig, "doubt-s1", first, "Filesystem", 64)
    s2 = clone(rig, "doubt-s2", second, "Filesystem", 64)
    bigger = clone(rig, "doubt-bigger", first, "Filesystem", 128)
    wanted = rig.inside(s1).read_bytes()

    def moved(copy_of: Path, source: Path, target: str, *record: str) -> tuple[str, str | None]:
        copied = mover.run(
            "copy", "--name", "d", "--source", str(copy_of), "--interim", "--as-of", T2, *record
        )
        delta = ["--changed-from", "csi-through-extents", *service.options(), "--base-handle", first]
        step = ["--name", "d", "--snapshot", copied["snapshot"], "--source", str(source), "--as-of", T1]
        done = mover.run("retime", *step, *delta, "--snapshot-name", target)
        assert mover.content(done["snapshot"], tmp_path) == wanted
        return done["change_source"], done.get("fallback", {}).get("reason")

    assert moved(s2, s1, second) == ("Compare", "NoExtentMap")
    assert not service.requests
    assert moved(s2, bigger, second, "--record-extents") == ("Compare", "SizeDiffers")
    # Equal snapshots: no message, so the size has to be asked for by itself.
    service.methods.clear()
    assert moved(s1, s1, first, "--record-extents") == ("CSIThroughExtents", None)
    assert service.methods == ["GetMetadataDelta", "GetMetadataAllocated"]
