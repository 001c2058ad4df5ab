"""What a cluster needs of the machine: root, Linux, and a few Debian packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster import inside
from tests.cluster.build import say
from tests.cluster.layout import Cluster
from tests.cluster.paths import REPOSITORY, cache

PROGRAMS = {
    # program: the Debian package that has it
    "gcc": "gcc",
    "ip": "iproute2",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mmdebstrap": "mmdebstrap",
    "nsenter": "util-linux",
    "pkg-config": "pkg-config",
    "qemu-system-x86_64": "qemu-system-x86",  # the guest is tested without a cluster too
    "unshare": "util-linux",
}
FILES = {
    # pattern below /usr: package
    "lib/*/libseccomp.a": "libseccomp-dev",
    "lib/*/libc.a": "libc6-dev",
    "share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
ADMIN_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


class NotPossible(Exception):
    """The machine lacks something; the message says what, and what to do."""


def missing_packages() -> list[str]:
    """Debian packages of which something is not there."""
    path = f"{os.environ.get('PATH', '')}:{ADMIN_PATH}"
    missing = {package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)}
    missing |= {package for pattern, package in FILES.items() if not any(Path("/usr").glob(pattern))}
    return sorted(missing)


def ensure_packages() -> None:
    """Installs what is missing. Raises NotPossible where that needs another user or another system."""
    missing = missing_packages()
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NotPossible(
            f"missing on this machine: {', '.join(missing)}; as root: apt-get install {' '.join(missing)}"
        )
    say(f"installing {', '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", "update"], check=True, env=env)
    subprocess.run(["apt-get", "-qq", "install", "--no-install-recommends", *missing], check=True, env=env)


def check(cluster: Cluster) -> None:
    """Raises NotPossible before anything was touched."""
    if os.geteuid() != 0:
        raise NotPossible("a cluster needs root: namespaces, mounts and loop devices; run this as root")
    if not shutil.which("go"):
        raise NotPossible("the Go compiler is not there; install Go 1.26 or later from https://go.dev/dl")
    for path in (cluster.state, cache(), REPOSITORY):
        for hidden in inside.HIDDEN:
            if path.resolve().is_relative_to(hidden):
                raise NotPossible(
                    f"{path} lies in {hidden}, which the cluster hides from its processes: "
                    "move it, or set COEVAL_STATE or COEVAL_CACHE to another place"
                )
