"""The test cluster itself: what every other end-to-end test stands on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster import lifecycle, processes
from tests.cluster.cgroups import hierarchies
from tests.cluster.layout import DRIVERS, Cluster
from tests.cluster.paths import REPOSITORY
from tests.e2e.harness import Kubectl, Object, condition, until
from tests.e2e.toolbox import Toolbox, pod, toolbox

pytestmark = pytest.mark.cluster
SHORTS = [driver.short for driver in DRIVERS]
MIB = 1 << 20


@pytest.fixture(scope="module")
def running() -> Cluster:
    """The cluster that the environment names, for tests that reach behind its API server."""
    cluster = Cluster(os.environ.get("COEVAL_CLUSTER", "default"))
    if not lifecycle.is_up(cluster):
        pytest.fail(f"cluster {cluster.name} is down; python -m tests.cluster up --name {cluster.name}")
    return cluster


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    name = f"cluster-{uuid.uuid4().hex[:8]}"
    make_namespace(kubectl, name)
    yield name
    kubectl.delete("namespace", name)


def make_namespace(kubectl: Kubectl, name: str) -> None:
    """Restricted, as the operator's: what runs here runs there. Pods need its service account."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    kubectl("wait", "--for=create", "--timeout=30s", "-n", name, "serviceaccount/default")


def claim(
    name: str, namespace: str, short: str, mode: str, snapshot: str | None = None, mib: int = 64
) -> Object:
    spec: Object = {
        "storageClassName": short,
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": mode,
        "resources": {"requests": {"storage": f"{mib}Mi"}},
    }
    if snapshot:
        spec["dataSource"] = {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": snapshot,
        }
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def snapshot_of(name: str, namespace: str, short: str, source: Object) -> Object:
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"volumeSnapshotClassName": short, "source": source},
    }


def is_usable(snapshot: Object) -> bool:
    return bool(snapshot.get("status", {}).get("readyToUse"))


def take_snapshot(kubectl: Kubectl, name: str, namespace: str, short: str, source: Object) -> Object:
    kubectl.apply(snapshot_of(name, namespace, short, source))
    return kubectl.wait("volumesnapshot", name, namespace, is_usable, what=f"snapshot {name}", seconds=60)


def job(name: str, namespace: str, script: str) -> Object:
    container = {
        "name": "main",
        "image": "localhost/coeval:dev",
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", script],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    template = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    metadata = {"name": name, "namespace": namespace}
    spec = {"backoffLimit": 0, "template": {"spec": template}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def is_over(job: Object) -> bool:
    return any(condition(job, kind).get("status") == "True" for kind in ("Complete", "Failed"))


def run_job(kubectl: Kubectl, name: str, namespace: str, script: str) -> str:
    """The log of a Job that ended well."""
    kubectl.apply(job(name, namespace, script))
    done = kubectl.wait("job", name, namespace, is_over, what=f"job {name}", seconds=120)
    assert condition(done, "Complete").get("status") == "True", kubectl(
        "logs", "-n", namespace, f"job/{name}"
    )
    return kubectl("logs", "-n", namespace, f"job/{name}")


def test_a_job_completes_and_reaches_the_api_server(kubectl: Kubectl, namespace: str) -> None:
    ask = """
import os, ssl, urllib.request
trust = ssl.create_default_context(cafile="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
print(os.getuid(), urllib.request.urlopen(f"https://{host}:{port}/readyz", context=trust).read().decode())
"""
    assert run_job(kubectl, "ask", namespace, ask).split() == ["107", "ok"]


def test_a_failed_job_says_so(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(job("fails", namespace, "raise SystemExit(3)"))
    done = kubectl.wait("job", "fails", namespace, is_over, what="job fails", seconds=120)
    assert condition(done, "Failed")["reason"] == "BackoffLimitExceeded"
    (only,) = kubectl.list("pods", namespace, "batch.kubernetes.io/job-name=fails")
    assert only["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


def write_pattern(tools: Toolbox, path: str, byte: int) -> None:
    """One mebibyte, durable."""
    script = f"f = open({path!r}, 'r+b' if {path.startswith('/claims/block')} else 'wb')\n"
    script += f"f.write(bytes([{byte}]) * {MIB}); f.flush(); import os; os.fsync(f.fileno())"
    tools("python3", "-c", script)


@pytest.mark.parametrize("short", SHORTS)
def test_volumes_snapshots_and_restores_as_uid_107(kubectl: Kubectl, namespace: str, short: str) -> None:
    """Block and Filesystem: the restored hold the moment of the snapshot, the sources what came later."""
    sources = {"block": "Block", "files": "Filesystem"}
    kubectl.apply(*(claim(name, namespace, short, mode) for name, mode in sources.items()))
    paths = {"block": "/claims/block", "files": "/claims/files/data"}
    with toolbox(kubectl, "source", namespace, sources) as tools:
        assert tools("id", "-u").strip() == "107"
        for path in paths.values():
            write_pattern(tools, path, 1)
        for name in sources:
            take_snapshot(kubectl, f"of-{name}", namespace, short, {"persistentVolumeClaimName": name})
        for path in paths.values():
            write_pattern(tools, path, 2)
        assert first_byte(tools, paths["block"]) == first_byte(tools, paths["files"]) == 2
    copies = {"block-copy": "Block", "files-copy": "Filesystem"}
    kubectl.apply(
        *(
            claim(name, namespace, short, mode, snapshot=f"of-{name.removesuffix('-copy')}")
            for name, mode in copies.items()
        )
    )
    with toolbox(kubectl, "restored", namespace, copies) as tools:
        assert first_byte(tools, "/claims/block-copy") == 1
        assert first_byte(tools, "/claims/files-copy/data") == 1


def first_byte(tools: Toolbox, path: str) -> int:
    """Of the first mebibyte, after a look that all of it is the same."""
    script = (
        f"d = open({path!r}, 'rb').read({MIB}); assert len(d) == {MIB} and d == d[:1] * {MIB}; print(d[0])"
    )
    return int(tools("python3", "-c", script))


@pytest.mark.parametrize("short", SHORTS)
def test_a_volume_grows(kubectl: Kubectl, namespace: str, short: str) -> None:
    kubectl.apply(claim("data", namespace, short, "Block"))
    with toolbox(kubectl, "user", namespace, {"data": "Block"}) as tools:
        kubectl.apply(claim("data", namespace, short, "Block", mib=96))

        def grown(pvc: Object) -> bool:
            return bool(pvc["status"].get("capacity", {}).get("storage") == "96Mi")

        kubectl.wait("pvc", "data", namespace, grown, what="a larger volume", seconds=120)
        size = "import os; print(os.lseek(os.open('/claims/data', os.O_RDONLY), 0, os.SEEK_END))"
        assert int(tools("python3", "-c", size)) == 96 * MIB


def test_a_snapshot_is_handed_to_another_namespace(kubectl: Kubectl, namespace: str) -> None:
    """By a second, static content of the same handle; with Retain on the first, its objects can go."""
    short, driver = DRIVERS[0].short, DRIVERS[0].name
    kubectl.apply(claim("block", namespace, short, "Block"))
    with toolbox(kubectl, "writer", namespace, {"block": "Block"}) as tools:
        write_pattern(tools, "/claims/block", 7)
    snapshot = take_snapshot(kubectl, "first", namespace, short, {"persistentVolumeClaimName": "block"})
    content = snapshot["status"]["boundVolumeSnapshotContentName"]
    handle = (kubectl.get("volumesnapshotcontent", content) or {})["status"]["snapshotHandle"]
    retain = '{"spec": {"deletionPolicy": "Retain"}}'
    kubectl("patch", "volumesnapshotcontent", content, "--type=merge", "-p", retain)
    other = f"{namespace}-other"
    make_namespace(kubectl, other)
    try:
        twin = f"twin-{namespace}"
        kubectl.apply(
            {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshotContent",
                "metadata": {"name": twin},
                "spec": {
                    "deletionPolicy": "Delete",
                    "driver": driver,
                    "volumeSnapshotClassName": short,
                    "sourceVolumeMode": "Block",
                    "source": {"snapshotHandle": handle},
                    "volumeSnapshotRef": {"name": "second", "namespace": other},
                },
            }
        )
        take_snapshot(kubectl, "second", other, short, {"volumeSnapshotContentName": twin})
        kubectl.delete("volumesnapshot", "first", namespace)
        kubectl.delete("volumesnapshotcontent", content)
        kubectl.apply(claim("block-copy", other, short, "Block", snapshot="second"))
        with toolbox(kubectl, "reader", other, {"block-copy": "Block"}) as tools:
            assert first_byte(tools, "/claims/block-copy") == 7
    finally:
        kubectl.delete("namespace", other)


def test_a_killed_driver_comes_back_and_its_sidecars_with_it(
    running: Cluster, kubectl: Kubectl, namespace: str
) -> None:
    lifecycle.hold_down(running, "driver-two")
    try:
        kubectl.apply(claim("later", namespace, "two", "Block"))
    finally:
        lifecycle.let_run(running, "driver-two")
    kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", "-n", namespace, "pvc/later")


def coeval_cluster(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "tests.cluster", *arguments], cwd=REPOSITORY, check=True)


def leftovers(cluster: Cluster) -> list[str]:
    """Whatever of the cluster this machine still has."""
    found = [f"process {pid}" for pid in processes.marked(cluster)]
    found += [str(folder) for root in hierarchies() if (folder := root / cluster.cgroup).exists()]
    found += [str(cluster.state)] if cluster.state.exists() else []
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(cluster.state) in line]
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # of another cluster, and gone by now
            found += [
                f"{file.parts[3]} on {text}"
                for text in [file.read_text().strip()]
                if str(cluster.state) in text
            ]
    return found


def start_a_pod_with_volumes(cluster: Cluster) -> None:
    """A pod that writes to a volume of each driver and mode, and stays."""
    kubectl = Kubectl(cluster.kubeconfig)
    claims = {f"{mode.lower()}-{short}": mode for short in SHORTS for mode in ("Block", "Filesystem")}
    make_namespace(kubectl, "work")
    kubectl.apply(*(claim(name, "work", name.split("-")[1], mode) for name, mode in claims.items()))
    kubectl.apply(pod("busy", "work", claims))
    kubectl("wait", "pod", "busy", "-n", "work", "--for=condition=Ready", "--timeout=120s")
    tools = Toolbox(kubectl, "busy", "work")
    for name, mode in claims.items():
        write_pattern(tools, f"/claims/{name}" + ("/data" if mode == "Filesystem" else ""), 3)


def kill_up_in_the_middle(cluster: Cluster) -> None:
    """As soon as the init lives: half of everything is there."""
    argv = [sys.executable, "-m", "tests.cluster", "up", "--without-kubevirt", "--name", cluster.name]
    starting = subprocess.Popen(argv, cwd=REPOSITORY)
    try:
        until(lambda: processes.init_of(cluster), what="an init", seconds=120)
    finally:
        starting.kill()
        starting.wait()


def kill_services(cluster: Cluster, names: list[str]) -> None:
    """Each with SIGKILL; returns when all run again."""
    before = lifecycle.service_status(cluster)
    pids = [str(before[name]["pid"]) for name in names]
    assert lifecycle.run(cluster, ["kill", "-KILL", *pids]) == 0

    def healed() -> bool | None:
        now = lifecycle.service_status(cluster)
        again = all(now[name]["ready"] and now[name]["pid"] != before[name]["pid"] for name in names)
        return again or None

    until(healed, what=f"{', '.join(names)} again", seconds=120)


def test_a_crash_heals_and_down_leaves_nothing() -> None:
    """On a second cluster beside the running one: `up` killed, services killed, all killed, and the end."""
    cluster = Cluster("crash")
    names = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
    before = {name: (Path("/proc/sys") / name).read_text() for name in names}
    coeval_cluster("down", "--name", cluster.name)
    try:
        kill_up_in_the_middle(cluster)
        coeval_cluster("up", "--without-kubevirt", "--name", cluster.name)
        kill_services(cluster, ["etcd", "kube-apiserver", "containerd", "kubelet", "driver-one"])
        start_a_pod_with_volumes(cluster)
        pid = processes.init_of(cluster)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        coeval_cluster("up", "--without-kubevirt", "--name", cluster.name)
        start_a_pod_with_volumes(cluster)
        assert len(leftovers(cluster)) > len(DRIVERS), "this is how one sees a cluster"
    finally:
        coeval_cluster("down", "--name", cluster.name)
    assert leftovers(cluster) == []
    assert {name: (Path("/proc/sys") / name).read_text() for name in names} == before
