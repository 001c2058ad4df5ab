"""Brings a cluster up and takes it down."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tests.cluster import build, cgroups, config, host, images, objects, pki, processes, services, upstreams
from tests.cluster.build import locked, say
from tests.cluster.csi import protos, store
from tests.cluster.layout import DRIVERS, Cluster

START_SECONDS = 120.0
STORE_BYTES = 64 << 30
"""Sparse: a store takes what is written to it."""


class StartFailed(Exception):
    """The cluster did not come up; the message names the service and shows the end of its log."""


class Addition(Protocol):
    """Something on top of the plain cluster (KubeVirt)."""

    @property
    def upstreams(self) -> tuple[build.Upstream, ...]:
        """What it needs built."""

    def install(self, cluster: Cluster) -> None:
        """Installs it on the running cluster, unless it is there; returns when it works."""


def up(cluster: Cluster, additions: Sequence[Addition] = ()) -> None:
    """Builds what is missing and starts the cluster; what a crash left of it is cleared first.

    Where it runs it gets the present image of our code and the additions that it lacks.
    """
    host.check(cluster)
    host.ensure_packages()
    build.ensure([*upstreams.CLUSTER, *(each for addition in additions for each in addition.upstreams)])
    protos.ensure()
    with locked(cluster.lock, f"another command on cluster {cluster.name}"):
        _ensure_running(cluster)
        for addition in additions:
            addition.install(cluster)


def _ensure_running(cluster: Cluster) -> None:
    if is_up(cluster):
        say(f"cluster {cluster.name} is up")
        images.load_all(cluster)  # our code may have changed; what has not is not sent again
        return
    started = time.monotonic()

    def reached(what: str) -> None:
        say(f"cluster {cluster.name}: {what} after {time.monotonic() - started:.0f} s")

    clear(cluster)
    try:
        _start(cluster)
        _wait_for_services(cluster, {"kube-apiserver", "containerd"})
        reached("API server ready")
        objects.apply(cluster)
        images.load_all(cluster)
        reached("images imported")
        _wait_for_services(cluster, set(service_status(cluster)))
        objects.wait(cluster)
    except BaseException:
        processes.end(cluster)  # the logs stay; the next `up` or `down` clears them
        raise
    (cluster.state / "up").touch()
    reached("up")
    say(f"export KUBECONFIG={cluster.kubeconfig}")


def down(cluster: Cluster) -> None:
    """Leaves no process, mount, loop device, cgroup, namespace or file of the cluster."""
    with locked(cluster.lock, f"another command on cluster {cluster.name}"):
        clear(cluster)


def is_up(cluster: Cluster) -> bool:
    """Came up completely, and its init lives."""
    return (cluster.state / "up").exists() and processes.init_of(cluster) is not None


def clear(cluster: Cluster) -> None:
    """Takes away whatever carries the cluster's name, running or left by a crash. Idempotent."""
    processes.end(cluster)
    # The namespaces went with their last process, and the mounts with them; loop devices are the machine's.
    for folder in _stores(cluster):
        store.cleanup(folder)
    cgroups.remove(cluster.cgroup)
    _remove_state(cluster.state)


def _stores(cluster: Cluster) -> list[Path]:
    """The node's last: pods keep what the drivers' volumes stand on."""
    return [*(cluster.store(driver) for driver in DRIVERS), cluster.disk]


def _remove_state(state: Path) -> None:
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [point for point in mounted if Path(point).is_relative_to(state)]
    if inside:
        raise OSError(f"{', '.join(inside)} is mounted inside {state}, by none of us: unmount it first")
    if state.exists():
        shutil.rmtree(state)


def _start(cluster: Cluster) -> None:
    """Writes all files and starts the init; nothing is ready yet."""
    cluster.state.mkdir(parents=True, mode=0o755)
    for folder in (cluster.logs, cluster.stopped, cluster.bin):
        folder.mkdir()
    _link_programs(cluster)
    pki.write(cluster.pki)
    for folder in _stores(cluster):
        store.create_store(folder, STORE_BYTES)
    cgroups.create(cluster.cgroup)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        config.write(cluster, listener.getsockname()[1])
        services.write(cluster, services.everything(cluster, listener.fileno()))
        _spawn_init(cluster, listener.fileno())


def _link_programs(cluster: Cluster) -> None:
    for upstream in upstreams.CLUSTER:
        for target in upstream.targets:
            (cluster.bin / target.name).symlink_to(upstreams.program(upstream, target.name))


def _spawn_init(cluster: Cluster, listener: int) -> None:
    unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc"]
    unshare += ["--propagation=private", "--kill-child=KILL"]
    with (cluster.logs / "init.log").open("ab") as log:
        subprocess.Popen(
            [*unshare, "--", sys.executable, "-m", "tests.cluster.init", cluster.name],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            env=services.environment(cluster), pass_fds=(listener,), start_new_session=True,
        )  # fmt: skip


def service_status(cluster: Cluster) -> dict[str, dict[str, object]]:
    """What the init last said; empty before it said anything."""
    try:
        status: dict[str, dict[str, object]] = json.loads(cluster.status.read_text())
    except FileNotFoundError:
        return {}
    return status


def _wait_for_services(cluster: Cluster, names: set[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        waiting = sorted(name for name in names if not service_status(cluster).get(name, {}).get("ready"))
        if not waiting:
            return
        if processes.init_of(cluster) is None and service_status(cluster):
            raise StartFailed(f"the init ended: {_tail(cluster, 'init')}")
        if time.monotonic() > deadline:
            told = "\n".join(f"{name}: {_tail(cluster, name)}" for name in waiting)
            raise StartFailed(f"not ready after {START_SECONDS:.0f} s:\n{told}")
        time.sleep(0.05)


def _tail(cluster: Cluster, service: str) -> str:
    log = cluster.logs / f"{service}.log"
    lines = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else ["never started"]
    return f"{log}\n  " + "\n  ".join(lines)


def hold_down(cluster: Cluster, service: str) -> None:
    """Kills a service and keeps it from starting again until `let_run`; returns when it is dead."""
    _known(cluster, service)
    (cluster.stopped / service).touch()
    _wait(cluster, service, lambda each: each["pid"] is None)


def let_run(cluster: Cluster, service: str) -> None:
    """Takes `hold_down` back; returns when the service is ready."""
    _known(cluster, service)
    (cluster.stopped / service).unlink(missing_ok=True)
    _wait(cluster, service, lambda each: bool(each["ready"]))


def _known(cluster: Cluster, service: str) -> None:
    if service not in service_status(cluster):
        raise StartFailed(
            f"cluster {cluster.name} has no service {service}: {', '.join(service_status(cluster))}"
        )


def _wait(cluster: Cluster, service: str, reached: Callable[[dict[str, object]], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not reached(service_status(cluster)[service]):
        if time.monotonic() > deadline:
            raise StartFailed(f"{service} of cluster {cluster.name}: {_tail(cluster, service)}")
        time.sleep(0.05)


def status(cluster: Cluster) -> str:
    """A few lines for people."""
    if processes.init_of(cluster) is None:
        return f"cluster {cluster.name} is down"
    lines = [
        f"cluster {cluster.name} is {'up' if is_up(cluster) else 'starting'}; KUBECONFIG={cluster.kubeconfig}"
    ]
    for name, each in service_status(cluster).items():
        state = "ready" if each["ready"] else "not ready"
        lines.append(f"  {name}: {state}, pid {each['pid']} inside, started {each['starts']} times")
    return "\n".join(lines)


def run(cluster: Cluster, command: list[str]) -> int:
    """Runs a command inside the cluster's namespaces, with its programs in PATH; the exit status."""
    pid = processes.init_of(cluster)
    if pid is None:
        raise StartFailed(f"cluster {cluster.name} is down; python -m tests.cluster up --name {cluster.name}")
    env = {
        **os.environ,
        "PATH": services.environment(cluster)["PATH"],
        "KUBECONFIG": str(cluster.config / "admin.kubeconfig"),
    }
    return subprocess.run(processes.enter(pid, *command), env=env, check=False).returncode
