"""A SnapshotMetadata service over TLS, as Kubernetes clients see it, that answers as a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from coeval.mover.changes.messages import SERVICE, VARIABLE_LENGTH, message
from coeval.mover.changes.service import Limits, Service

from tests.cluster import pki

Block = tuple[int, int]
QUICK = Limits(total=10.0, stream=5.0, patience=0.4, pause=0.01)
METHODS = ("GetMetadataAllocated", "GetMetadataDelta")


class Refuse(Exception):
    """What a handler raises to answer a gRPC error."""

    def __init__(self, code: str, details: str = "") -> None:
        super().__init__(details)
        self.code = grpc.StatusCode[code]


@dataclass(frozen=True)
class Reply:
    """One message: blocks (offset, length)."""

    blocks: Iterable[Block] = ()
    capacity: int = 1 << 20
    kind: int = VARIABLE_LENGTH


Handler = Callable[[Any], Iterator[Reply]]
"""Called with a request; gives the messages, or raises Refuse."""


@dataclass
class Sidecar:
    """The server: `handlers` one after the other answer the calls, the last one all that follow."""

    folder: Path
    port: int
    handlers: list[Handler] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def token(self) -> Path:
        return self.folder / "token"

    def service(self, limits: Limits = QUICK) -> Service:
        """The client's side of it."""
        return Service(self.address, self.ca, self.token, "vms", limits)

    def options(self) -> list[str]:
        """The client's side of it, on the command line."""
        return [
            *("--metadata-address", self.address),
            *("--metadata-ca", str(self.ca)),
            *("--metadata-token-file", str(self.token)),
            *("--snapshot-namespace", "vms"),
        ]

    def answer(self, method: str, request: Any, context: Any) -> Iterator[Any]:
        handler = self.handlers[min(len(self.requests), len(self.handlers) - 1)]
        self.requests.append(request)
        self.methods.append(method)
        try:
            for reply in handler(request):
                told = message(f"{method}Response")(
                    block_metadata_type=reply.kind, volume_capacity_bytes=reply.capacity
                )
                for offset, length in reply.blocks:
                    told.block_metadata.add(byte_offset=offset, size_bytes=length)
                yield told
        except Refuse as refusal:
            context.abort(refusal.code, str(refusal))


def replies(*told: Reply | str) -> Handler:
    """A handler that sends these messages; a string is the gRPC code with which the stream then breaks."""

    def handle(_request: Any) -> Iterator[Reply]:
        for each in told:
            if isinstance(each, str):
                raise Refuse(each, "as the test wants it")
            yield each

    return handle


def resuming(blocks: list[Block], capacity: int, *, at_a_time: int = 2, cut_after: int = 1 << 30) -> Handler:
    """An honest server: what ends after the starting offset; each stream is cut after so many messages."""

    def handle(request: Any) -> Iterator[Reply]:
        rest = [each for each in blocks if sum(each) > request.starting_offset]
        for number, at in enumerate(range(0, len(rest), at_a_time)):
            if number == cut_after:
                raise Refuse("DEADLINE_EXCEEDED", "the stream took too long")
            yield Reply(rest[at : at + at_a_time], capacity)

    return handle


@contextmanager
def sidecar(folder: Path) -> Iterator[Sidecar]:
    """Serve on a free port of this host, with a certificate for `localhost`."""
    pki.write(folder / "pki")
    key, certificate = ((folder / "pki" / f"snapshot-metadata.{end}").read_bytes() for end in ("key", "crt"))
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    serving = Sidecar(folder / "pki", port)
    serving.token.write_text("a token\n")

    def handler(method: str) -> Any:
        return grpc.unary_stream_rpc_method_handler(
            lambda request, context: serving.answer(method, request, context),
            request_deserializer=message(f"{method}Request").FromString,
            response_serializer=lambda told: told.SerializeToString(),
        )

    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE, {method: handler(method) for method in METHODS})]
    )
    server.start()
    try:
        yield serving
    finally:
        server.stop(grace=None).wait()
