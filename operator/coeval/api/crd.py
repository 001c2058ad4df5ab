"""The CRDs in crds/, generated from the models: `python -m coeval.api.crd --output crds` (`make manifests`).

Pydantic speaks JSON Schema 2020-12, the API server a subset of OpenAPI 3.0 ("structural"). `to_structural`
translates what has a meaning there and refuses the rest by name: a keyword that is dropped silently is a rule
that nobody checks.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from coeval.api.v1alpha1.backuprepository import BackupRepositorySpec, BackupRepositoryStatus
from coeval.api.v1alpha1.common import GROUP, VERSION
from coeval.api.v1alpha1.rules import VALIDATIONS
from coeval.api.v1alpha1.vmbackup import VMBackupSpec, VMBackupStatus

Schema = dict[str, Any]

HEADER = "# Generated from operator/coeval/api by `make manifests`; edit the models.\n"

_KEEP = frozenset(
    {
        "type", "format", "description", "default", "enum", "pattern", "required",
        "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
        "minimum", "maximum", "multipleOf",
        "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", VALIDATIONS,
    }
)  # fmt: skip
_DROP = frozenset({"title", "examples", "$defs"})
_UNTYPED = frozenset({"description", "default"})


class NotStructural(ValueError):
    """The model uses something that a structural schema cannot say; the message names the place."""


def to_structural(schema: Mapping[str, Any], *, defaults: bool = True) -> Schema:
    """Pydantic's JSON schema as a structural schema: no references, no unions, no null.

    `defaults` keeps the fields' defaults, which the API server then writes into objects: right for a spec,
    wrong for a status, where the operator alone says what is.
    """
    return _node(schema, schema.get("$defs", {}), (), "", defaults)


def _node(
    schema: Mapping[str, Any], defs: Mapping[str, Schema], seen: tuple[str, ...], path: str, defaults: bool
) -> Schema:
    source, seen = _flatten(schema, defs, seen, path)
    out: Schema = {}
    for key, value in source.items():
        here = f"{path}/{key}"
        if key == "properties":
            out[key] = {n: _node(child, defs, seen, f"{here}/{n}", defaults) for n, child in value.items()}
        elif key in {"items", "additionalProperties"} and isinstance(value, Mapping):
            out[key] = _node(value, defs, seen, here, defaults)
        elif key != "default":
            out |= _keyword(key, value, here)
        elif defaults and value is not None:
            out[key] = value
    if source.keys() <= _UNTYPED | _DROP and path:
        out["x-kubernetes-preserve-unknown-fields"] = True
    return _ordered(out)


def _keyword(key: str, value: Any, path: str) -> Schema:
    match key:
        case "description":
            return {key: " ".join(value.split())}
        case "const":
            return {"enum": [value]}
        case "exclusiveMinimum" | "exclusiveMaximum":
            return {key.removeprefix("exclusive").lower(): value, key: True}
        case "uniqueItems" if value:
            return {"x-kubernetes-list-type": "set"}
        case "additionalProperties" if value is False:
            return {}  # unknown fields are pruned anyway, and refused under --validate=strict
        case _ if key in _KEEP or key in _DROP:
            return {key: value} if key in _KEEP else {}
    raise NotStructural(f"{path}: {value!r} has no structural form")


def _flatten(
    schema: Mapping[str, Any], defs: Mapping[str, Schema], seen: tuple[str, ...], path: str
) -> tuple[Schema, tuple[str, ...]]:
    """Take the node's references and its null alternative away, until it says directly what it is."""
    node = dict(schema)
    while True:
        if "$ref" in node:
            name = node.pop("$ref").rpartition("/")[2]
            if name in seen:
                raise NotStructural(f"{path}: {name} contains itself")
            seen = (*seen, name)
            node = _merge(defs[name], node)
        elif "allOf" in node and len(node["allOf"]) == 1:
            node = _merge(node.pop("allOf")[0], node)
        elif "anyOf" in node:
            choices = [choice for choice in node.pop("anyOf") if choice.get("type") != "null"]
            if len(choices) == 1:
                node = _merge(choices[0], node)
            elif sorted(choice.get("type", "") for choice in choices) == ["integer", "string"]:
                node["x-kubernetes-int-or-string"] = True
            else:
                raise NotStructural(f"{path}: a union; use optional sibling fields and a rule")
        else:
            return node, seen


def _merge(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> Schema:
    """What stands beside a reference wins over what is referred to; rules of both apply."""
    merged = {**inner, **outer}
    if VALIDATIONS in inner and VALIDATIONS in outer:
        merged[VALIDATIONS] = [*inner[VALIDATIONS], *outer[VALIDATIONS]]
    return merged


def _ordered(node: Schema) -> Schema:
    """What it is first, its parts last: so that a diff of the YAML can be read."""
    last = ("required", "items", "additionalProperties", "properties")
    first = {key: node[key] for key in ("description", "type") if key in node}
    middle = {key: node[key] for key in sorted(node) if key not in first and key not in last}
    return first | middle | {key: node[key] for key in last if key in node}


@dataclass(frozen=True)
class Column:
    """What `kubectl get` shows; priority 1 only with `-o wide`."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True)
class Resource:
    """A kind as the API server has to know it."""

    kind: str
    plural: str
    short_name: str
    namespaced: bool
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: Sequence[Column]
    selectable: Sequence[str] = ()

    @property
    def file_name(self) -> str:
        """In crds/."""
        return f"{GROUP}_{self.plural}.yaml"


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


AGE = Column("Age", ".metadata.creationTimestamp", "date")

RESOURCES = (
    Resource(
        kind="VMBackup",
        plural="vmbackups",
        short_name="cvmb",
        namespaced=True,
        description="A backup of one virtual machine: every disk as of the same moment.",
        spec=VMBackupSpec,
        status=VMBackupStatus,
        columns=(
            Column("VM", ".spec.virtualMachine"),
            Column("Ready", _condition("Ready", "status")),
            Column("Phase", ".status.phase"),
            Column("Progress%", ".status.progress.percent", "integer"),
            # Not what was achieved on the way: a backup that failed has nothing to rely on.
            Column("Consistency", ".status.restorable.consistency"),
            Column("Point in time", ".status.restorable.pointInTime"),
            AGE,
            Column("Repository", ".spec.repository", priority=1),
            Column("Reason", _condition("Ready", "reason"), priority=1),
            Column("Message", _condition("Ready", "message"), priority=1),
        ),
        selectable=(".spec.virtualMachine", ".spec.repository", ".status.phase"),
    ),
    Resource(
        kind="BackupRepository",
        plural="backuprepositories",
        short_name="crepo",
        namespaced=False,
        description="A place for backups and the key that opens it.",
        spec=BackupRepositorySpec,
        status=BackupRepositoryStatus,
        columns=(
            Column("Ready", _condition("Ready", "status")),
            Column("Reason", _condition("Ready", "reason")),
            Column("Volume", ".spec.location.volume.persistentVolumeClaim"),
            Column("Bucket", ".spec.location.s3.bucket"),
            AGE,
            Column("Message", _condition("Ready", "message"), priority=1),
        ),
    ),
)


def crd(resource: Resource) -> Schema:
    """The CustomResourceDefinition."""
    spec = to_structural(resource.spec.model_json_schema())
    status = to_structural(resource.status.model_json_schema(), defaults=False)
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in resource.columns],
        "schema": {
            "openAPIV3Schema": {
                "description": resource.description,
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
                    "kind": {"type": "string", "description": f"{resource.kind}."},
                    "metadata": {"type": "object"},  # Kubernetes' own: more than this is refused
                    "spec": spec,
                    "status": status,
                },
            }
        },
    }
    if resource.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in resource.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "coeval"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short_name],
                "categories": ["coeval"],
            },
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _column(column: Column) -> Schema:
    out: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return out | ({"priority": column.priority} if column.priority else {})


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # the same dict twice is no reason for an anchor


def documents() -> dict[str, str]:
    """File name → text of everything in crds/ that is generated."""
    return {
        resource.file_name: HEADER
        + yaml.dump(crd(resource), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
        for resource in RESOURCES
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with --check compare them: 1 when they are stale."""
    parser = argparse.ArgumentParser(prog="python -m coeval.api.crd", description=main.__doc__)
    parser.add_argument("--output", type=Path, default=Path("crds"), help="directory (default: crds)")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file is stale")
    options = parser.parse_args(arguments)
    stale = []
    for name, text in documents().items():
        path = options.output / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(path))
        if not options.check:
            path.write_text(text)
    if options.check and stale:
        sys.stderr.write(f"stale, run `make manifests`: {', '.join(stale)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
