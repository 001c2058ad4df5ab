"""The rights that we ship, as a question about one call: `FakeApi(allowed=shipped_rights())`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from coeval.kube.port import Object

from tests.unit.fakeapi import Call

BASE = Path(__file__).resolve().parents[2] / "manifests" / "base"
HOME = "coeval-system"

VERBS = {"replace_status": "update", "logs": "get", "create_token": "create"}
SUBRESOURCES = {"replace_status": "/status", "logs": "/log", "create_token": "/token"}


def documents() -> Iterator[Object]:
    """Every object of the base."""
    for path in sorted(BASE.glob("*.yaml")):
        yield from (
            found for found in yaml.safe_load_all(path.read_text()) if found.get("kind") != "Kustomization"
        )


def rules(kind: str, name: str = "coeval-operator") -> list[Object]:
    """Of a Role or ClusterRole."""
    [found] = [d for d in documents() if d["kind"] == kind and d["metadata"]["name"] == name]
    return list(found["rules"])


def shipped_rights() -> Callable[[Call], bool]:
    """Whether the operator's roles allow a call."""
    everywhere, at_home = rules("ClusterRole"), rules("Role")

    def allowed(call: Call) -> bool:
        group, resource, namespace = _target(call)
        verb = VERBS.get(call.verb, call.verb)
        if call.verb.endswith("subresource"):
            verb = {"PUT": "update", "GET": "get", "POST": "create"}[call.verb.split()[0]]
        granted = [*everywhere, *(at_home if namespace == HOME else [])]
        return any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in granted
        )

    return allowed


def _target(call: Call) -> tuple[str, str, str | None]:
    """(group, resource with subresource, namespace)."""
    if call.kind is not None:
        namespace = call.namespace if call.kind.namespaced else None
        return call.kind.group, call.kind.plural + SUBRESOURCES.get(call.verb, ""), namespace
    if call.verb == "logs":
        return "", "pods/log", call.namespace
    if call.verb == "create_token":
        return "", "serviceaccounts/token", call.namespace
    # /apis/<group>/<version>/namespaces/<namespace>/<resource>/<name>/<subresource>
    parts = call.name.strip("/").split("/")
    return parts[1], f"{parts[5]}/{parts[7]}", parts[4]
