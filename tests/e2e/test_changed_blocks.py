"""What the test CSI driver says about changed blocks is the truth; its messages are those that we read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from coeval.mover.changes import messages
from coeval.mover.changes.messages import SERVICE

from tests.cluster.csi.protos import load
from tests.e2e.csi_rig import MIB, Rig, fails, pb, rigs
from tests.e2e.deltas import BLOCK, Stretches, ask, ask_allocated, differing, fill, scatter, stretches

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")


@pytest.fixture(scope="module")
def make() -> Iterator[Any]:
    with rigs() as maker:
        yield maker


@pytest.fixture(scope="module")
def rig(make: Any) -> Rig:
    made: Rig = make()
    return made


@pytest.fixture
def honest(rig: Rig) -> Iterator[None]:
    yield
    rig.no_faults()


def test_a_delta_is_exactly_what_differs(rig: Rig) -> None:
    volume = rig.create("delta", "Block", 16)
    device = rig.publish(volume, "Block")
    handles = []
    for seed in range(3):
        scatter(device, seed)
        if seed == 2:
            rig.run("blkdiscard", "--offset", "0", "--length", str(2 * MIB), str(rig.target(volume)))
        handles.append(rig.snapshot(f"delta-{seed}", volume).snapshot_id)
    contents = [rig.image(handle).read_bytes() for handle in handles]
    for old, new in ((0, 1), (1, 2), (0, 2), (2, 0)):
        told = ask(rig, handles[old], handles[new])
        assert stretches(told) == differing(contents[old], contents[new])
        assert {message.volume_capacity_bytes for message in told} == {16 * MIB}
    allocated = stretches(ask_allocated(rig, handles[2]))
    assert all(any(begin <= at < end for begin, end in allocated) for at, _ in differing(b"", contents[2])), (
        "what is not zero is allocated"
    )
    assert sum(end - begin for begin, end in allocated) < 16 * MIB


def test_files_are_told_by_their_place_on_the_device(rig: Rig) -> None:
    volume = rig.create("files", "Filesystem", 64)
    place = rig.publish(volume, "Filesystem")
    (place / "disk.img").write_bytes(os.urandom(4 * MIB))
    before = rig.snapshot("files-1", volume).snapshot_id
    scatter(place / "disk.img", 1, 4 * MIB)
    (place / "other").write_bytes(os.urandom(MIB))
    after = rig.snapshot("files-2", volume).snapshot_id
    told = ask(rig, before, after)
    assert stretches(told) == differing(rig.image(before).read_bytes(), rig.image(after).read_bytes())
    assert told[0].volume_capacity_bytes == 64 * MIB


@pytest.mark.parametrize("options", [(), ("--fixed-blocks",)])
def test_results_are_bounded_and_resumed(make: Any, options: tuple[str, ...]) -> None:
    rig: Rig = make(*options)
    volume = rig.create("resume", "Block", 16)
    device = rig.publish(volume, "Block")
    before = rig.snapshot("resume-1", volume).snapshot_id
    scatter(device, 1)
    after = rig.snapshot("resume-2", volume).snapshot_id
    whole = ask(rig, before, after)
    assert {message.block_metadata_type for message in whole} == {1 if options else 2}
    blocks = [(block.byte_offset, block.size_bytes) for message in whole for block in message.block_metadata]
    assert not options or {length for _, length in blocks} == {BLOCK}
    for most in (1, 3, 1000):
        told = ask(rig, before, after, most=most)
        assert max(len(message.block_metadata) for message in told) <= most
        assert stretches(told) == stretches(whole)
    for start in (0, 1, blocks[5][0] + blocks[5][1], blocks[5][0] + 100, 16 * MIB):
        rest = stretches(ask(rig, before, after, start=start))
        assert all(end > start for _, end in rest)
        assert clipped(rest, start) == clipped(stretches(whole), start)


def clipped(found: Stretches, start: int) -> Stretches:
    return [(max(begin, start), end) for begin, end in found if end > start]


def test_outlives_its_volume_and_not_its_base(rig: Rig) -> None:
    volume = rig.create("base", "Block", 16)
    fill(rig.publish(volume, "Block"), 0)
    handles = [rig.snapshot(f"base-{number}", volume).snapshot_id for number in range(2)]
    assert ask(rig, *handles) == [], "equal snapshots: not a single message"
    expand = pb.ControllerExpandVolumeRequest(volume_id=volume, capacity_range={"required_bytes": 32 * MIB})
    rig.call("Controller", "ControllerExpandVolume", expand)
    grow = pb.NodeExpandVolumeRequest(volume_id=volume, volume_path=str(rig.target(volume)))
    rig.call("Node", "NodeExpandVolume", grow)
    fill(rig.inside(rig.target(volume)), 20 * MIB)
    handles.append(rig.snapshot("base-2", volume).snapshot_id)
    rig.unpublish(volume)
    rig.unstage(volume)
    rig.delete(volume)
    told = ask(rig, handles[0], handles[2])
    assert stretches(told) == [(20 * MIB, 20 * MIB + BLOCK)]
    assert told[0].volume_capacity_bytes == 32 * MIB
    rig.delete_snapshot(handles[0])
    assert fails(lambda: ask(rig, handles[0], handles[2])) == "NOT_FOUND"
    assert fails(lambda: ask(rig, handles[2], handles[0])) == "NOT_FOUND"


def test_refuses_with_the_codes_of_csi(rig: Rig) -> None:
    volumes = [rig.create(f"codes-{number}", "Block", 16) for number in range(2)]
    one, two = (rig.snapshot(f"codes-{volume}", volume).snapshot_id for volume in volumes)
    assert fails(lambda: ask(rig, "", one)) == fails(lambda: ask(rig, one, "")) == "INVALID_ARGUMENT"
    assert fails(lambda: ask_allocated(rig, "")) == "INVALID_ARGUMENT"
    assert fails(lambda: ask(rig, one, one, most=-1)) == "INVALID_ARGUMENT"
    assert fails(lambda: ask(rig, one, two)) == "INVALID_ARGUMENT"
    assert fails(lambda: ask(rig, one, "snap-unknown")) == "NOT_FOUND"
    assert fails(lambda: ask_allocated(rig, "snap-unknown")) == "NOT_FOUND"
    for start in (-1, 16 * MIB + 1):
        assert fails(lambda at=start: ask(rig, one, one, start=at)) == "OUT_OF_RANGE"  # type: ignore[misc]
        assert fails(lambda at=start: ask_allocated(rig, one, at)) == "OUT_OF_RANGE"  # type: ignore[misc]


def test_lies_and_breaks_on_demand(rig: Rig, honest: None) -> None:
    volume = rig.create("lies", "Block", 16)
    device = rig.publish(volume, "Block")
    before = rig.snapshot("lies-1", volume).snapshot_id
    fill(device, MIB)
    fill(device, 2 * MIB)
    after = rig.snapshot("lies-2", volume).snapshot_id
    rig.faults(GetMetadataDelta={"lies": [MIB, BLOCK // 2]})
    assert stretches(ask(rig, before, after))[0] == (MIB + BLOCK // 2, MIB + BLOCK)
    rig.faults(GetMetadataDelta={"lies": [0, 2 * MIB]})
    assert stretches(ask(rig, before, after)) == [(2 * MIB, 2 * MIB + BLOCK)]
    rig.faults(GetMetadataDelta={"error": "FailedPrecondition"})
    assert fails(lambda: ask(rig, before, after)) == "FAILED_PRECONDITION"
    rig.faults(GetMetadataDelta={"cutAfter": 1})
    assert fails(lambda: ask(rig, before, after, most=1)) == "UNAVAILABLE"


def test_our_messages_are_those_of_the_sidecar() -> None:
    upstream = load("snapshotmetadata").DESCRIPTOR
    service = upstream.services_by_name["SnapshotMetadata"]
    assert service.full_name == SERVICE
    for method in service.methods:
        assert (method.client_streaming, method.server_streaming) == (False, True)
        for theirs, suffix in ((method.input_type, "Request"), (method.output_type, "Response")):
            assert theirs.name == f"{method.name}{suffix}"
    for theirs in upstream.message_types_by_name.values():
        ours = messages.message(theirs.name).DESCRIPTOR
        assert shape(ours) == shape(theirs)


def shape(message: Any) -> list[Any]:
    kinds = [field.message_type or field.enum_type for field in message.fields]
    return [
        message.full_name,
        *(
            (field.name, field.number, field.type, field.is_repeated, kind.full_name if kind else None)
            for field, kind in zip(message.fields, kinds, strict=True)
        ),
        *([value.name, value.number] for kind in kinds if hasattr(kind, "values") for value in kind.values),
    ]
