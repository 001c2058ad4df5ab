"""`python -m tests.cluster.csi --driver-name NAME --store DIR …`: serve one driver on one store."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import grpc

from tests.cluster.csi import devices, store
from tests.cluster.csi.controller import Controller
from tests.cluster.csi.faults import Faults
from tests.cluster.csi.identity import Identity, Registration
from tests.cluster.csi.metadata import SnapshotMetadata
from tests.cluster.csi.node import Node
from tests.cluster.csi.protos import load
from tests.cluster.csi.rpc import Dispatcher, Locks

log = logging.getLogger("csi")

DEFAULT_SIZE: Final = 32 << 30
UNIX: Final = "unix://"


@contextmanager
def _served(socket_path: Path, services: list[Any]) -> Iterator[None]:
    """Serve on a Unix socket; whoever was killed may have left its own there."""
    socket_path.parent.mkdir(parents=True, exist_ok=True)
    socket_path.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(max_workers=32))
    server.add_generic_rpc_handlers(services)
    server.add_insecure_port(f"{UNIX}{socket_path}")
    server.start()
    try:
        yield
    finally:
        server.stop(grace=5).wait()
        with suppress(FileNotFoundError):
            socket_path.unlink()


def _own(store_dir: Path) -> int:
    """Hold the store while this process lives: two drivers would discard each other's half-made images."""
    lock = os.open(store_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SystemExit(f"store {store_dir} is served by another driver") from error
    return lock


def serve(
    *,
    name: str,
    store_dir: Path,
    size: int,
    endpoint: Path,
    kubelet: Path | None,
    node_id: str,
    fixed_blocks: bool,
) -> None:
    """Run until SIGTERM or SIGINT. What is staged stays so: pods outlive a restart of their driver."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    store_dir.mkdir(parents=True, exist_ok=True)
    _own(store_dir)
    store.create_store(store_dir, size)
    faults, locks = Faults(store_dir), Locks()
    controller = Controller(store.mount(store_dir), locks, faults)
    for volume in controller.volumes.all():
        devices.thaw(controller.volumes.image(volume.handle))
    csi = load("csi").DESCRIPTOR.services_by_name
    dispatcher = Dispatcher(faults)
    with ExitStack() as servers:
        parts: dict[str, object] = {"Identity": Identity(name), "Controller": controller}
        parts["Node"] = Node(node_id, controller.volumes, locks)
        parts["SnapshotMetadata"] = SnapshotMetadata(controller.snapshots, fixed=fixed_blocks)
        services = [dispatcher.service(csi[service], part) for service, part in parts.items()]
        servers.enter_context(_served(endpoint, services))
        if kubelet is not None:
            descriptor = load("pluginregistration").DESCRIPTOR.services_by_name["Registration"]
            registration = dispatcher.service(descriptor, Registration(name, endpoint))
            servers.enter_context(_served(kubelet / "plugins_registry" / f"{name}-reg.sock", [registration]))
        log.info("%s serves %s at %s", name, store_dir, endpoint)
        stop.wait()
        log.info("%s stops", name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.csi", description=__doc__)
    parser.add_argument("--driver-name", required=True)
    parser.add_argument("--store", required=True, type=Path, help="directory of the store, made if absent")
    parser.add_argument(
        "--store-size", type=int, default=DEFAULT_SIZE, help="bytes, for a new store (sparse)"
    )
    parser.add_argument("--endpoint", required=True, help="unix:///… of the CSI socket")
    parser.add_argument(
        "--kubelet-dir", type=Path, help="register with the kubelet that has this root directory"
    )
    parser.add_argument("--node-id", default=socket.gethostname())
    parser.add_argument("--fixed-blocks", action="store_true", help="tell changed blocks one by one")
    arguments = parser.parse_args()
    if not arguments.endpoint.startswith(UNIX):
        parser.error("--endpoint is a Unix socket, unix:///…")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.umask(0o077)
    serve(
        name=arguments.driver_name,
        store_dir=arguments.store.resolve(),
        size=arguments.store_size,
        endpoint=Path(arguments.endpoint.removeprefix(UNIX)),
        kubelet=arguments.kubelet_dir,
        node_id=arguments.node_id,
        fixed_blocks=arguments.fixed_blocks,
    )


if __name__ == "__main__":
    main()
