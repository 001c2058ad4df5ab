"""From an object to the key that wants a look."""

from typing import Any

import pytest
from coeval.controllers.ports import Key
from coeval.kube.kinds import BACKUP_REPOSITORY, JOB, POD, VM_BACKUP, VOLUME_SNAPSHOT
from coeval.kube.port import Kind
from coeval.runtime.owners import owner


def annotated(**annotations: str) -> dict[str, Any]:
    names = {f"coeval.dev/{key}": value for key, value in annotations.items()}
    return {"metadata": {"name": "child", "namespace": "coeval-system", "annotations": names}}


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (VM_BACKUP, {"metadata": {"name": "b", "namespace": "shop"}}, (VM_BACKUP, Key("shop", "b"))),
        (BACKUP_REPOSITORY, {"metadata": {"name": "main"}}, (BACKUP_REPOSITORY, Key("", "main"))),
        (JOB, annotated(backup="shop/b"), (VM_BACKUP, Key("shop", "b"))),
        (VOLUME_SNAPSHOT, annotated(backup="shop/b"), (VM_BACKUP, Key("shop", "b"))),
        (POD, annotated(repository="main"), (BACKUP_REPOSITORY, Key("", "main"))),
        (POD, annotated(backup="no-slash"), None),
        (POD, annotated(backup="/b"), None),
        (POD, {"metadata": {"name": "p"}}, None),
        (POD, {"metadata": {"name": "p", "annotations": None}}, None),
        # what users write on their own objects never redirects them
        (VM_BACKUP, annotated(backup="other/x"), (VM_BACKUP, Key("coeval-system", "child"))),
    ],
)
def test_owner(kind: Kind, body: dict[str, Any], expected: tuple[Kind, Key] | None) -> None:
    assert owner(kind, body) == expected
