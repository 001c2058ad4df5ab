"""gRPC plumbing: services from plain classes, errors with a code, faults, a log line per call.

Services are built from the descriptors of the messages, so a method that a class does not have answers
UNIMPLEMENTED, as CSI wants it, and a later feature (group snapshots, changed blocks) is one more class.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf import message_factory

from tests.cluster.csi.faults import BadFaults, Faults

log = logging.getLogger("csi")

# For these CSI wants one at a time per object; the second caller is told to come back.
EXCLUSIVE: Final = {
    "CreateVolume",
    "DeleteVolume",
    "ControllerExpandVolume",
    "CreateSnapshot",
    "DeleteSnapshot",
}


class CsiError(Exception):
    """An answer other than OK: a gRPC code by its CamelCase name, and a message for the PVC's events."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def status(code: str) -> Any:
    """grpc.StatusCode of a CamelCase name. Raises CsiError for a name that is none."""
    for candidate in grpc.StatusCode:
        if candidate.name.replace("_", "").lower() == code.lower():
            return candidate
    raise CsiError("Internal", f"there is no gRPC code {code}")


def need(request: Any, *fields: str) -> None:
    """Raises CsiError InvalidArgument for a required field that is not set."""
    for field in fields:
        if not getattr(request, field):
            raise CsiError("InvalidArgument", f"{field} is missing")


def _field(request: Any, *names: str) -> str:
    """The first of these string fields that the request has and sets."""
    known = request.DESCRIPTOR.fields_by_name
    return next(
        (str(getattr(request, name)) for name in names if name in known and getattr(request, name)), ""
    )


def _about(request: Any) -> str:
    """The handle of the volume that a call is about, for faults."""
    if "volume_content_source" in request.DESCRIPTOR.fields_by_name:
        source = request.volume_content_source
        return str(source.volume.volume_id or source.snapshot.snapshot_id)
    return _field(request, "source_volume_id", "volume_id")


class Locks:
    """One lock per key; keys are never forgotten, a test driver sees few of them."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def of(self, key: str) -> threading.Lock:
        return self._locks[key]

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Raises CsiError Aborted while somebody else is inside with this key."""
        lock = self._locks[key]
        if not lock.acquire(blocking=False):
            raise CsiError("Aborted", f"an operation on {key} is under way, try again")
        try:
            yield
        finally:
            lock.release()


class Dispatcher:
    """Turns requests into calls of `(request, fault) -> response` methods."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._under_way = Locks()

    def service(self, descriptor: Any, implementation: object) -> Any:
        """A gRPC handler for one service of a generated module."""
        handlers = {}
        for method in descriptor.methods:
            call = getattr(implementation, method.name, None)
            if call is None:
                continue
            coding = {
                "request_deserializer": message_factory.GetMessageClass(method.input_type).FromString,
                "response_serializer": message_factory.GetMessageClass(method.output_type).SerializeToString,
            }
            if method.server_streaming:
                handler = grpc.unary_stream_rpc_method_handler(self._streamed(method.name, call), **coding)
            else:
                handler = grpc.unary_unary_rpc_method_handler(self._wrapped(method.name, call), **coding)
            handlers[method.name] = handler
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    def _wrapped(self, method: str, call: Callable[..., Any]) -> Callable[[Any, Any], Any]:
        def handle(request: Any, context: Any) -> Any:
            with _told(method, request, context):
                return self._answer(method, call, request)

        return handle

    def _streamed(self, method: str, call: Callable[..., Any]) -> Callable[[Any, Any], Iterator[Any]]:
        def handle(request: Any, context: Any) -> Iterator[Any]:
            with _told(method, request, context):
                yield from self._answer(method, call, request)

        return handle

    def _answer(self, method: str, call: Callable[..., Any], request: Any) -> Any:
        if method not in EXCLUSIVE:
            return self._with_fault(method, call, request)
        with self._under_way.alone(_key(request)):
            return self._with_fault(method, call, request)

    def _with_fault(self, method: str, call: Callable[..., Any], request: Any) -> Any:
        fault = self._faults.of(method, _about(request))
        fault.reached("begun")
        fault.delay()
        if fault.error:
            raise CsiError(fault.error, fault.message or f"{method} fails because faults.json says so")
        return call(request, fault)


@contextmanager
def _told(method: str, request: Any, context: Any) -> Iterator[None]:
    """Log how a call ended, and turn its error into a gRPC code."""
    begun = time.monotonic()
    try:
        yield
    except CsiError as error:
        code, message = error.code, str(error)
    except OSError as error:
        code = "ResourceExhausted" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Internal"
        message = str(error)
    except BadFaults as error:
        code, message = "Internal", str(error)
    except Exception as error:
        log.exception("%s", method)
        code, message = "Internal", f"{type(error).__name__}: {error}"
    else:
        log.info("%s %s ok %.0f ms", method, _key(request), (time.monotonic() - begun) * 1000)
        return
    log.warning("%s %s %s: %s", method, _key(request), code, message)
    context.abort(status(code), message)


def _key(request: Any) -> str:
    return _field(request, "name", "snapshot_id", "volume_id", "target_snapshot_id")


class Client:
    """Calls any method of a generated module's services, for tests."""

    def __init__(self, endpoint: str, module: Any) -> None:
        # Drivers are killed and started again in tests: look for them often.
        often = [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")]
        self._channel = grpc.insecure_channel(endpoint, options=often)
        self._services = module.DESCRIPTOR.services_by_name

    def call(self, service: str, method: str, request: Any, *, timeout: float = 30.0) -> Any:
        """The answer, of a stream the list of its messages; raises grpc.RpcError."""
        descriptor = self._services[service]
        declared = descriptor.methods_by_name[method]
        kind = self._channel.unary_stream if declared.server_streaming else self._channel.unary_unary
        invoke = kind(
            f"/{descriptor.full_name}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(declared.output_type).FromString,
        )
        answer = invoke(request, timeout=timeout, wait_for_ready=True)
        return list(answer) if declared.server_streaming else answer

    def close(self) -> None:
        self._channel.close()
