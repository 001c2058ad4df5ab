"""Finds and ends the processes of a cluster.

They carry the cluster's mark in their environment, so nothing that crashed can have forgotten to write its
pid down.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.cluster.layout import MARKER, Cluster

END_SECONDS = 30.0


def marked(cluster: Cluster) -> list[int]:
    """Processes started with the cluster's mark, as this pid namespace numbers them."""
    mark = f"{MARKER}={cluster.state}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def init_of(cluster: Cluster) -> int | None:
    """The cluster's PID 1 as this pid namespace numbers it."""
    for pid in marked(cluster):
        with suppress(OSError):
            numbers = next(
                line.split()[1:]
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if line[:6] == "NSpid:"
            )
            if len(numbers) == 2 and numbers[1] == "1":
                return pid
    return None


def end(cluster: Cluster) -> None:
    """Kills the init, and with it everything in its pid namespace, and what else carries the mark.

    Raises TimeoutError if something does not die, naming it.
    """
    deadline = time.monotonic() + END_SECONDS
    while pids := marked(cluster):
        waiting = {}
        for pid in pids:
            with suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                waiting[fd] = pid
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        try:
            for fd, pid in waiting.items():
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise TimeoutError(f"process {pid} of cluster {cluster.name} does not end")
        finally:
            for fd in waiting:
                os.close(fd)


def on_network(pid: int, *command: str) -> list[str]:
    """The command line that runs `command` in the network of the init `pid`, else on the machine itself."""
    return ["nsenter", f"--target={pid}", "--net", "--", *command]


def enter(pid: int, *command: str) -> list[str]:
    """The command line that runs `command` in the namespaces of the init `pid`."""
    return ["nsenter", f"--target={pid}", "--mount", "--net", "--pid", "--", *command]
