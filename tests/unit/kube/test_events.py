"""The recorder in virtual time, on the in-memory API server."""

import asyncio
from typing import Any

import pytest
from coeval.kube.events import EventRecorder
from coeval.kube.kinds import EVENT, NAMESPACE
from coeval.kube.port import ApiError, Object

from tests.unit.fakeapi import Call, FakeApi

pytestmark = [pytest.mark.looptime]

BACKUP: Object = {
    "apiVersion": "coeval.dev/v1alpha1",
    "kind": "VMBackup",
    "metadata": {"name": "b", "namespace": "shop", "uid": "u1", "resourceVersion": "7", "labels": {"a": "1"}},
    "spec": {},
}


def recorder(api: FakeApi) -> EventRecorder:
    return EventRecorder(api, instance="operator-0")


async def tell(
    events: EventRecorder, message: str = "frozen", regarding: Object = BACKUP, **more: Any
) -> None:
    await events.event(regarding, type="Normal", reason=more.get("reason", "Frozen"), message=message)
    await events.flush()


async def test_what_is_written() -> None:
    api = FakeApi(namespaces=["shop"])
    await tell(recorder(api))
    [event] = api.all(EVENT)
    assert event["regarding"] == {
        "apiVersion": "coeval.dev/v1alpha1", "kind": "VMBackup",
        "name": "b", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
    }  # fmt: skip
    assert event["metadata"]["namespace"] == "shop"
    assert (event["type"], event["reason"], event["note"]) == ("Normal", "Frozen", "frozen")
    assert event["reportingInstance"] == "operator-0"
    assert event["action"]
    assert "series" not in event


async def test_the_same_again_is_counted_and_written_rarely() -> None:
    api = FakeApi(namespaces=["shop"])
    events = recorder(api)
    for _ in range(21):
        await tell(events)
        await asyncio.sleep(3)
    [event] = api.all(EVENT)
    # The 2nd event after 3 s, then one each 30 s: the 12th after 33 s.
    assert event["series"]["count"] == 12
    assert [call.verb for call in api.calls] == ["create", "patch", "patch"]


async def test_another_message_reason_or_object_is_another_event() -> None:
    api = FakeApi(namespaces=["shop"])
    events = recorder(api)
    await tell(events)
    await tell(events, "thawed")
    await tell(events, reason="Thawed")
    await tell(events, regarding=BACKUP | {"metadata": BACKUP["metadata"] | {"uid": "u2"}})
    assert len(api.all(EVENT)) == 4


async def test_a_series_ends_after_a_pause() -> None:
    api = FakeApi(namespaces=["shop"])
    events = recorder(api)
    await tell(events)
    await asyncio.sleep(361)
    await tell(events)
    assert len(api.all(EVENT)) == 2


async def test_an_event_that_was_removed_meanwhile_is_written_anew() -> None:
    api = FakeApi(namespaces=["shop"])
    events = recorder(api)
    await tell(events)
    api.remove(EVENT, api.all(EVENT)[0]["metadata"]["name"], "shop")
    await tell(events)
    assert len(api.all(EVENT)) == 1


async def test_failures_and_missing_namespaces_never_reach_the_caller() -> None:
    def down(moment: str, call: Call) -> None:
        raise ApiError(0, "Timeout", "no answer")

    await tell(recorder(FakeApi(hook=down)))
    await tell(recorder(FakeApi()))  # namespace shop is gone


async def test_the_caller_never_waits_for_the_server() -> None:
    api = FakeApi(namespaces=["shop"])
    events = EventRecorder(api, instance="operator-0", backlog=10)
    for number in range(15):
        await events.event(BACKUP, type="Normal", reason="R", message=str(number))
    assert not api.calls
    running = asyncio.create_task(events.run())
    await asyncio.sleep(1)
    running.cancel()
    assert len(api.all(EVENT)) == 10


async def test_events_of_cluster_scoped_objects_go_to_default_and_long_notes_show_the_cut() -> None:
    api = FakeApi()
    api.put(NAMESPACE, {"metadata": {"name": "default"}})
    repository = {"apiVersion": "coeval.dev/v1alpha1", "kind": "BackupRepository", "metadata": {"name": "m"}}
    await tell(recorder(api), "ä" * 2000, repository)
    [event] = api.all(EVENT)
    assert event["metadata"]["namespace"] == "default"
    assert event["note"].endswith("ä…")
    assert len(event["note"].encode()) <= 1024
