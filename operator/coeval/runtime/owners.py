"""Whose object is it? What a watch delivers leads to the key of the object that wants a look."""

from collections.abc import Mapping
from typing import Any

from coeval.controllers.ports import Key
from coeval.kube.kinds import BACKUP_REPOSITORY, VM_BACKUP
from coeval.kube.port import Kind

BACKUP_ANNOTATION = "coeval.dev/backup"  # <namespace>/<name>
REPOSITORY_ANNOTATION = "coeval.dev/repository"  # <name>


def owner(kind: Kind, body: Mapping[str, Any]) -> tuple[Kind, Key] | None:
    """(owner's kind, key) of an object of ours or of a child; None for an object that nobody owns."""
    meta = body.get("metadata") or {}
    if kind in (VM_BACKUP, BACKUP_REPOSITORY):
        return kind, Key(meta.get("namespace") or "", meta["name"])
    # An owner reference would not reach across namespaces; the annotation does.
    annotations = meta.get("annotations") or {}
    namespace, _, name = annotations.get(BACKUP_ANNOTATION, "").partition("/")
    if namespace and name:
        return VM_BACKUP, Key(namespace, name)
    repository = annotations.get(REPOSITORY_ANNOTATION)
    return (BACKUP_REPOSITORY, Key("", repository)) if repository else None
