"""Which programs the test cluster is made of, and where each comes from."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.cluster.build import Target, Upstream, build_with_go, directory, go_environment

KUBERNETES_VERSION = "v1.36.4"


def _kubernetes_ldflags() -> tuple[str, ...]:
    """Without these the node reports a version that no client can compare."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    stamps = {"gitVersion": KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    assignments = (f"-X {package}.{key}={value}" for package in packages for key, value in stamps.items())
    return ("-s", "-w", *assignments)


KUBERNETES = Upstream(
    name="kubernetes",
    targets=(
        Target("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 400),
        Target("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 90),
        Target("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 10),
        Target("kubelet", "k8s.io/kubernetes/cmd/kubelet", 60),
        Target("kubectl", "k8s.io/kubernetes/cmd/kubectl", 60),
    ),
    tags=("selinux", "notest", "grpcnotrace"),
    ldflags=_kubernetes_ldflags(),
)


def _build_sidecars(upstream: Upstream, into: Path) -> None:
    """The programs, and beside them the CRDs of the same versions, so that `up` needs no module cache."""
    build_with_go(upstream, into)
    crds = into / "crds"
    crds.mkdir()
    for module in (
        "github.com/kubernetes-csi/external-snapshotter/client/v8",
        "github.com/kubernetes-csi/external-snapshot-metadata/client",
    ):
        command = ["go", "mod", "download", "-json", module]
        run = subprocess.run(
            command,
            cwd=upstream.wrapper,
            env=go_environment(upstream),
            check=True,
            capture_output=True,
            text=True,
        )
        for crd in sorted((Path(json.loads(run.stdout)["Dir"]) / "config" / "crd").glob("*.io_*.yaml")):
            shutil.copyfile(crd, crds / crd.name)


SIDECARS = Upstream(
    name="sidecars",
    build=_build_sidecars,
    targets=(
        Target(
            "csi-provisioner", "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner", 240
        ),
        Target("csi-resizer", "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer", 30),
        Target(
            "snapshot-controller",
            "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
            60,
        ),
        Target(
            "csi-snapshotter", "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter", 30
        ),
        Target(
            "csi-snapshot-metadata",
            "github.com/kubernetes-csi/external-snapshot-metadata/cmd/csi-snapshot-metadata",
            60,
        ),
    ),
)

RUNTIME = Upstream(
    name="runtime",
    targets=(
        Target("etcd", "go.etcd.io/etcd/server/v3", 60),
        Target("containerd", "github.com/containerd/containerd/v2/cmd/containerd", 120),
        Target(
            "containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", 20
        ),
        Target("ctr", "github.com/containerd/containerd/v2/cmd/ctr", 20),
        Target("ptp", "github.com/containernetworking/plugins/plugins/main/ptp", 10),
        Target("loopback", "github.com/containernetworking/plugins/plugins/main/loopback", 5),
        Target("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local", 5),
    ),
)

RUNC = Upstream(
    name="runc",
    targets=(Target("runc", "github.com/opencontainers/runc", 60),),
    # Static: the same file runs on every distribution. Pods that ask for RuntimeDefault need seccomp.
    tags=("seccomp", "netgo", "osusergo"),
    ldflags=("-s", "-w", "-X main.version=1.4.3", "-extldflags -static"),
    cgo=True,
)

CSITEST = Upstream(
    name="csitest",
    targets=(Target("csi-sanity", "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity", 100),),
)

CLUSTER: tuple[Upstream, ...] = (KUBERNETES, SIDECARS, RUNTIME, RUNC)
"""What `up` needs without KubeVirt."""

ALL: tuple[Upstream, ...] = (*CLUSTER, CSITEST)


def program(upstream: Upstream, name: str) -> Path:
    """The path of a built program; the caller has ensured the upstream."""
    return directory(upstream) / name
