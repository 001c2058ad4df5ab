"""Runs the test CSI driver on a store of its own in a mount namespace of its own, and takes everything away.

The namespace belongs to a process that does nothing, so that a killed driver finds its mounts again, as it
does on a node. Both end with the test run, even if that is killed; what then is left is removed by the next.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from tests.cluster.csi import faults, loop, mounts, store
from tests.cluster.csi.protos import load
from tests.cluster.csi.rpc import Client
from tests.cluster.paths import REPOSITORY, states

MIB = 1 << 20
STORE_SIZE = 2 << 30
# The kernel ends what is started with this when we end.
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")

pb: Any = load("csi")
_numbers = itertools.count(1)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.02)


def capability(mode: str, access: str = "SINGLE_NODE_WRITER") -> Any:
    kinds: dict[str, Any] = {"Block": {"block": {}}, "Filesystem": {"mount": {}}}
    return pb.VolumeCapability(access_mode={"mode": access}, **kinds[mode])


class Rig:
    """One driver. Paths that it publishes are seen from here through `inside()`."""

    def __init__(self, directory: Path, *options: str) -> None:
        """`options` of the driver, beside those that every one gets."""
        self.directory = directory
        self._options = options
        self.store = directory / "store"
        self.socket = directory / "csi.sock"
        self._log = (directory / "driver.log").open("ab")
        unshare = ["unshare", "-m", "--propagation", "private", "sleep", "infinity"]
        self._holder = subprocess.Popen([*WITH_US, *unshare])
        ours = Path("/proc/self/ns/mnt").readlink()
        wait_for(lambda: Path(f"/proc/{self._holder.pid}/ns/mnt").readlink() != ours, "a mount namespace")
        self._driver: subprocess.Popen[bytes] | None = None
        self.client = Client(f"unix://{self.socket}", pb)

    # Processes

    def command(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self._holder.pid), "-m", "--", *command]

    def run(self, *command: str) -> str:
        """Run a program in the driver's mount namespace."""
        done = subprocess.run(
            self.command(*command), capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> None:
        module = [sys.executable, "-m", "tests.cluster.csi", "--driver-name", "rig.csi.coeval.test"]
        where = ["--store", str(self.store), "--store-size", str(STORE_SIZE)]
        serve = ["--endpoint", f"unix://{self.socket}", "--node-id", "rig"]
        serve += ["--kubelet-dir", str(self.directory / "kubelet")]
        command = [*self.command(*WITH_US), *module, *where, *serve, *self._options]
        # nsenter leaves the working directory, so the modules are found by their paths.
        environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'operator'}"}
        driver = self._driver = subprocess.Popen(command, env=environment, stderr=self._log)

        def answers() -> bool:
            assert driver.poll() is None, (self.directory / "driver.log").read_text()
            with suppress(grpc.RpcError):
                self.client.call("Identity", "Probe", pb.ProbeRequest(), timeout=1)
                return True
            return False

        wait_for(answers, "the driver")

    def stop(self) -> None:
        assert self._driver is not None
        self._driver.terminate()
        assert self._driver.wait(20) == 0

    def kill(self) -> None:
        if self._driver is not None:
            self._driver.kill()
            self._driver.wait()

    def wait_killed(self) -> None:
        """Wait until the driver has ended itself by a fault."""
        assert self._driver is not None
        assert self._driver.wait(20) == -9

    def end_namespace(self) -> None:
        """What a hard stop of a cluster does: all processes gone at once, nothing unmounted."""
        self.kill()
        self._holder.kill()
        self._holder.wait()

    def close(self) -> None:
        self.client.close()
        self.end_namespace()
        self._log.close()
        remove(self.directory)

    # Calls

    def call(self, service: str, method: str, request: Any) -> Any:
        return self.client.call(service, method, request)

    def faults(self, **by_method: Any) -> None:
        faults.write(self.store, by_method)

    def no_faults(self) -> None:
        faults.clear(self.store)

    def create(self, name: str, mode: str, mib: int = 64, *, snapshot: str = "", volume: str = "") -> str:
        """The handle of a new volume."""
        request = pb.CreateVolumeRequest(
            name=name, volume_capabilities=[capability(mode)], capacity_range={"required_bytes": mib * MIB}
        )
        if snapshot:
            request.volume_content_source.snapshot.snapshot_id = snapshot
        if volume:
            request.volume_content_source.volume.volume_id = volume
        return str(self.call("Controller", "CreateVolume", request).volume.volume_id)

    def snapshot(self, name: str, volume: str) -> Any:
        request = pb.CreateSnapshotRequest(name=name, source_volume_id=volume)
        return self.call("Controller", "CreateSnapshot", request).snapshot

    def staging(self, volume: str) -> Path:
        return self.directory / "staging" / volume

    def target(self, volume: str, pod: str = "pod") -> Path:
        return self.directory / pod / volume

    def stage(self, volume: str, mode: str) -> None:
        self.call(
            "Node",
            "NodeStageVolume",
            pb.NodeStageVolumeRequest(
                volume_id=volume,
                staging_target_path=str(self.staging(volume)),
                volume_capability=capability(mode),
            ),
        )

    def publish(self, volume: str, mode: str, *, pod: str = "pod", read_only: bool = False) -> Path:
        """Stage and publish; gives the path as it is seen from here."""
        self.stage(volume, mode)
        self.call(
            "Node",
            "NodePublishVolume",
            pb.NodePublishVolumeRequest(
                volume_id=volume,
                staging_target_path=str(self.staging(volume)),
                target_path=str(self.target(volume, pod)),
                volume_capability=capability(mode),
                readonly=read_only,
            ),
        )
        return self.inside(self.target(volume, pod))

    def unpublish(self, volume: str, pod: str = "pod") -> None:
        request = pb.NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(self.target(volume, pod)))
        self.call("Node", "NodeUnpublishVolume", request)

    def unstage(self, volume: str) -> None:
        staging = str(self.staging(volume))
        request = pb.NodeUnstageVolumeRequest(volume_id=volume, staging_target_path=staging)
        self.call("Node", "NodeUnstageVolume", request)

    def delete(self, volume: str) -> None:
        self.call("Controller", "DeleteVolume", pb.DeleteVolumeRequest(volume_id=volume))

    def delete_snapshot(self, snapshot: str) -> None:
        self.call("Controller", "DeleteSnapshot", pb.DeleteSnapshotRequest(snapshot_id=snapshot))

    # What is there

    def inside(self, path: Path) -> Path:
        """A path of the driver's mount namespace, usable from here."""
        return Path(f"/proc/{self._holder.pid}/root") / path.relative_to("/")

    @property
    def mountinfo(self) -> Path:
        """Of the driver's mount namespace."""
        return Path(f"/proc/{self._holder.pid}/mountinfo")

    def image(self, handle: str) -> Path:
        """The file behind a volume or snapshot."""
        folder = "volumes" if handle.startswith("vol-") else "snapshots"
        return self.inside(self.store / store.MOUNT_POINT / folder / f"{handle}.img")

    def files(self, folder: str) -> set[str]:
        return {path.name for path in self.inside(self.store / store.MOUNT_POINT / folder).iterdir()}

    def devices(self) -> list[loop.Loop]:
        """Loop devices on this store, with the one of the store itself."""
        return devices_of(self.store)


def devices_of(store_dir: Path) -> list[loop.Loop]:
    attached = loop.attached()
    found = loop.of_file(store_dir / store.IMAGE)
    for device in found:  # grows while we walk: children of children
        found += loop.children(device, attached)
    return found


def fails(call: Callable[[], Any]) -> str:
    """The gRPC code with which a call fails."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    raise AssertionError("the call did not fail")


def remove(directory: Path) -> None:
    """Take a rig's directory away, and prove that nothing of it is left in the kernel."""
    if (directory / "store" / store.IMAGE).exists():
        store.cleanup(directory / "store")
        assert devices_of(directory / "store") == []
    assert [mount for mount in mounts.table() if mount.point.is_relative_to(directory)] == []
    shutil.rmtree(directory)


@contextmanager
def rigs() -> Iterator[Callable[..., Rig]]:
    """Makes rigs, with running drivers unless told, and closes them; first those of killed test runs."""
    base = states() / ".csi-tests"
    base.mkdir(parents=True, exist_ok=True)
    for directory in base.glob("*-*"):
        lock = base / f"{directory.name.split('-')[0]}.lock"
        with lock.open("a") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(directory)
            lock.unlink()
    own = base / f"{os.getpid()}.lock"

    def make(*options: str, start: bool = True) -> Rig:
        directory = base / f"{os.getpid()}-{next(_numbers)}"
        directory.mkdir()
        rig = Rig(directory, *options)
        made.callback(rig.close)
        if start:
            rig.start()
        return rig

    with own.open("a") as file, ExitStack() as made:
        fcntl.flock(file, fcntl.LOCK_EX)
        made.callback(own.unlink)
        yield make
