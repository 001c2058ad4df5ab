"""The manifests that we ship: rights, pod security, and that they agree with the code."""

from typing import Any

import pytest
from coeval.controllers.movers import ASKS
from coeval.controllers.places import NETWORK
from coeval.domain.naming import MANAGED_BY
from coeval.kube.kinds import JOB, POD, SECRET, VM_BACKUP, VOLUME_SNAPSHOT
from coeval.kube.port import Forbidden
from coeval.runtime.operator import AT_HOME, EVERYWHERE
from coeval.runtime.settings import RuntimeSettings

from tests.unit.fakeapi import Call, FakeApi
from tests.unit.rbac import HOME, documents, rules, shipped_rights

OBJECTS = list(documents())
ROLES = [d for d in OBJECTS if d["kind"] in ("Role", "ClusterRole")]


def one(kind: str, name: str) -> dict[str, Any]:
    [found] = [d for d in OBJECTS if d["kind"] == kind and d["metadata"]["name"] == name]
    return dict(found)


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = one("Deployment", "coeval-operator")["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("role", ROLES, ids=lambda role: f"{role['kind']}-{role['metadata']['name']}")
def test_no_role_has_a_wildcard_a_secret_or_a_way_to_more_rights(role: dict[str, Any]) -> None:
    assert role["rules"]
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        for words in rule.values():
            assert words
            assert not any("*" in word for word in words)
        assert not {"secrets", "pods/exec", "pods/attach", "serviceaccounts/token"} & set(rule["resources"])
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_what_lives_at_home_is_not_granted_everywhere() -> None:
    granted = {resource for rule in rules("ClusterRole") for resource in rule["resources"]}
    assert not {"jobs", "pods", "pods/log", "configmaps", "leases"} & granted
    writes = [rule["verbs"] for rule in rules("ClusterRole") if "persistentvolumeclaims" in rule["resources"]]
    assert writes == [["get"]]


def test_a_mover_may_name_a_twin_and_nothing_else() -> None:
    bound = {
        (b["roleRef"]["kind"], b["roleRef"]["name"], s["name"], s["namespace"])
        for b in OBJECTS
        if b["kind"].endswith("Binding")
        for s in b["subjects"]
    }
    assert bound == {
        ("ClusterRole", "coeval-operator", "coeval-operator", HOME),
        ("Role", "coeval-operator", "coeval-operator", HOME),
        ("Role", "coeval-mover", "coeval-mover", HOME),
    }
    assert rules("Role", "coeval-mover") == [
        {"apiGroups": ["snapshot.storage.k8s.io"], "resources": ["volumesnapshots"], "verbs": ["get"]}
    ]
    assert one("ServiceAccount", "coeval-mover")["automountServiceAccountToken"] is False


def test_everything_watched_may_be_listed_and_watched() -> None:
    allowed = shipped_rights()
    for watched, namespace in [*((w, None) for w in EVERYWHERE), *((w, HOME) for w in AT_HOME)]:
        for verb in ("list", "watch", "get"):
            assert allowed(Call(verb, watched.kind, namespace, "")), (verb, watched.kind.plural)


async def test_the_rights_are_enforced_by_the_in_memory_api_server() -> None:
    api = FakeApi(allowed=shipped_rights(), namespaces=[HOME, "shop"])
    api.put(VM_BACKUP, {"metadata": {"name": "b"}, "spec": {}}, "shop")
    backup = await api.get(VM_BACKUP, "b", "shop")
    assert backup is not None
    await api.replace_status(VM_BACKUP, backup | {"status": {"phase": "Pending"}})
    await api.list(JOB, HOME)
    await api.list(VOLUME_SNAPSHOT, "shop")
    refused = [
        api.get(SECRET, "main-key", HOME),
        api.list(JOB, "shop"),
        api.list(POD),
        api.delete(VM_BACKUP, "b", "shop"),
        api.create(VM_BACKUP, backup),
        api.subresource(
            "PUT", "/apis/subresources.kubevirt.io/v1/namespaces/s/virtualmachineinstances/d/restart"
        ),
    ]
    for call in refused:
        with pytest.raises(Forbidden):
            await call
    api.on_subresource = lambda method, path, body: None
    await api.subresource(
        "PUT", "/apis/subresources.kubevirt.io/v1/namespaces/shop/virtualmachineinstances/db/freeze"
    )


def test_the_operator_fits_pod_security_restricted() -> None:
    spec, [container] = pod(), pod()["containers"]
    assert one("Namespace", HOME)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 107
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {"startupProbe", "livenessProbe", "readinessProbe", "resources"} <= container.keys()


def test_the_environment_satisfies_the_settings() -> None:
    [container] = pod()["containers"]
    given = {e["name"]: e.get("value", "given-by-the-pod") for e in container["env"]}
    settings = RuntimeSettings.from_environment(given)
    assert settings.http_port == container["ports"][0]["containerPort"]
    assert settings.block_mover_uid == 107
    unknown = {
        name for name in given if name.removeprefix("COEVAL_").lower() not in RuntimeSettings.model_fields
    }
    assert not unknown
    assert pod()["terminationGracePeriodSeconds"] >= 2 * settings.shutdown_seconds


def test_network_policies_hold_movers_and_not_the_operator() -> None:
    label, value = MANAGED_BY
    movers = one("NetworkPolicy", "coeval-movers")["spec"]
    assert movers["podSelector"]["matchLabels"] == {label: value}
    assert movers["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in movers
    reaching = one("NetworkPolicy", "coeval-movers-object-store")["spec"]
    assert reaching["podSelector"]["matchLabels"] == {label: value, NETWORK: "object-store"}
    assert (reaching["policyTypes"], reaching["egress"]) == (["Egress"], [{}])
    asking = one("NetworkPolicy", "coeval-movers-changed-blocks")["spec"]
    assert asking["podSelector"]["matchLabels"] == {label: value, ASKS: "asked"}
    assert (asking["policyTypes"], asking["egress"]) == (["Egress"], [{}])
    # Had the operator the children's label, it would be watched as a child and be cut off from the network.
    assert label not in one("Deployment", "coeval-operator")["spec"]["template"]["metadata"]["labels"]


def test_users_rights_come_with_the_roles_that_they_have() -> None:
    def aggregated(to: str) -> set[tuple[str, str]]:
        return {
            (resource, verb)
            for role in ROLES
            if role["metadata"].get("labels", {}).get(f"rbac.authorization.k8s.io/aggregate-to-{to}")
            == "true"
            for rule in role["rules"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    assert ("vmbackups", "watch") in aggregated("view")
    assert ("vmbackups", "create") not in aggregated("view")
    for to in ("edit", "admin"):
        assert {
            ("vmbackups", "create"),
            ("vmbackups", "delete"),
            ("backuprepositories", "get"),
        } <= aggregated(to)
        assert ("backuprepositories", "create") not in aggregated(to)
