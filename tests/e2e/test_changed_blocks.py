"""What the test CSI driver says about changed blocks is the truth, and our movers read it right."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coeval.mover.changes import messages
from coeval.mover.changes.messages import SERVICE

from tests.cluster.csi.protos import load
from tests.e2e.csi_rig import MIB, Rig, fails, pb, rigs
from tests.tools.metadata_server import Refuse, Reply, Sidecar, sidecar
from tests.tools.repositories import Cli

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")

BLOCK = 4096
T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"
Stretches = list[tuple[int, int]]


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


def ask(rig: Rig, base: str, target: str, *, start: int = 0, most: int = 0) -> list[Any]:
    """The messages of a delta."""
    request = pb.GetMetadataDeltaRequest(
        base_snapshot_id=base, target_snapshot_id=target, starting_offset=start, max_results=most
    )
    found: list[Any] = rig.call("SnapshotMetadata", "GetMetadataDelta", request)
    return found


def ask_allocated(rig: Rig, snapshot: str, start: int = 0) -> list[Any]:
    request = pb.GetMetadataAllocatedRequest(snapshot_id=snapshot, starting_offset=start)
    found: list[Any] = rig.call("SnapshotMetadata", "GetMetadataAllocated", request)
    return found


def stretches(told: list[Any]) -> Stretches:
    """Blocks of messages, checked against CSI's rules, neighbours joined."""
    joined: Stretches = []
    for message in told:
        for block in message.block_metadata:
            begin, end = block.byte_offset, block.byte_offset + block.size_bytes
            assert begin < end
            assert not joined or joined[-1][1] <= begin
            if joined and joined[-1][1] == begin:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((begin, end))
    return joined


def differing(old: bytes, new: bytes) -> Stretches:
    """Compared byte by byte, in blocks."""
    found: Stretches = []
    for at in range(0, len(new), BLOCK):
        if old[at : at + BLOCK].ljust(BLOCK, b"\0") != new[at : at + BLOCK].ljust(BLOCK, b"\0"):
            if found and found[-1][1] == at:
                found[-1] = (found[-1][0], at + BLOCK)
            else:
                found.append((at, at + BLOCK))
    return found


def scatter(place: Path, seed: int, size: int = 16 * MIB, count: int = 40) -> None:
    """Direct and other writes all over."""
    chosen = random.Random(seed)  # noqa: S311
    with place.open("r+b", buffering=0) as file:
        for _ in range(count):
            length = chosen.choice([512, BLOCK, 5 * BLOCK, 100_000])
            os.pwrite(file.fileno(), chosen.randbytes(length), chosen.randrange(0, size - length))
        os.fsync(file.fileno())


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


def fill(device: Path, offset: int) -> None:
    with device.open("r+b") as file:
        file.seek(offset)
        file.write(b"x" * BLOCK)
        os.fsync(file.fileno())


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


# Through our own client and command line. A server stands in for the sidecar, as that one needs Kubernetes:
# it passes calls on to the driver, with the snapshot's handle for its name.


@pytest.fixture
def service(rig: Rig, honest: None, tmp_path: Path) -> Iterator[Sidecar]:
    def forward(request: Any) -> Iterator[Reply]:
        import grpc

        name = getattr(request, "target_snapshot_name", "") or request.snapshot_name
        common = {"starting_offset": request.starting_offset, "max_results": request.max_results}
        try:
            if hasattr(request, "base_snapshot_id"):
                asked = pb.GetMetadataDeltaRequest(
                    base_snapshot_id=request.base_snapshot_id, target_snapshot_id=name, **common
                )
                told = rig.call("SnapshotMetadata", "GetMetadataDelta", asked)
            else:
                asked = pb.GetMetadataAllocatedRequest(snapshot_id=name, **common)
                told = rig.call("SnapshotMetadata", "GetMetadataAllocated", asked)
        except grpc.RpcError as error:
            raise Refuse(error.code().name, error.details()) from error
        for each in told:
            blocks = [(block.byte_offset, block.size_bytes) for block in each.block_metadata]
            yield Reply(blocks, each.volume_capacity_bytes, each.block_metadata_type)

    with sidecar(tmp_path) as serving:
        serving.handlers = [forward]
        yield serving


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
