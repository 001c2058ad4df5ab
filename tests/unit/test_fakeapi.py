"""The in-memory API server keeps the rules that the crash tests rely on."""

from typing import Any

import pytest
from coeval.kube.kinds import (
    BACKUP_REPOSITORY,
    JOB,
    NAMESPACE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SECRET,
    VM_BACKUP,
    VOLUME_SNAPSHOT,
)
from coeval.kube.port import Conflict, Forbidden, Invalid, KubeApi, NotFound, Object

from tests.unit.fakeapi import Call, FakeApi

NS = "coeval-system"


def backup(**meta: Any) -> Object:
    return {
        "apiVersion": "coeval.dev/v1alpha1",
        "kind": "VMBackup",
        "metadata": {"name": "b", "namespace": "shop", **meta},
        "spec": {"virtualMachine": "db", "repository": "main"},
    }


def job(name: str = "j", image: str = "i", **meta: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, **meta},
        "spec": {"template": {"image": image}, "parallelism": 1},
    }


def owned_by(owner: Object) -> list[Object]:
    meta = owner["metadata"]
    return [
        {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    ]


@pytest.fixture
def api() -> FakeApi:
    return FakeApi(namespaces=[NS, "shop"])


def test_it_is_a_kube_api(api: FakeApi) -> None:
    port: KubeApi = api
    assert port is api


async def test_create_ignores_status_and_names_are_taken_once(api: FakeApi) -> None:
    made = await api.create(VM_BACKUP, backup() | {"status": {"phase": "Completed"}})
    assert "status" not in made
    assert made["metadata"]["generation"] == 1
    with pytest.raises(Conflict) as taken:
        await api.create(VM_BACKUP, backup())
    assert taken.value.reason == "AlreadyExists"


async def test_status_only_with_the_version_that_was_read(api: FakeApi) -> None:
    made = await api.create(VM_BACKUP, backup())
    changed = await api.replace_status(VM_BACKUP, made | {"status": {"phase": "Copying"}, "spec": {}})
    assert changed["spec"] == made["spec"]
    assert changed["metadata"]["generation"] == 1
    with pytest.raises(Conflict):
        await api.replace_status(VM_BACKUP, made | {"status": {"phase": "Failed"}})
    with pytest.raises(Invalid):
        await api.replace_status(VM_BACKUP, backup() | {"status": {}})


async def test_unknown_fields_of_our_kinds_are_refused(api: FakeApi) -> None:
    made = await api.create(VM_BACKUP, backup())
    with pytest.raises(Invalid, match=r"\.status\.volumes\[0\]\.colour"):
        await api.replace_status(VM_BACKUP, made | {"status": {"volumes": [{"name": "a", "colour": 1}]}})


async def test_generation_counts_changes_of_the_spec_alone(api: FakeApi) -> None:
    made = await api.create(VM_BACKUP, backup())
    labelled = await api.patch(VM_BACKUP, "b", {"metadata": {"labels": {"a": "1"}}}, "shop")
    same = await api.patch(
        VM_BACKUP, "b", {"metadata": {"labels": {"a": "1"}}, "status": {"phase": "Failed"}}, "shop"
    )
    assert labelled["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    assert same == labelled
    cancelled = await api.patch(VM_BACKUP, "b", {"spec": {"cancel": True}}, "shop")
    assert (labelled["metadata"]["generation"], cancelled["metadata"]["generation"]) == (1, 2)


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
async def test_patch_preconditions(api: FakeApi, field: str) -> None:
    await api.create(VM_BACKUP, backup())
    with pytest.raises(Conflict):
        await api.patch(VM_BACKUP, "b", {"metadata": {field: "another", "labels": {"a": "1"}}}, "shop")
    with pytest.raises(NotFound):
        await api.patch(VM_BACKUP, "none", {}, "shop")


async def test_fields_that_may_not_change(api: FakeApi) -> None:
    await api.create(JOB, job(), NS)
    with pytest.raises(Invalid, match=r"spec\.template"):
        await api.patch(JOB, "j", {"spec": job(image="other")["spec"]}, NS)
    await api.patch(JOB, "j", {"spec": {"parallelism": 0}}, NS)


async def test_delete_waits_for_finalizers_and_asks_the_uid(api: FakeApi) -> None:
    made = await api.create(VM_BACKUP, backup(finalizers=["coeval.dev/a"]))
    with pytest.raises(Conflict):
        await api.delete(VM_BACKUP, "b", "shop", uid="another")
    assert await api.delete(VM_BACKUP, "b", "shop", uid=made["metadata"]["uid"])
    held = api.find(VM_BACKUP, "b", "shop")
    assert held is not None
    assert held["metadata"]["generation"] == 2
    assert await api.delete(VM_BACKUP, "b", "shop")
    assert api.find(VM_BACKUP, "b", "shop") == held
    with pytest.raises(Invalid):
        await api.patch(VM_BACKUP, "b", {"metadata": {"finalizers": ["coeval.dev/a", "more"]}}, "shop")
    await api.patch(VM_BACKUP, "b", {"metadata": {"finalizers": []}}, "shop")
    assert api.find(VM_BACKUP, "b", "shop") is None
    assert not await api.delete(VM_BACKUP, "b", "shop")


async def test_dependents_go_with_their_last_owner_and_their_dependents_too(api: FakeApi) -> None:
    owner = await api.create(JOB, job("owner"), NS)
    middle = await api.create(JOB, job("middle", ownerReferences=owned_by(owner)), NS)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "ownerReferences": owned_by(middle)}}
    await api.create(POD, pod, NS)
    other = await api.create(JOB, job("other"), NS)
    both = owned_by(owner) + owned_by(other)
    await api.create(JOB, job("shared", ownerReferences=both), NS)
    await api.delete(JOB, "owner", NS)
    assert [o["metadata"]["name"] for o in api.all() if o["kind"] != "Namespace"] == ["other", "shared"]


async def test_an_owner_in_another_namespace_owns_nothing(api: FakeApi) -> None:
    owner = await api.create(VM_BACKUP, backup())
    await api.create(JOB, job(ownerReferences=owned_by(owner)), NS)
    assert api.find(JOB, "j", NS) is None


async def test_a_namespace_goes_when_it_is_empty(api: FakeApi) -> None:
    await api.create(VM_BACKUP, backup(finalizers=["coeval.dev/a"]))
    api.put(PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": "c", "namespace": "shop"}})
    api.remove(NAMESPACE, "shop")
    assert api.find(PERSISTENT_VOLUME_CLAIM, "c", "shop") is None
    assert api.find(NAMESPACE, "shop") is not None
    with pytest.raises(Forbidden):
        await api.create(JOB, job(), "shop")
    await api.patch(VM_BACKUP, "b", {"metadata": {"finalizers": None}}, "shop")
    assert api.find(NAMESPACE, "shop") is None
    with pytest.raises(NotFound):
        await api.create(JOB, job(), "shop")


async def test_list_selects_by_label_and_namespace_and_hands_out_copies(api: FakeApi) -> None:
    for name, labels in (("one", {"a": "1"}), ("two", {"a": "2"}), ("three", {"a": "1", "b": "1"})):
        await api.create(JOB, job(name, labels=labels), NS)
    await api.create(JOB, job("four", labels={"a": "1"}), "shop")
    found = await api.list(JOB, NS, labels={"a": "1"})
    assert [o["metadata"]["name"] for o in found] == ["one", "three"]
    found[0]["spec"]["parallelism"] = 99
    assert (await api.get(JOB, "one", NS) or {})["spec"]["parallelism"] == 1
    assert len(await api.list(JOB)) == 4


async def test_what_is_not_json_or_not_of_the_kind_is_refused(api: FakeApi) -> None:
    with pytest.raises(TypeError):
        await api.create(JOB, job(labels={"a": object()}), NS)
    with pytest.raises(Invalid):
        await api.create(SECRET, job(), NS)
    with pytest.raises(Invalid):
        await api.create(JOB, job(namespace="shop"), NS)
    with pytest.raises(Invalid):
        await api.get(JOB, "j")


async def test_other_controllers_report_status_without_a_call(api: FakeApi) -> None:
    api.put(VOLUME_SNAPSHOT, {"metadata": {"name": "s"}, "spec": {"source": {}}}, "shop")
    api.set_status(VOLUME_SNAPSHOT, "s", "shop", {"readyToUse": True, "error": {"message": "x"}})
    api.set_status(VOLUME_SNAPSHOT, "s", "shop", {"error": None})
    assert (await api.get(VOLUME_SNAPSHOT, "s", "shop") or {})["status"] == {"readyToUse": True}
    assert [str(call) for call in api.calls] == ["get volumesnapshots shop s"]


@pytest.mark.parametrize(("moment", "happened"), [("before", False), ("after", True)])
async def test_a_hook_stops_before_or_after_a_call(moment: str, happened: bool) -> None:
    class Stop(BaseException):
        pass

    def stop(at: str, call: Call) -> None:
        if at == moment and call.mutates:
            raise Stop

    api = FakeApi(hook=stop)
    await api.list(JOB)
    with pytest.raises(Stop):
        await api.create(JOB, job(), NS)
    assert (api.find(JOB, "j", NS) is not None) is happened


async def test_subresource_and_logs_are_what_the_test_says(api: FakeApi) -> None:
    with pytest.raises(NotFound):
        await api.subresource("PUT", "/freeze")
    api.on_subresource = lambda method, path, body: (method, path, body)
    assert await api.subresource("PUT", "/freeze", {"t": 1}) == ("PUT", "/freeze", {"t": 1})
    assert api.calls[-1].mutates
    api.pod_logs["shop", "p", "c"] = "1\n2\n3\n"
    assert await api.logs("p", "shop", container="c", tail_lines=2) == "2\n3\n"
    with pytest.raises(NotFound):
        await api.logs("p", "shop", container="other", tail_lines=2)


async def test_cluster_scoped_objects_ignore_the_namespace(api: FakeApi) -> None:
    api.put(BACKUP_REPOSITORY, {"metadata": {"name": "main"}, "spec": {}})
    assert (await api.get(BACKUP_REPOSITORY, "main") or {})["metadata"]["name"] == "main"
