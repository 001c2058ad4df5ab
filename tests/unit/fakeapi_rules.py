"""The rules of the API server that fakeapi keeps, as functions of plain objects."""

import json
from collections.abc import Iterator
from typing import Any

from coeval.api.crd import RESOURCES, crd
from coeval.kube.kinds import (
    CORE_EVENT,
    EVENT,
    JOB,
    LEASE,
    PERSISTENT_VOLUME_CLAIM,
    SECRET,
    STORAGE_CLASS,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CLASS,
    VOLUME_SNAPSHOT_CONTENT,
)
from coeval.kube.port import Invalid, Kind, Object

Ref = tuple[Kind, str, str]

WITHOUT_STATUS = {SECRET, EVENT, CORE_EVENT, LEASE, STORAGE_CLASS, VOLUME_SNAPSHOT_CLASS}
IMMUTABLE: dict[Kind, tuple[tuple[str, ...], ...]] = {
    JOB: (("spec", "template"), ("spec", "selector"), ("spec", "completions")),
    PERSISTENT_VOLUME_CLAIM: tuple(
        ("spec", field) for field in ("dataSource", "storageClassName", "accessModes", "volumeMode")
    ),
    VOLUME_SNAPSHOT: (("spec", "source"),),
    VOLUME_SNAPSHOT_CONTENT: (("spec", "source"), ("spec", "driver")),
}
SCHEMAS: dict[str, Object] = {
    resource.kind: crd(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for resource in RESOURCES
}


def plain(body: Object) -> Object:
    """As it would arrive: what is not JSON fails here, as it would there."""
    plain: Object = json.loads(json.dumps(body))
    return plain


def name_of(body: Object) -> str:
    return str(body["metadata"]["name"])


def order(item: tuple[Ref, Object]) -> tuple[str, str, str]:
    (kind, namespace, name), _ = item
    return kind.plural, namespace, name


def content(obj: Object) -> Object:
    return {k: v for k, v in obj.items() if k not in ("metadata", "status")}


def without_status(kind: Kind, body: Object) -> Object:
    return body if kind in WITHOUT_STATUS else {k: v for k, v in body.items() if k != "status"}


def dig(obj: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def merge_patch(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def check_schema(kind: Kind, obj: Object) -> None:
    schema = SCHEMAS.get(kind.kind) if kind.group == "coeval.dev" else None
    unknown = [] if schema is None else list(unknown_fields(obj, schema, ""))
    if unknown:
        raise Invalid(422, "Invalid", f"{kind.kind}: unknown fields {', '.join(unknown)}")


def unknown_fields(value: Any, schema: Object, path: str) -> Iterator[str]:
    """A field that the CRD does not declare would be pruned silently."""
    if isinstance(value, dict) and "properties" in schema:
        for key, child in value.items():
            if key in schema["properties"]:
                yield from unknown_fields(child, schema["properties"][key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(value, list) and "items" in schema:
        for index, child in enumerate(value):
            yield from unknown_fields(child, schema["items"], f"{path}[{index}]")
