"""The client of SnapshotMetadata, against a real gRPC server over TLS that goes wrong in every way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coeval.mover.changes.messages import FIXED_LENGTH, VARIABLE_LENGTH
from coeval.mover.changes.service import Service
from coeval.mover.changes.unknown import ChangesUnknown, Reason
from coeval.repository.errors import InvalidArgument

from tests.tools.metadata_server import QUICK, Refuse, Reply, Sidecar, replies, resuming, sidecar

KIB = 1024
CAPACITY = 1 << 20
BLOCKS = [
    (4 * KIB, 4 * KIB),
    (16 * KIB, 8 * KIB),
    (24 * KIB, 4 * KIB),
    (64 * KIB, 64 * KIB),
    (1020 * KIB, 4 * KIB),
]
STRETCHES = [(4 * KIB, 8 * KIB), (16 * KIB, 28 * KIB), (64 * KIB, 128 * KIB), (1020 * KIB, CAPACITY)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with sidecar(tmp_path_factory.mktemp("sidecar")) as serving:
        yield serving


@pytest.fixture
def server(shared: Sidecar) -> Sidecar:
    shared.requests.clear()
    shared.methods.clear()
    shared.token.write_text("a token\n")
    return shared


def fails(service: Service) -> ChangesUnknown:
    with pytest.raises(ChangesUnknown) as caught:
        service.delta("handle-1", "snap-2")
    return caught.value


def test_asks_for_a_delta_and_for_what_is_allocated(server: Sidecar) -> None:
    server.handlers = [resuming(BLOCKS, CAPACITY)]
    answer = server.service().delta("handle-1", "snap-2")
    assert list(answer.blocks) == STRETCHES
    assert (answer.capacity, answer.blocks.total) == (CAPACITY, 84 * KIB)
    (asked,) = server.requests
    assert (asked.security_token, asked.namespace, asked.starting_offset) == ("a token", "vms", 0)
    assert (asked.base_snapshot_id, asked.target_snapshot_name) == ("handle-1", "snap-2")
    assert asked.max_results > 0
    assert list(server.service().allocated("snap-2").blocks) == STRETCHES
    assert (server.methods[-1], server.requests[-1].snapshot_name) == ("GetMetadataAllocated", "snap-2")


@pytest.mark.parametrize("cut_after", [1, 2])
@pytest.mark.parametrize("at_a_time", [1, 2])
def test_goes_on_where_a_stream_was_cut(server: Sidecar, cut_after: int, at_a_time: int) -> None:
    server.handlers = [resuming(BLOCKS, CAPACITY, at_a_time=at_a_time, cut_after=cut_after)]
    assert list(server.service().delta("handle-1", "snap-2").blocks) == STRETCHES
    offsets = [request.starting_offset for request in server.requests]
    assert offsets == sorted(set(offsets)) and len(offsets) > 1


def test_each_stream_gets_the_token_of_its_time(server: Sidecar) -> None:
    def cut(_request: Any) -> Iterator[Reply]:
        yield Reply([(0, 4 * KIB)], CAPACITY)
        server.token.write_text("another token\n")
        raise Refuse("UNAUTHENTICATED", "the token expired")

    server.handlers = [cut, resuming(BLOCKS, CAPACITY)]
    server.service().delta("handle-1", "snap-2")
    assert [request.security_token for request in server.requests] == ["a token", "another token"]


def test_a_resumed_stream_may_reach_back_in_its_first_block_only(server: Sidecar) -> None:
    first = replies(Reply([(0, 6 * KIB)], CAPACITY), "UNAVAILABLE")
    server.handlers = [first, replies(Reply([(4 * KIB, 4 * KIB), (12 * KIB, KIB)], CAPACITY))]
    answer = server.service().delta("handle-1", "snap-2")
    assert list(answer.blocks) == [(0, 8 * KIB), (12 * KIB, 13 * KIB)]
    server.requests.clear()
    server.handlers = [first, replies(Reply([(4 * KIB, 4 * KIB), (6 * KIB, 4 * KIB)], CAPACITY))]
    assert fails(server.service()).reason is Reason.ANSWER_INVALID
    server.requests.clear()
    server.handlers = [first, replies(Reply([(4 * KIB, 2 * KIB)], CAPACITY))]
    assert "before the starting offset" in str(fails(server.service()))


def test_equal_snapshots_may_give_no_message(server: Sidecar) -> None:
    server.handlers = [replies()]
    answer = server.service().delta("handle-1", "snap-2")
    assert (list(answer.blocks), answer.capacity) == ([], None)
    server.handlers = [resuming(BLOCKS, CAPACITY, at_a_time=1)]
    assert server.service().capacity("snap-2") == CAPACITY
    server.handlers = [replies()]
    with pytest.raises(ChangesUnknown, match="tells no size"):
        server.service().capacity("snap-2")


def test_a_stream_that_is_cut_at_its_very_end_needs_no_other(server: Sidecar) -> None:
    server.handlers = [replies(Reply(BLOCKS, CAPACITY), "DEADLINE_EXCEEDED"), replies("OUT_OF_RANGE")]
    assert list(server.service().delta("handle-1", "snap-2").blocks) == STRETCHES
    assert len(server.requests) == 1


def test_a_long_stream_that_ended_well_is_asked_for_the_rest(server: Sidecar) -> None:
    honest = resuming(BLOCKS[:4], CAPACITY)
    server.handlers = [replies(Reply(BLOCKS[:2], CAPACITY)), honest]
    hurried = server.service()
    assert list(hurried.delta("handle-1", "snap-2").blocks) == [(4 * KIB, 8 * KIB), (16 * KIB, 24 * KIB)]
    server.requests.clear()
    unhurried = server.service(replace(QUICK, unhurried=0.0))
    assert list(unhurried.delta("handle-1", "snap-2").blocks) == STRETCHES[:3]
    assert len(server.requests) == 3, "cut, the rest, and nothing after it"


def test_the_last_block_may_run_past_the_end(server: Sidecar) -> None:
    size = 10 * KIB + 512
    server.handlers = [replies(Reply([(8 * KIB, 4 * KIB)], size, FIXED_LENGTH))]
    assert list(server.service().delta("handle-1", "snap-2").blocks) == [(8 * KIB, size)]


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ([Reply([(8, 8), (0, 8)])], "begins before"),
        ([Reply([(0, 8), (7, 8)])], "begins before"),
        ([Reply([(0, 8)]), Reply([(0, 8)])], "begins before"),
        ([Reply([(0, 0)])], "empty"),
        ([Reply([(0, -8)])], "empty"),
        ([Reply([(-8, 16)])], "negative"),
        ([Reply([(CAPACITY, 8)])], "beyond the capacity"),
        ([Reply([(0, 8)], capacity=0)], "volume_capacity_bytes 0"),
        ([Reply([(0, 8)]), Reply([(8, 8)], capacity=CAPACITY + 1)], "volume_capacity_bytes"),
        ([Reply([(0, 8)], kind=0)], "block_metadata_type"),
        ([Reply([(0, 8)]), Reply([(8, 8)], kind=FIXED_LENGTH)], "block_metadata_type"),
    ],
)
def test_what_breaks_the_protocol_is_no_answer(server: Sidecar, told: list[Reply], what: str) -> None:
    assert told[0].kind in (0, VARIABLE_LENGTH)
    server.handlers = [replies(*told)]
    failure = fails(server.service())
    assert failure.reason is Reason.ANSWER_INVALID
    assert what in str(failure)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("INVALID_ARGUMENT", Reason.REQUEST_REFUSED),
        ("OUT_OF_RANGE", Reason.REQUEST_REFUSED),
        ("UNIMPLEMENTED", Reason.REQUEST_REFUSED),
        ("NOT_FOUND", Reason.SNAPSHOT_UNKNOWN),
        ("FAILED_PRECONDITION", Reason.TRACKING_OFF),
    ],
)
def test_a_refusal_is_final(server: Sidecar, code: str, reason: Reason) -> None:
    server.handlers = [replies(Reply(BLOCKS[:1], CAPACITY), code)]
    failure = fails(server.service())
    assert failure.reason is reason
    assert len(server.requests) == 1
    for part in ("GetMetadataDelta", "handle-1", "snap-2", code, "as the test wants it"):
        assert part in str(failure)


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
def test_access_is_asked_for_twice(server: Sidecar, code: str) -> None:
    server.handlers = [replies(code), resuming(BLOCKS, CAPACITY)]
    assert list(server.service().delta("handle-1", "snap-2").blocks) == STRETCHES
    server.requests.clear()
    server.handlers = [replies(code)]
    assert fails(server.service()).reason is Reason.ACCESS_DENIED
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "code",
    [
        *("UNAVAILABLE", "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED"),
        "UNKNOWN",
    ],
)
def test_what_may_pass_is_tried_again_for_a_while(server: Sidecar, code: str) -> None:
    server.handlers = [replies(code), replies(code), resuming(BLOCKS, CAPACITY)]
    assert list(server.service().delta("handle-1", "snap-2").blocks) == STRETCHES
    server.requests.clear()
    server.handlers = [replies(Reply(BLOCKS[:1], CAPACITY), code), replies(code)]
    failure = fails(server.service(replace(QUICK, patience=0.1)))
    assert failure.reason is Reason.SERVICE_UNAVAILABLE
    assert f"given up at byte {8 * KIB}" in str(failure)
    assert 2 <= len(server.requests) <= 6


def test_a_stream_that_hangs_ends_at_the_deadline(server: Sidecar) -> None:
    def hang(_request: Any) -> Iterator[Reply]:
        yield Reply(BLOCKS[:1], CAPACITY)
        time.sleep(1.0)

    server.handlers = [hang]
    begun = time.monotonic()
    failure = fails(server.service(replace(QUICK, total=0.3)))
    assert failure.reason is Reason.SERVICE_UNAVAILABLE
    assert time.monotonic() - begun < 1.0


def test_nobody_there_and_a_stranger_are_unavailable(server: Sidecar, tmp_path: Path) -> None:
    nobody = replace(server.service(replace(QUICK, patience=0.1)), address="localhost:1")
    assert fails(nobody).reason is Reason.SERVICE_UNAVAILABLE
    with sidecar(tmp_path) as other:
        stranger = replace(server.service(replace(QUICK, patience=0.1)), ca_file=other.ca)
    assert fails(stranger).reason is Reason.SERVICE_UNAVAILABLE
    assert not server.requests, "no token is sent before the certificate is checked"


def test_our_own_files_must_be_there(server: Sidecar, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for path, said in ((tmp_path / "missing", "No such file"), (tmp_path / "empty", "is empty")):
        with pytest.raises(InvalidArgument, match=f"--metadata-token-file.*{said}"):
            replace(server.service(), token_file=path).delta("handle-1", "snap-2")
        with pytest.raises(InvalidArgument, match=f"--metadata-ca.*{said}"):
            replace(server.service(), ca_file=path).delta("handle-1", "snap-2")


@pytest.mark.parametrize(
    "address", ["host", ":1", "host:", "host:0", "host:65536", "host:x", "a:b:1", "::1:1"]
)
def test_an_address_is_host_and_port(server: Sidecar, address: str) -> None:
    with pytest.raises(InvalidArgument, match="host:port"):
        replace(server.service(), address=address)
    replace(server.service(), address="[::1]:50051")


def test_an_answer_has_a_bound(server: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coeval.mover.changes.service.MOST_BLOCKS", 3)
    server.handlers = [resuming(BLOCKS, CAPACITY)]
    assert fails(server.service()).reason is Reason.TOO_FRAGMENTED
