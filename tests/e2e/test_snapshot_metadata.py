"""Changed blocks on a real cluster: a pod asks the real csi-snapshot-metadata for what the driver tells."""

import json
import uuid
from collections.abc import Iterator

import pytest

from tests.cluster.layout import DRIVERS, NODE_IP
from tests.e2e.harness import Kubectl, Object
from tests.e2e.test_cluster import claim, make_namespace, take_snapshot
from tests.e2e.toolbox import Toolbox, pod, toolbox

pytestmark = pytest.mark.cluster

DRIVER = DRIVERS[1]
MIB = 1 << 20
SIZE = 64 * MIB
FIRST = ((0, 3), (40, 2))
"""MiB that are written before S1: (offset, length)."""
LATER = ((20, 4), (63, 1))
"""And between S1 and S2."""
SERVICE = "/service"
REPOSITORY = "/claims/repository"


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> Iterator[str]:
    name = f"changed-{uuid.uuid4().hex[:8]}"
    make_namespace(kubectl, name)
    yield name
    kubectl.delete("namespace", name)


@pytest.fixture(scope="module")
def handles(kubectl: Kubectl, namespace: str) -> dict[str, str]:
    """Snapshots s1 and s2 of one volume, as claims of the same names, too; their handles by name."""
    found = {}
    kubectl.apply(claim("volume", namespace, DRIVER.short, "Block"))
    with toolbox(kubectl, "writer", namespace, {"volume": "Block"}) as tools:
        for name, places in (("s1", FIRST), ("s2", LATER)):
            for offset, length in places:
                tools(
                    *("dd", "if=/dev/urandom", "of=/claims/volume", "bs=1M", f"seek={offset}"),
                    *(f"count={length}", "conv=notrunc,fsync", "oflag=direct"),
                )
            source = {"persistentVolumeClaimName": "volume"}
            snapshot = take_snapshot(kubectl, name, namespace, DRIVER.short, source)
            content = kubectl.get(
                "volumesnapshotcontent", snapshot["status"]["boundVolumeSnapshotContentName"]
            )
            assert content is not None
            found[name] = content["status"]["snapshotHandle"]
            kubectl.apply(claim(name, namespace, DRIVER.short, "Block", snapshot=name))
    return found


@pytest.fixture(scope="module")
def mover(kubectl: Kubectl, namespace: str, handles: dict[str, str]) -> Iterator[Toolbox]:
    """A pod with both clones, a claim for a repository, a token for the service and its certificate."""
    service = kubectl.get("snapshotmetadataservice", DRIVER.name)
    assert service is not None
    kubectl.apply(*may_ask(namespace), certificate(namespace, service))
    kubectl.apply(claim("repository", namespace, DRIVERS[0].short, "Filesystem", mib=256))
    claims = {"s1": "Block", "s2": "Block", "repository": "Filesystem"}
    asking = pod("mover", namespace, claims)
    asking["spec"]["serviceAccountName"] = "mover"
    token = {"serviceAccountToken": {"path": "token", "audience": service["spec"]["audience"]}}
    authority = {"configMap": {"name": "service", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    asking["spec"]["volumes"].append({"name": "service", "projected": {"sources": [token, authority]}})
    asking["spec"]["containers"][0]["volumeMounts"].append({"name": "service", "mountPath": SERVICE})
    kubectl.apply(asking)
    kubectl("wait", "pod", "mover", "-n", namespace, "--for=condition=Ready", "--timeout=120s")
    tools = Toolbox(kubectl, "mover", namespace)
    tools("sh", "-c", "echo a password of tests > /tmp/password")
    tools("coeval", "repo", "init", *access())
    yield tools
    kubectl.delete("pod", "mover", namespace)


def may_ask(namespace: str) -> list[Object]:
    """Who asks must be allowed to read the snapshots that are asked about."""
    here = {"name": "mover", "namespace": namespace}
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["snapshot.storage.k8s.io"], "resources": ["volumesnapshots"], "verbs": ["get"]}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": here, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": here,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "mover"},
            "subjects": [{"kind": "ServiceAccount", **here}],
        },
    ]


def certificate(namespace: str, service: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "service", "namespace": namespace},
        # As the object has it, base64 and all: a ConfigMap decodes binaryData itself.
        "binaryData": {"ca.crt": service["spec"]["caCert"]},
    }


def access() -> list[str]:
    return ["--repository", f"file://{REPOSITORY}/r", "--password-file", "/tmp/password"]


def volume(mover: Toolbox, verb: str, source: str, *more: str) -> Object:
    """`coeval volume <verb>` of one of the clones; its result."""
    words = ["--name", "disk", "--source", f"/claims/{source}", "--as-of", "2026-11-24T10:00:00Z", *more]
    result: Object = json.loads(mover("coeval", "volume", verb, *access(), *words))
    return result


def asked(namespace: str, snapshot: str, *more: str, file: str = "token") -> list[str]:
    """The options that ask the driver."""
    return [
        *("--changed-from", "csi", "--metadata-address", f"{NODE_IP}:{DRIVER.metadata_port}"),
        *("--metadata-ca", f"{SERVICE}/ca.crt", "--metadata-token-file", f"{SERVICE}/{file}"),
        *("--snapshot-namespace", namespace, "--snapshot-name", snapshot, *more),
    ]


def written(places: tuple[tuple[int, int], ...]) -> int:
    return sum(length for _, length in places) * MIB


def restored(mover: Toolbox, snapshot: str) -> str:
    """SHA-256 of what a snapshot in the repository restores to."""
    mover(
        *("coeval", "volume", "restore", *access(), "--name", "disk", "--snapshot", snapshot),
        *("--target", f"{REPOSITORY}/restored", "--sparse", "--overwrite"),
    )
    return mover.sha256(f"{REPOSITORY}/restored")


def test_a_first_copy_reads_what_is_allocated_and_the_next_what_changed(
    mover: Toolbox, namespace: str, handles: dict[str, str]
) -> None:
    full = volume(mover, "copy", "s1", *asked(namespace, "s1"))
    assert (full["change_source"], full.get("fallback")) == ("CSI", None)
    assert written(FIRST) <= full["bytes_reported"] < SIZE // 2
    assert full["bytes_read"] < SIZE
    assert restored(mover, full["snapshot"]) == mover.sha256("/claims/s1")
    delta = ("--parent", full["snapshot"], "--base-handle", handles["s1"])
    later = volume(mover, "copy", "s2", *asked(namespace, "s2", *delta))
    assert (later["change_source"], later.get("fallback")) == ("CSI", None)
    assert later["bytes_reported"] == written(LATER)
    assert later["bytes_changed"] == written(LATER)
    assert restored(mover, later["snapshot"]) == mover.sha256("/claims/s2")


def test_a_rewind_reads_what_changed(mover: Toolbox, namespace: str, handles: dict[str, str]) -> None:
    copy = volume(mover, "copy", "s2", "--interim")
    back = ("--snapshot", copy["snapshot"], "--base-handle", handles["s1"])
    done = volume(mover, "retime", "s1", *asked(namespace, "s2", *back))
    assert (done["change_source"], done.get("fallback")) == ("CSI", None)
    assert done["bytes_reported"] == done["bytes_changed"] == written(LATER)
    assert done["bytes_read"] < SIZE // 2
    assert restored(mover, done["snapshot"]) == mover.sha256("/claims/s1")


def test_what_the_service_refuses_is_compared_and_told(
    mover: Toolbox, namespace: str, handles: dict[str, str]
) -> None:
    copy = volume(mover, "copy", "s2", "--interim")
    unknown = ("--snapshot", copy["snapshot"], "--base-handle", "snap-0000000000000000-00000000")
    done = volume(mover, "retime", "s1", *asked(namespace, "s2", *unknown))
    assert (done["change_source"], done["fallback"]["reason"]) == ("Compare", "SnapshotUnknown")
    assert restored(mover, done["snapshot"]) == mover.sha256("/claims/s1")
    mover("sh", "-c", "echo no.token.at.all > /tmp/token")
    known = ("--snapshot", copy["snapshot"], "--base-handle", handles["s1"])
    done = volume(mover, "retime", "s1", *asked(namespace, "s2", *known, file="../tmp/token"))
    assert (done["change_source"], done["fallback"]["reason"]) == ("Compare", "AccessDenied")
    assert "no.token.at.all" not in str(done)
