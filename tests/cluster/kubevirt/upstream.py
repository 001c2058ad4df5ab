"""KubeVirt's programs, from its Go module.

The control plane is static Go. virt-launcher, virt-handler and the hook client link against libvirt, so they
are compiled inside a Debian root of the same release as the image that they run in.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.cluster.build import (
    Target,
    Upstream,
    build_with_go,
    directory,
    go_command,
    go_environment,
    run_reporting,
)
from tests.cluster.kubevirt.debian import inside, packages, require, temporary_root

VERSION = "v1.8.4"
COMMIT = "dfaa398f086692d19e01be21d83a01036e07815f"
RELEASED = "2026-06-15T03:44:27Z"

MODULE = "kubevirt.io/kubevirt"
_STAMP = f"{MODULE.split('/', maxsplit=1)[0]}/client-go/version"

CONTROL = (
    Target("virt-operator", f"{MODULE}/cmd/virt-operator", 240),
    Target("virt-api", f"{MODULE}/cmd/virt-api", 60),
    Target("virt-controller", f"{MODULE}/cmd/virt-controller", 60),
)
STATIC = (
    *CONTROL,
    Target("virt-freezer", f"{MODULE}/cmd/virt-freezer", 20),
    Target("virt-launcher-monitor", f"{MODULE}/cmd/virt-launcher-monitor", 10),
    Target("virt-chroot", f"{MODULE}/cmd/virt-chroot", 10),
    Target("virt-probe", f"{MODULE}/cmd/virt-probe", 10),
    Target("virt-tail", f"{MODULE}/cmd/virt-tail", 10),
    Target("operator-manifests", "./operator-manifests", 20),
)
LINKED = (
    Target("virt-launcher", f"{MODULE}/cmd/virt-launcher", 600),
    Target("virt-handler", f"{MODULE}/cmd/virt-handler", 60),
    Target("libvirt-hook-client", f"{MODULE}/cmd/virt-launcher/libvirt-hook-client", 30),
)
CONTAINER_DISK = Target("container-disk", f"{MODULE}/cmd/container-disk-v2alpha", 5)
"""C, not Go: the program that containerDisk volumes start."""

CONFIGURATION = {
    "qemu.conf": "qemu.conf",
    "virtqemud.conf": "virtqemud.conf",
    "qemu": "qemu",
    "node-labeller.sh": "node-labeller/node-labeller.sh",
}
"""Files of the launcher image that are the module's own: name here → path under cmd/virt-launcher."""


def _build(upstream: Upstream, into: Path) -> None:
    require("mmdebstrap")
    build_with_go(replace(upstream, targets=STATIC), into)
    module = _download(upstream)
    for name, path in CONFIGURATION.items():
        shutil.copyfile(module / "cmd" / "virt-launcher" / path, into / name)
    include = packages(upstream.wrapper / "packages.txt")
    # Inside the unfinished result: what a killed build leaves goes with it when the next one starts.
    with temporary_root(into / ".root", include, variant="minbase", label="Debian root with libvirt") as root:
        _build_linked(upstream, root, module, into)


def _build_linked(upstream: Upstream, root: Path, module: Path, into: Path) -> None:
    """Inside the root there is no network (and no CA certificate): `_download` has fetched every module."""
    linked = replace(upstream, cgo=True, env=(*upstream.env, ("GOPROXY", "off")))
    where = {name: _go_env(upstream, name) for name in ("GOROOT", "GOCACHE", "GOMODCACHE")}
    environment = {
        **where,
        **{name: go_environment(linked)[name] for name in ("GOTOOLCHAIN", "GOFLAGS", "GOWORK", "GOPROXY")},
        "CGO_ENABLED": "1",
        "HOME": "/root",
        "PATH": f"{where['GOROOT']}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    binds = [*map(Path, where.values()), upstream.wrapper, into]
    for target in LINKED:
        script = f'cd "{upstream.wrapper}" && exec "$@"'
        command = inside(root, binds, script, *go_command(linked, target, into))
        label = f"building {upstream.name} {target.name} in Debian"
        run_reporting(command, label, target.seconds, into, environment)
    source = module / "cmd" / "container-disk-v2alpha" / "main.c"
    compile_disk = ["gcc", "-O2", "-static", "-o", str(into / CONTAINER_DISK.name), str(source)]
    command = inside(root, binds, 'exec "$@"', *compile_disk)
    run_reporting(command, "building container-disk", CONTAINER_DISK.seconds, into, environment)


def _download(upstream: Upstream) -> Path:
    """Fetches the modules that the linked programs need and no others; answers with KubeVirt's own folder."""
    environment = go_environment(replace(upstream, cgo=True))
    listing = ["go", "list", "-deps", *(target.package for target in LINKED)]
    run_reporting(listing, "downloading KubeVirt's modules", 120, upstream.wrapper, environment)
    command = ["go", "list", "-m", "-json", MODULE]
    found = subprocess.run(
        command, cwd=upstream.wrapper, env=environment, check=True, capture_output=True, text=True
    )
    return Path(json.loads(found.stdout)["Dir"])


def _go_env(upstream: Upstream, name: str) -> str:
    command = ["go", "env", name]
    environment = go_environment(upstream)
    return subprocess.run(
        command, cwd=upstream.wrapper, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def _ldflags() -> tuple[str, ...]:
    """The version as upstream's own build stamps it; virt-operator compares it to what it finds installed."""
    stamps = {"gitVersion": VERSION, "gitCommit": COMMIT, "gitTreeState": "clean", "buildDate": RELEASED}
    return ("-s", "-w", *(f"-X {_STAMP}.{key}={value}" for key, value in stamps.items()))


KUBEVIRT = Upstream(
    name="kubevirt",
    targets=(*STATIC, *LINKED, CONTAINER_DISK),
    ldflags=_ldflags(),
    env=(("GOFLAGS", "-buildvcs=false"),),
    build=_build,
)


def program(name: str) -> Path:
    """The path of one of the built files; the caller has ensured the upstream."""
    return directory(KUBEVIRT) / name
