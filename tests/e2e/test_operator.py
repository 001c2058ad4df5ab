"""The operator as we ship it: a Deployment with our rights, under restricted pod security."""

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.layout import Cluster
from tests.e2e.harness import OPERATOR_NAMESPACE, Kubectl, Object, condition, until
from tests.e2e.scene import install_operator, start_backup

pytestmark = pytest.mark.cluster

OPERATOR = "system:serviceaccount:coeval-system:coeval-operator"
MOVER = "system:serviceaccount:coeval-system:coeval-mover"
LABEL = "app.kubernetes.io/name=coeval-operator"


@pytest.fixture(scope="module")
def kubectl() -> Kubectl:
    default = Cluster(os.environ.get("COEVAL_CLUSTER", "default")).kubeconfig
    kubectl = Kubectl(Path(os.environ.get("KUBECONFIG") or default))
    install_operator(kubectl)
    until(lambda: leader(kubectl), what="a leader", seconds=60)
    return kubectl


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    name = f"operator-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl.delete("namespace", name)


def pods(kubectl: Kubectl) -> list[Object]:
    return [
        pod
        for pod in kubectl.list("pods", OPERATOR_NAMESPACE, LABEL)
        if "deletionTimestamp" not in pod["metadata"]
    ]


def lease(kubectl: Kubectl) -> Object:
    found = kubectl.get("lease", "coeval-operator", OPERATOR_NAMESPACE)
    spec: Object = found["spec"] if found else {}
    return spec


def leader(kubectl: Kubectl) -> str | None:
    """The pod that holds the Lease, if it is there."""
    holder = lease(kubectl).get("holderIdentity")
    return holder if holder in [pod["metadata"]["name"] for pod in pods(kubectl)] else None


def metric(kubectl: Kubectl, name: str) -> float:
    """Of the leader; by way of the API server, as the pod's network is not ours."""
    path = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{leader(kubectl)}:8080/proxy/metrics"
    for line in kubectl("get", "--raw", path).splitlines():
        if line.startswith(name):
            return float(line.rpartition(" ")[2])
    return 0.0


def may(kubectl: Kubectl, who: str, verb: str, what: str, namespace: str) -> bool:
    """The API server's own answer; `what` is group/resource[/subresource]."""
    group, resource, *sub = what.split("/")
    wanted = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
    if sub:
        wanted["subresource"] = sub[0]
    groups = [
        "system:authenticated",
        "system:serviceaccounts",
        f"system:serviceaccounts:{OPERATOR_NAMESPACE}",
    ]
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": who, "groups": groups, "resourceAttributes": wanted},
    }
    answer = json.loads(kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(review)))
    return bool(answer["status"]["allowed"])


def test_it_is_ready_restricted_and_has_not_restarted(kubectl: Kubectl) -> None:
    [pod] = pods(kubectl)
    assert condition(pod, "Ready")["status"] == "True"
    [container] = pod["status"]["containerStatuses"]
    assert container["restartCount"] == 0
    assert pod["spec"]["securityContext"]["runAsUser"] == 107
    namespace = kubectl.get("namespace", OPERATOR_NAMESPACE)
    assert namespace is not None
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_backup_of_an_unknown_vm_says_so_at_once(kubectl: Kubectl, namespace: str) -> None:
    """Within seconds, though everything is listed only every five minutes: the watch delivered it."""
    backup = start_backup(kubectl, namespace, "nobody", "nowhere")
    seen = backup.until(lambda found: condition(found, "Ready") != {}, what="a Ready condition", seconds=15)
    assert condition(seen, "Ready")["status"] == "False"
    assert condition(seen, "Ready")["reason"] == "VirtualMachineNotFound"
    assert f"{namespace}/nobody" in condition(seen, "Ready")["message"]
    ended = backup.until_ended(seconds=90)
    assert ended["status"]["phase"] == "Failed"
    assert condition(ended, "Stalled")["status"] == "True"
    assert ended["status"]["observedGeneration"] == ended["metadata"]["generation"]
    kubectl("wait", "--for=condition=Stalled", "--timeout=5s", "-n", namespace, f"vmbackup/{backup.name}")
    events = kubectl.list("events.events.k8s.io", namespace)
    assert "VirtualMachineNotFound" in {event["reason"] for event in events}


def test_a_change_of_a_child_is_noticed(kubectl: Kubectl) -> None:
    """A ConfigMap's owner is not asked; a PVC with our label is watched where the operator lives."""
    before = metric(kubectl, 'coeval_watch_events_total{kind="persistentvolumeclaims"}')
    name = f"child-{uuid.uuid4().hex[:8]}"
    claim: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": OPERATOR_NAMESPACE,
            "labels": {"app.kubernetes.io/managed-by": "coeval"},
            "annotations": {"coeval.dev/backup": "nowhere/nothing"},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    kubectl.apply(claim)
    try:
        until(
            lambda: (
                metric(kubectl, 'coeval_watch_events_total{kind="persistentvolumeclaims"}') > before or None
            ),
            what="the watch to deliver the claim",
            seconds=15,
        )
    finally:
        kubectl.delete("persistentvolumeclaim", name, OPERATOR_NAMESPACE)


def test_its_log_is_json_without_errors_and_without_refusals(kubectl: Kubectl) -> None:
    text = kubectl("logs", "-n", OPERATOR_NAMESPACE, "-l", LABEL, "--tail=-1")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"starting", "lease acquired"} <= {line["event"] for line in lines}
    bad = [
        line for line in lines if line["level"] in ("error", "critical") or "forbidden" in str(line).lower()
    ]
    # A CRD that was just installed answers 429 for a moment, and Kopf says so before it tries again.
    assert [line for line in bad if "(re)initializing" not in line["event"]] == []


def test_probes_and_metrics(kubectl: Kubectl) -> None:
    base = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{leader(kubectl)}:8080/proxy"
    for path in ("healthz", "readyz"):
        answer = kubectl("get", "--raw", f"{base}/{path}")
        assert answer.strip()
        assert all(line.endswith(": ok") for line in answer.splitlines()), answer
    assert metric(kubectl, "coeval_leading") == 1
    assert metric(kubectl, 'coeval_queue_seconds_count{controller="vmbackup"}') > 0


def test_the_operator_has_its_rights_and_no_others(kubectl: Kubectl, namespace: str) -> None:
    for verb, what in (
        ("list", "coeval.dev/vmbackups"),
        ("update", "coeval.dev/vmbackups/status"),
        ("create", "snapshot.storage.k8s.io/volumesnapshots"),
        ("update", "subresources.kubevirt.io/virtualmachineinstances/freeze"),
    ):
        assert may(kubectl, OPERATOR, verb, what, namespace), (verb, what)
    assert may(kubectl, OPERATOR, "create", "batch/jobs", OPERATOR_NAMESPACE)
    for verb, what, where in (
        ("get", "/secrets", OPERATOR_NAMESPACE),
        ("list", "/secrets", OPERATOR_NAMESPACE),
        ("get", "/secrets", namespace),
        ("create", "batch/jobs", namespace),
        ("list", "/pods", namespace),
        ("delete", "/persistentvolumeclaims", namespace),
        ("update", "kubevirt.io/virtualmachines", namespace),
        ("create", "/pods/exec", OPERATOR_NAMESPACE),
        ("delete", "coeval.dev/vmbackups", namespace),
    ):
        assert not may(kubectl, OPERATOR, verb, what, where), (verb, what, where)


def test_a_mover_may_name_snapshots_and_nothing_else(kubectl: Kubectl) -> None:
    """Else no more than an account that nobody gave anything: KubeVirt shows some kinds to every account."""
    stranger = MOVER.replace("coeval-mover", "nobody-knows-it")
    of_mover, of_stranger = (
        kubectl("auth", "can-i", "--list", f"--as={who}", "-n", OPERATOR_NAMESPACE)
        for who in (MOVER, stranger)
    )
    [more] = set(of_mover.splitlines()) - set(of_stranger.splitlines())
    assert more.split() == ["volumesnapshots.snapshot.storage.k8s.io", "[]", "[]", "[get]"]
    assert set(of_stranger.splitlines()) <= set(of_mover.splitlines())


def test_a_roll_out_hands_the_lease_over_without_waiting_for_it_to_run_out(kubectl: Kubectl) -> None:
    before = leader(kubectl)
    transitions = lease(kubectl)["leaseTransitions"]
    kubectl("rollout", "restart", "-n", OPERATOR_NAMESPACE, "deployment/coeval-operator")
    kubectl("rollout", "status", "-n", OPERATOR_NAMESPACE, "deployment/coeval-operator", "--timeout=120s")
    started = time.monotonic()
    until(lambda: ((now := leader(kubectl)) and now != before) or None, what="the new leader", seconds=40)
    assert time.monotonic() - started < 12, "a released Lease is taken at the next look"
    assert lease(kubectl)["leaseTransitions"] == transitions + 1


def test_a_killed_leader_is_followed_when_the_lease_has_run_out(kubectl: Kubectl, namespace: str) -> None:
    before = leader(kubectl)
    assert before is not None
    kubectl("delete", "pod", before, "-n", OPERATOR_NAMESPACE, "--grace-period=0", "--force")
    backup = start_backup(kubectl, namespace, "nobody", "nowhere")
    backup.until(lambda found: condition(found, "Ready") != {}, what="the next operator's word", seconds=90)
    assert leader(kubectl) != before
