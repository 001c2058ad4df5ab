"""The CRDs on a real API server: accepted, and every rule lets the good pass and stops the bad, by name.

The objects here are of a copy of the CRDs under another group, so that no operator works on them meanwhile.
"""

import copy
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from coeval.api.crd import RESOURCES, crd
from coeval.api.v1alpha1.rules import VALIDATIONS

from tests.cluster.layout import Cluster
from tests.e2e.harness import ROOT, CommandFailed, Kubectl, Object, until

pytestmark = pytest.mark.cluster

GROUP = "crdtest.coeval.dev"
BACKUPS, REPOSITORIES = f"vmbackups.{GROUP}", f"backuprepositories.{GROUP}"
BACKUP: Object = {
    "apiVersion": f"{GROUP}/v1alpha1",
    "kind": "VMBackup",
    "metadata": {"name": "b"},
    "spec": {"virtualMachine": "db", "repository": "main"},
}
REPOSITORY: Object = {
    "apiVersion": f"{GROUP}/v1alpha1",
    "kind": "BackupRepository",
    "metadata": {"name": "r"},
    "spec": {
        "location": {"volume": {"persistentVolumeClaim": "repository"}},
        "encryption": {"passwordSecret": {"name": "key"}},
    },
}


def copied(shipped: str) -> Object:
    """The same under another group, and without the names by which users find the real ones."""
    crd: Object = yaml.safe_load(shipped.replace("coeval.dev", GROUP))
    crd["spec"]["names"] |= {"shortNames": [], "categories": ["crdtest"]}
    return crd


@pytest.fixture(scope="module")
def kubectl() -> Iterator[Kubectl]:
    """Nothing but a kubeconfig is needed: the environment's, or the cluster's that it names."""
    default = Cluster(os.environ.get("COEVAL_CLUSTER", "default")).kubeconfig
    kubectl = Kubectl(Path(os.environ.get("KUBECONFIG") or default))
    kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-k", ROOT / "crds")
    copies = [copied((ROOT / "crds" / resource.file_name).read_text()) for resource in RESOURCES]
    kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=yaml.safe_dump_all(copies))
    names = [f"crd/{r.plural}.{group}" for r in RESOURCES for group in ("coeval.dev", GROUP)]
    kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    # Established is said before the kinds are served.
    until(
        lambda: kubectl.run("get", f"{BACKUPS},{REPOSITORIES}", check=False).returncode == 0 or None,
        what="the kinds to be served",
        seconds=30,
    )
    yield kubectl
    for resource in RESOURCES:
        kubectl.delete("crd", f"{resource.plural}.{GROUP}")


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> Iterator[str]:
    name = f"crds-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl.delete("namespace", name, wait=False)


@pytest.fixture
def made(kubectl: Kubectl, namespace: str) -> "Maker":
    return Maker(kubectl, namespace)


class Maker:
    """Makes objects from a good one by changes to its spec; they go with their CRD."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self.kubectl = kubectl
        self.namespace = namespace

    def body(self, good: Object, changes: Object, name: str = "") -> Object:
        obj = copy.deepcopy(good)
        obj["metadata"]["name"] = name or f"x-{uuid.uuid4().hex[:8]}"
        if obj["kind"] == "VMBackup":
            obj["metadata"]["namespace"] = self.namespace
        for key, value in changes.items():
            if value is None:
                obj["spec"].pop(key, None)
            else:
                obj["spec"][key] = value
        return obj

    def apply(self, good: Object, changes: Object, name: str = "") -> Object:
        """Create or replace it; the object as the server answers."""
        obj = self.body(good, changes, name)
        verb = "replace" if name else "create"
        answer = self.kubectl(verb, "--validate=strict", "-o", "json", "-f", "-", stdin=yaml.safe_dump(obj))
        found: Object = json.loads(answer)
        return found

    def refused(self, good: Object, changes: Object, name: str = "") -> str:
        with pytest.raises(CommandFailed) as refusal:
            self.apply(good, changes, name)
        return str(refusal.value)


GOOD_BACKUPS: list[Object] = [
    {},
    {"consistency": "Filesystem", "images": {"strategy": "Rewind"}, "verify": "None"},
    {"images": {"strategy": "RollForward"}, "changedBlocks": {"keepBase": "Auto"}},
    {"volumes": {"include": ["root", "data"]}},
    {"volumes": {"exclude": ["scratch"]}},
    {"deadline": "1h30m", "deletionPolicy": "Delete", "cancel": True},
    {"virtualMachine": "a" * 253},
]
# (spec, what the server must say)
BAD_BACKUPS: list[tuple[Object, str]] = [
    ({"volumes": {"include": ["a"], "exclude": ["b"]}}, "include and exclude may not both be given"),
    ({"deadline": "0h"}, "must be longer than zero"),
    ({"volumes": {"include": []}}, "should have at least 1 items"),
    ({"volumes": {"include": ["a", "a"]}}, "Duplicate value"),
    ({"volumes": {"include": [f"v{n}" for n in range(257)]}}, "must have at most 256 items"),
    ({"consistency": "Perfect"}, 'supported values: "Auto"'),
    ({"images": {"strategy": "Magic"}}, 'supported values: "Rewind", "RollForward", "Direct", "Auto"'),
    ({"changedBlocks": {"keepBase": "Always"}}, 'supported values: "Never", "Auto"'),
    ({"deadline": "1 day"}, "should match"),
    ({"deadline": "P1D"}, "should match"),
    ({"virtualMachine": "../other"}, "should match"),
    ({"virtualMachine": None}, "Required value"),
    ({"repository": None}, "Required value"),
    ({"repository": ""}, "should be at least 1 chars long"),
    ({"virtualMachine": "a" * 254}, "Too long"),
    ({"colour": "red"}, 'unknown field "spec.colour"'),
]
S3 = {"bucket": "vm-backups", "credentialsSecret": {"name": "s3"}}
GOOD_REPOSITORIES: list[Object] = [
    {},
    {"location": {"volume": {"persistentVolumeClaim": "r", "prefix": "a/b.c/"}}},
    {"location": {"s3": S3}},
    {"location": {"s3": S3 | {"endpoint": "https://[fd00::1]:9000/", "prefix": "prod/", "region": "eu-1"}}},
    {"location": {"s3": S3 | {"certificateAuthority": {"configMap": "ca"}}}},
    {"location": {"gcs": {"bucket": "vm_backups.example.com", "credentialsSecret": {"name": "google"}}}},
    {
        "location": {
            "azure": {
                "account": "shop1",
                "container": "vm-backups",
                "endpoint": "https://10.0.0.9:10000/shop1",
                "credentialsSecret": {"name": "azure"},
            }
        }
    },
    {"allowedNamespaces": {"matchLabels": {"backup": "allowed"}}},
    {"encryption": {"passwordSecret": {"name": "key", "key": "other"}}},
]
BAD_REPOSITORIES: list[tuple[Object, str]] = [
    ({"location": {}}, "exactly one of volume, s3, gcs, azure must be given"),
    ({"location": {"s3": S3, "volume": {"persistentVolumeClaim": "r"}}}, "exactly one of volume, s3"),
    ({"location": {"s3": S3 | {"bucket": "Not_A_Bucket"}}}, "should match"),
    ({"location": {"s3": S3 | {"endpoint": "https://user:secret@host"}}}, "should match"),
    ({"location": {"s3": S3 | {"endpoint": "host:9000"}}}, "should match"),
    ({"location": {"s3": S3 | {"prefix": "../up"}}}, "may not contain . or .."),
    ({"location": {"s3": {"bucket": "vm-backups"}}}, "credentialsSecret"),
    ({"location": {"volume": {"persistentVolumeClaim": "r", "prefix": "../up"}}}, "may not contain . or .."),
    ({"location": {"volume": {"persistentVolumeClaim": "r", "prefix": "a/./b"}}}, "may not contain . or .."),
    ({"location": {"volume": {"persistentVolumeClaim": "r", "prefix": "/abs"}}}, "should match"),
    ({"location": {"gcs": {"bucket": "vm-backups"}}}, "credentialsSecret"),
    ({"location": {"azure": {"container": "vm-backups", "account": "Shop"}}}, "should match"),
    ({"location": {"swift": {"container": "b"}}}, 'unknown field "spec.location.swift"'),
    ({"location": None}, "Required value"),
    ({"encryption": None}, "Required value"),
    ({"encryption": {"passwordSecret": {"name": "key", "key": "a/b"}}}, "should match"),
]
# (before, after, what the server must say; None: allowed)
UPDATES: list[tuple[Object, Object, Object, str | None]] = [
    (BACKUP, {}, {"cancel": True}, None),
    (BACKUP, {"cancel": True}, {"cancel": True}, None),
    (BACKUP, {"cancel": True}, {"cancel": False}, "a cancelled backup cannot be resumed"),
    (BACKUP, {"cancel": True}, {}, "a cancelled backup cannot be resumed"),
    (BACKUP, {}, {"virtualMachine": "other"}, "virtualMachine is immutable"),
    (BACKUP, {}, {"repository": "other"}, "repository is immutable"),
    (BACKUP, {}, {"consistency": "Crash"}, "consistency is immutable"),
    (BACKUP, {"consistency": "Crash"}, {}, "consistency is immutable"),
    (BACKUP, {}, {"volumes": {"include": ["a"]}}, "volumes is immutable"),
    (BACKUP, {"volumes": {"include": ["a"]}}, {}, "volumes is immutable"),
    (BACKUP, {"volumes": {"include": ["a"]}}, {"volumes": {"include": ["b"]}}, "volumes is immutable"),
    (BACKUP, {}, {"images": {"strategy": "Direct"}}, "images is immutable"),
    (BACKUP, {}, {"changedBlocks": {"keepBase": "Auto"}}, "changedBlocks is immutable"),
    (BACKUP, {}, {"verify": "Full"}, "verify is immutable"),
    (BACKUP, {}, {"deadline": "1h"}, "deadline is immutable"),
    (BACKUP, {}, {"deletionPolicy": "Delete"}, "deletionPolicy is immutable"),
    (BACKUP, {}, {"cancel": True, "verify": "Full"}, "verify is immutable"),
    (REPOSITORY, {}, {"allowedNamespaces": {"matchLabels": {"a": "b"}}}, None),
    (REPOSITORY, {}, {"encryption": {"passwordSecret": {"name": "other"}}}, None),
    (REPOSITORY, {}, {"location": {"volume": {"persistentVolumeClaim": "other"}}}, "location is immutable"),
]


@pytest.mark.parametrize("changes", GOOD_BACKUPS, ids=str)
def test_a_good_backup(made: Maker, changes: Object) -> None:
    made.apply(BACKUP, changes)


@pytest.mark.parametrize(("changes", "says"), BAD_BACKUPS, ids=lambda v: str(v)[:60])
def test_a_bad_backup(made: Maker, changes: Object, says: str) -> None:
    assert says in made.refused(BACKUP, changes)


@pytest.mark.parametrize("changes", GOOD_REPOSITORIES, ids=str)
def test_a_good_repository(made: Maker, changes: Object) -> None:
    made.apply(REPOSITORY, changes)


@pytest.mark.parametrize(("changes", "says"), BAD_REPOSITORIES, ids=lambda v: str(v)[:60])
def test_a_bad_repository(made: Maker, changes: Object, says: str) -> None:
    assert says in made.refused(REPOSITORY, changes)


@pytest.mark.parametrize(("good", "before", "after", "says"), UPDATES, ids=lambda v: str(v)[:60])
def test_an_update(made: Maker, good: Object, before: Object, after: Object, says: str | None) -> None:
    name = made.apply(good, before)["metadata"]["name"]
    if says is None:
        made.apply(good, after, name)
    else:
        assert says in made.refused(good, after, name)


def messages(schema: Any) -> Iterator[str]:
    """Of every rule in a schema."""
    if isinstance(schema, dict):
        for found in schema.get(VALIDATIONS, []):
            yield found["message"]
    for child in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from messages(child)


def test_every_rule_has_an_object_here_that_it_stops() -> None:
    expected = [says for _, says in (*BAD_BACKUPS, *BAD_REPOSITORIES)]
    expected += [says for *_, says in UPDATES if says]
    shipped = {message for resource in RESOURCES for message in messages(crd(resource))}
    assert [m for m in shipped if not any(says in m for says in expected)] == []


def test_defaults(made: Maker) -> None:
    assert made.apply(BACKUP, {})["spec"] == {
        "virtualMachine": "db",
        "repository": "main",
        "consistency": "Auto",
        "images": {"strategy": "Rewind"},
        "changedBlocks": {"keepBase": "Never"},
        "verify": "Sampled",
        "deadline": "24h",
        "deletionPolicy": "Retain",
        "cancel": False,
    }


def test_the_examples_are_accepted(kubectl: Kubectl) -> None:
    """Server-side, without keeping them; their namespaces need not be there."""
    for path in sorted((ROOT / "manifests" / "examples").glob("*.yaml")):
        for obj in yaml.safe_load_all(path.read_text()):
            if obj["metadata"].get("namespace"):
                obj["metadata"]["namespace"] = "default"
            verb = "create" if "generateName" in obj["metadata"] else "apply"
            kubectl(verb, "--validate=strict", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(obj))


STATUS: Object = {
    "observedGeneration": 1,
    "phase": "Copying",
    "pointInTime": "2026-11-23T10:00:00Z",
    "consistency": {"required": "Crash", "achieved": "Filesystem", "method": "GuestFreeze", "proven": True},
    "progress": {"bytesDone": 1, "bytesTotal": 4, "percent": 25},
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "reason": "Copying",
            "message": "2 of 4 volumes",
            "lastTransitionTime": "2026-11-23T10:00:01Z",
        }
    ],
}


def set_status(made: Maker, name: str, status: Object) -> None:
    made.kubectl(
        *("patch", BACKUPS, name, "-n", made.namespace, "--subresource=status", "--type=merge"),
        *("-p", json.dumps({"status": status})),
    )


def test_what_kubectl_get_shows(made: Maker) -> None:
    name = made.apply(BACKUP, {})["metadata"]["name"]
    set_status(made, name, STATUS)
    header, row = made.kubectl("get", BACKUPS, name, "-n", made.namespace).splitlines()
    assert header.split() == (
        ["NAME", "VM", "READY", "PHASE", "PROGRESS%", "CONSISTENCY", "POINT", "IN", "TIME", "AGE"]
    )
    # What it has achieved so far is no promise: the columns are empty but for its age.
    assert row.split()[:5] == [name, "db", "False", "Copying", "25"] and len(row.split()) == 6
    restorable = {"consistency": "Filesystem", "pointInTime": STATUS["pointInTime"]}
    set_status(made, name, {"restorable": restorable})
    _, row = made.kubectl("get", BACKUPS, name, "-n", made.namespace).splitlines()
    assert row.split()[5:7] == ["Filesystem", "2026-11-23T10:00:00Z"]
    wide = made.kubectl("get", BACKUPS, name, "-n", made.namespace, "-o", "wide")
    assert "2 of 4 volumes" in wide
    assert name in made.kubectl("get", "crdtest", "-n", made.namespace)


def test_status_is_apart_from_spec(made: Maker) -> None:
    obj = made.apply(BACKUP, {})
    name = obj["metadata"]["name"]
    set_status(made, name, STATUS)
    seen = made.kubectl.get(BACKUPS, name, made.namespace)
    assert seen is not None
    assert seen["status"] == STATUS
    assert seen["metadata"]["generation"] == 1
    made.kubectl(
        "wait",
        "--for=jsonpath={.status.phase}=Copying",
        "--timeout=5s",
        "-n",
        made.namespace,
        f"{BACKUPS}/{name}",
    )


def test_conditions_are_one_per_type(made: Maker) -> None:
    name = made.apply(BACKUP, {})["metadata"]["name"]
    twice = STATUS | {"conditions": STATUS["conditions"] * 2}
    with pytest.raises(CommandFailed, match="Duplicate value"):
        set_status(made, name, twice)


def test_field_selectors(made: Maker) -> None:
    one = made.apply(BACKUP, {"virtualMachine": "one"})["metadata"]["name"]
    two = made.apply(BACKUP, {"virtualMachine": "two"})["metadata"]["name"]
    set_status(made, two, {"phase": "Failed"})

    def selected(selector: str) -> set[str]:
        found = made.kubectl(
            "get", BACKUPS, "-n", made.namespace, f"--field-selector={selector}", "-o", "name"
        )
        return {line.rpartition("/")[2] for line in found.splitlines()}

    assert selected("spec.virtualMachine=one") == {one}
    assert selected("status.phase=Failed") == {two}


def test_short_names(kubectl: Kubectl) -> None:
    listed = kubectl("api-resources", "--api-group=coeval.dev", "--no-headers").splitlines()
    assert {tuple(line.split()[:2]) for line in listed} == {
        ("vmbackups", "cvmb"),
        ("backuprepositories", "crepo"),
    }


def test_explain_tells_a_user_what_a_field_does(kubectl: Kubectl) -> None:
    assert "the guest is thawed" in kubectl("explain", "vmbackup.spec.cancel")
    explained = " ".join(kubectl("explain", "vmbackup.spec.consistency").split())
    assert "Auto: the best that can be proven" in explained
