"""A client of the SnapshotMetadata service: which blocks of a snapshot are allocated, or differ from another.

Answers are streams that are cut after some minutes by design, so every call resumes from where it came to.
Nothing that is not proven is taken: an answer that breaks the protocol is no answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from coeval.domain.address import is_host_and_port
from coeval.mover.changes.blocks import Blocks
from coeval.mover.changes.messages import FIXED_LENGTH, SERVICE, VARIABLE_LENGTH, message
from coeval.mover.changes.unknown import ChangesUnknown, Reason
from coeval.repository.errors import InvalidArgument

MAX_RESULTS: Final = 8192
"""Tuples asked for in a message: 200 kB, of the 4 MiB that gRPC lets in."""

MOST_BLOCKS: Final = 1 << 22
"""Stretches of one answer: 64 MiB of memory. At 4 KiB each, they are 16 GiB of scattered changes at least."""

_code: Final = grpc.StatusCode
# Cut streams, servers that restart, snapshots not ready yet, and what the sidecar calls Internal when its
# driver went away.
PASSING: Final = frozenset(
    {
        _code.UNAVAILABLE,
        _code.ABORTED,
        _code.CANCELLED,
        _code.DEADLINE_EXCEEDED,
        _code.INTERNAL,
        _code.RESOURCE_EXHAUSTED,
        _code.UNKNOWN,
    }
)
DENIED: Final = frozenset({_code.UNAUTHENTICATED, _code.PERMISSION_DENIED})
FINAL: Final = {
    _code.NOT_FOUND: Reason.SNAPSHOT_UNKNOWN,
    _code.FAILED_PRECONDITION: Reason.TRACKING_OFF,
}
"""The others are refusals of what was asked: InvalidArgument, OutOfRange, Unimplemented."""


@dataclass(frozen=True)
class Limits:
    """How long is tried, in seconds."""

    total: float = 3600.0
    """For one answer with all its streams."""
    stream: float = 900.0
    """For one stream: longer than the 10 minutes after which the sidecar cuts it. Ends one that hangs."""
    patience: float = 60.0
    """For attempts that bring nothing, from the end of the first one that did not."""
    pause: float = 0.5
    """Before the second attempt; it doubles, up to 8 s."""
    unhurried: float = 50.0
    """A stream that took this long and ended well may still have been cut: a driver whose call is cancelled
    may just end, and the sidecar cancels after a minute at the earliest. So the rest is asked for."""


@dataclass(frozen=True)
class Service:
    """Where the service is and how it knows us: files, which are read anew for each stream."""

    address: str
    ca_file: Path
    token_file: Path
    namespace: str
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not is_host_and_port(self.address):
            raise InvalidArgument(f"--metadata-address {self.address}: give host:port")

    def allocated(self, snapshot: str) -> Answer:
        """Ask which blocks of a VolumeSnapshot hold data. Raises ChangesUnknown, InvalidArgument."""
        return self._ask("GetMetadataAllocated", snapshot_name=snapshot)

    def delta(self, base_handle: str, snapshot: str) -> Answer:
        """Ask where a VolumeSnapshot differs from the snapshot with this CSI handle, of the same volume.

        Raises ChangesUnknown, InvalidArgument.
        """
        return self._ask("GetMetadataDelta", base_snapshot_id=base_handle, target_snapshot_name=snapshot)

    def capacity(self, snapshot: str) -> int:
        """Ask for a VolumeSnapshot's size in bytes; a delta without a single block does not tell it.

        Raises ChangesUnknown, InvalidArgument.
        """
        answer = self._ask("GetMetadataAllocated", first_only=True, snapshot_name=snapshot)
        if answer.capacity is None:
            raise ChangesUnknown(Reason.SIZE_DIFFERS, f"snapshot {snapshot}: the service tells no size")
        return answer.capacity

    def _ask(self, method: str, *, first_only: bool = False, **names: str) -> Answer:
        answer = Answer()
        _Asking(self, method, names, answer, first_only=first_only).run()
        return answer


@dataclass
class Answer:
    """What was reported: blocks by device offset, and the snapshot's size if there was any message."""

    blocks: Blocks = field(default_factory=Blocks)
    capacity: int | None = None
    kind: int | None = None

    @property
    def cursor(self) -> int:
        """Up to here the answer is known; a resumed call starts here."""
        return self.blocks.end

    def take(self, reply: Any, resumed_at: int, before: int) -> int:
        """Take one message of a stream that was resumed at an offset and whose last block ended at `before`.

        Give where its last block ends. Raises ChangesUnknown for what the protocol does not allow.
        """
        kind, capacity = int(reply.block_metadata_type), int(reply.volume_capacity_bytes)
        if kind not in (FIXED_LENGTH, VARIABLE_LENGTH) or self.kind not in (None, kind):
            raise _invalid(f"block_metadata_type {kind} after {self.kind}")
        if capacity <= 0 or self.capacity not in (None, capacity):
            raise _invalid(f"volume_capacity_bytes {capacity} after {self.capacity}")
        self.kind, self.capacity = kind, capacity
        for block in reply.block_metadata:
            begin, end = block.byte_offset, block.byte_offset + block.size_bytes
            told = f"block {begin}+{block.size_bytes}"
            if begin < 0 or end <= begin:
                raise _invalid(f"{told} is empty or negative")
            if begin < before:
                raise _invalid(f"{told} begins before the last one ends, at {before}")
            if begin >= capacity:
                raise _invalid(f"{told} lies beyond the capacity of {capacity}")
            if end <= resumed_at:
                raise _invalid(f"{told} ends before the starting offset {resumed_at}")
            # Only the first block of a resumed stream may reach back; the last may run past the end.
            self.blocks.add(max(begin, self.cursor), min(end, capacity))
            before = end
        if len(self.blocks) > MOST_BLOCKS:
            raise ChangesUnknown(Reason.TOO_FRAGMENTED, f"more than {MOST_BLOCKS} stretches changed")
        return before


def _invalid(what: str) -> ChangesUnknown:
    return ChangesUnknown(Reason.ANSWER_INVALID, f"the service breaks its protocol: {what}")


class _Asking:
    """One answer, over as many streams as it takes."""

    def __init__(
        self, service: Service, method: str, names: dict[str, str], answer: Answer, *, first_only: bool
    ) -> None:
        self._service = service
        self._limits = service.limits
        self._method = method
        self._names = names
        self._answer = answer
        self._first_only = first_only
        self._deadline = time.monotonic() + self._limits.total

    def run(self) -> None:
        """Stream until there is no more. Raises ChangesUnknown, InvalidArgument."""
        pause, denials = self._limits.pause, 0
        failing_since: float | None = None
        while True:
            begun, known = time.monotonic(), self._answer.cursor
            try:
                self._stream()
            except grpc.RpcError as error:
                if self._answer.cursor == self._answer.capacity:
                    return  # cut, but nothing was left to tell
                now = time.monotonic()
                if self._answer.cursor > known or failing_since is None:
                    failing_since, pause, denials = now, self._limits.pause, 0
                denials += error.code() in DENIED
                self._judge(error, denials)
                if now + pause > min(failing_since + self._limits.patience, self._deadline):
                    raise self._given_up(error) from None
                time.sleep(pause)
                pause = min(2 * pause, 8.0)
            else:
                if self._is_whole(known, time.monotonic() - begun):
                    return
                failing_since = None

    def _stream(self) -> None:
        """Take the messages of one stream. Raises grpc.RpcError where it breaks."""
        resumed_at = self._answer.cursor
        request = message(f"{self._method}Request")(
            security_token=self._read(self._service.token_file, "--metadata-token-file").decode().strip(),
            namespace=self._service.namespace,
            starting_offset=resumed_at,
            max_results=MAX_RESULTS,
            **self._names,
        )
        ca = self._read(self._service.ca_file, "--metadata-ca")
        options = (
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            # Else this channel would share connections, and their back-off, with those before it.
            ("grpc.use_local_subchannel_pool", 1),
        )
        credentials = grpc.ssl_channel_credentials(root_certificates=ca)
        with grpc.secure_channel(self._service.address, credentials, options=options) as channel:
            left = max(self._deadline - time.monotonic(), 0.001)
            call = channel.unary_stream(
                f"/{SERVICE}/{self._method}",
                request_serializer=lambda sent: sent.SerializeToString(),
                response_deserializer=message(f"{self._method}Response").FromString,
            )(request, timeout=min(left, self._limits.stream))
            before = 0
            for reply in call:
                before = self._answer.take(reply, resumed_at, before)
                if self._first_only:
                    call.cancel()
                    return

    def _read(self, path: Path, option: str) -> bytes:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InvalidArgument(f"{option} {path}: {error.strerror}") from error
        if not content.strip():
            raise InvalidArgument(f"{option} {path} is empty")
        return content

    def _is_whole(self, known: int, seconds: float) -> bool:
        """Tell whether a stream that ended well was the last one: see Limits.unhurried."""
        if self._first_only or self._answer.cursor == self._answer.capacity:
            return True
        return seconds < self._limits.unhurried or self._answer.cursor == known

    def _judge(self, error: grpc.RpcError, denials: int) -> None:
        """Raise ChangesUnknown for an error that no further attempt can change."""
        code = error.code()
        if code in PASSING or (code in DENIED and denials == 1):  # a new token may do, once
            return
        reason = Reason.ACCESS_DENIED if code in DENIED else FINAL.get(code, Reason.REQUEST_REFUSED)
        raise ChangesUnknown(reason, self._told(error)) from None

    def _given_up(self, error: grpc.RpcError) -> ChangesUnknown:
        reason = Reason.ACCESS_DENIED if error.code() in DENIED else Reason.SERVICE_UNAVAILABLE
        return ChangesUnknown(reason, f"{self._told(error)}; given up at byte {self._answer.cursor}")

    def _told(self, error: grpc.RpcError) -> str:
        names = ", ".join(self._names.values())
        return f"{self._method} ({names}) at {self._service.address}: {error.code().name}: {error.details()}"
