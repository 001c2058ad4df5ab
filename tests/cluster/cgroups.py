"""The cgroup under which kubelet puts its pods: global to the machine, so one per cluster, on v1 and v2."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

REMOVE_SECONDS = 20.0


def hierarchies() -> list[Path]:
    """Mount points: one per controller on v1, one in all on v2, both on a hybrid machine."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        if tail.split()[0] in ("cgroup", "cgroup2"):
            found.append(Path(fields.split()[4]))
    return found


def create(name: str) -> None:
    """Makes the cgroup in every hierarchy."""
    for hierarchy in hierarchies():
        folder = hierarchy / name
        folder.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            # v1 gives a new cpuset neither processors nor memory, and no child may have more than its parent.
            if (hierarchy / file).exists() and not (folder / file).read_text().strip():
                (folder / file).write_text((hierarchy / file).read_text())
        if (hierarchy / "cgroup.controllers").exists():
            _delegate(hierarchy)


def remove(name: str) -> None:
    """Ends what is still in the cgroups and removes them; OSError if that takes too long."""
    deadline = time.monotonic() + REMOVE_SECONDS
    for hierarchy in hierarchies():
        while (hierarchy / name).exists():
            busy = _remove_tree(hierarchy / name)
            if busy and time.monotonic() > deadline:
                raise OSError(errno.EBUSY, f"cgroup {busy} still has processes")
            if busy:
                time.sleep(0.02)


def _remove_tree(root: Path) -> Path | None:
    """Removes from the leaves up; the first cgroup that could not go, if any."""
    busy = None
    for folder, _, _ in os.walk(root, topdown=False):
        with suppress(OSError, ValueError):
            for pid in (Path(folder) / "cgroup.procs").read_text().split():
                if (
                    int(pid) > 0
                ):  # 0 stands for a process that this namespace cannot name; to kill 0 is to kill us
                    os.kill(int(pid), signal.SIGKILL)
        try:
            Path(folder).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            busy = busy or Path(folder)
    return busy


def _delegate(hierarchy: Path) -> None:
    """v2: kubelet needs the controllers below the root; those that are taken by v1 are not offered."""
    for controller in (hierarchy / "cgroup.controllers").read_text().split():
        with suppress(OSError):
            (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
