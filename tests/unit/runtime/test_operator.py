"""The whole operator on the in-memory API server, with watches that the test moves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from coeval.controllers.ports import Key
from coeval.kube.client import Credentials
from coeval.kube.events import EventRecorder
from coeval.kube.kinds import BACKUP_REPOSITORY, JOB, LEASE, VM_BACKUP
from coeval.kube.lease import LeaseLost
from coeval.kube.port import Kind, Object
from coeval.runtime import operator as operator_module
from coeval.runtime.operator import AT_HOME, EVERYWHERE, Operator
from coeval.runtime.settings import RuntimeSettings
from coeval.runtime.watch import Deliver, WatchEnded

from tests.unit.fakeapi import FakeApi

NS = "coeval-system"


class Api(FakeApi):
    """Serves every kind but those in `missing`."""

    def __init__(self) -> None:
        super().__init__(namespaces=[NS, "shop"], subresource=self._discovery)
        self.missing: set[str] = set()

    def _discovery(self, method: str, path: str, body: Object | None) -> Any:
        kinds = [watched.kind for watched in (*EVERYWHERE, *AT_HOME)]
        return {"resources": [{"name": kind.plural} for kind in kinds if kind.plural not in self.missing]}

    async def credentials(self) -> Credentials:
        raise AssertionError("the watches here log in nowhere")


class FakeWatch:
    made: list["FakeWatch"]

    def __init__(self, watched: Any, *, namespace: str | None, credentials: Any, deliver: Deliver) -> None:
        self.watched, self.namespace, self.deliver = watched, namespace, deliver
        self.loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self.loop.create_future()
        self.stopped = False
        FakeWatch.made.append(self)

    def start(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True

    async def stop(self, seconds: float) -> None:
        self.stopped = True


class Remembering:
    def __init__(self) -> None:
        self.seen: list[Key] = []
        self.blocked: asyncio.Event | None = None
        self.finished = 0

    async def reconcile(self, key: Key) -> float | None:
        self.seen.append(key)
        if self.blocked is not None:
            await self.blocked.wait()
        self.finished += 1
        return None


class Scene:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(operator_module, "Watch", FakeWatch)
        FakeWatch.made = []
        self.api = Api()
        self.backups, self.repositories = Remembering(), Remembering()
        self.stop = asyncio.Event()

    def operator(self, **more: Any) -> Operator:
        settings = RuntimeSettings(
            namespace=NS, image="i", pod_name="operator-0", http_host="127.0.0.1", http_port=1, **more
        ).model_copy(update={"http_port": 0})
        controllers = {VM_BACKUP: self.backups, BACKUP_REPOSITORY: self.repositories}
        return Operator(settings, self.api, EventRecorder(self.api, instance="operator-0"), controllers)

    @asynccontextmanager
    async def running(self, operator: Operator) -> AsyncIterator["asyncio.Task[None]"]:
        task = asyncio.create_task(operator.run(self.stop))
        try:
            yield task
        finally:
            self.stop.set()
            await asyncio.wait([task], timeout=5)
            assert task.done()


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


async def until(reached: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110 (nothing announces it)
            await asyncio.sleep(0.01)


def not_ready(operator: Operator) -> list[str]:
    return [name for name, check in operator.health.ready.items() if check()]


def body(kind: Kind, name: str, namespace: str = "", **annotations: str) -> Object:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {},
    }


def holder(api: FakeApi) -> str | None:
    lease = api.find(LEASE, "coeval-operator", NS)
    return lease["spec"]["holderIdentity"] if lease else None


async def test_what_is_there_at_the_start_is_looked_at(scene: Scene) -> None:
    scene.api.put(VM_BACKUP, {"metadata": {"name": "b", "namespace": "shop"}, "spec": {}})
    scene.api.put(BACKUP_REPOSITORY, {"metadata": {"name": "main"}, "spec": {}})
    async with scene.running(scene.operator()):
        await until(lambda: scene.backups.seen and scene.repositories.seen)
        assert scene.backups.seen == [Key("shop", "b")]
        assert scene.repositories.seen == [Key("", "main")]
        assert holder(scene.api) == "operator-0"
    assert holder(scene.api) == ""
    assert all(watch.stopped for watch in FakeWatch.made)


async def test_events_of_objects_and_of_children_lead_to_the_owner(scene: Scene) -> None:
    operator = scene.operator()
    async with scene.running(operator):
        await until(lambda: FakeWatch.made and not not_ready(operator))
        everywhere, home = FakeWatch.made
        assert (everywhere.namespace, home.namespace) == (None, NS)
        everywhere.deliver(VM_BACKUP, "ADDED", body(VM_BACKUP, "b", "shop"))
        await until(lambda: scene.backups.seen == [Key("shop", "b")])
        home.deliver(JOB, "MODIFIED", body(JOB, "j", NS, **{"coeval.dev/backup": "shop/other"}))
        await until(lambda: Key("shop", "other") in scene.backups.seen)
        home.deliver(JOB, "MODIFIED", body(JOB, "p", NS, **{"coeval.dev/repository": "main"}))
        await until(lambda: scene.repositories.seen == [Key("", "main")])
        home.deliver(JOB, "MODIFIED", body(JOB, "nobody's", NS))
        assert b'coeval_backups{phase="Pending"} 1.0' in operator.metrics.exposition()
        everywhere.deliver(VM_BACKUP, "DELETED", body(VM_BACKUP, "b", "shop"))
        await until(lambda: scene.backups.seen.count(Key("shop", "b")) == 2)
        assert b'coeval_backups{phase="Pending"} 0.0' in operator.metrics.exposition()


async def test_the_resync_finds_what_no_watch_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = scene.operator(resync_seconds=5)
    monkeypatch.setattr("random.uniform", lambda a, b: 0.01)
    async with scene.running(operator):
        await until(lambda: not not_ready(operator))
        scene.api.put(VM_BACKUP, {"metadata": {"name": "quiet", "namespace": "shop"}, "spec": {}})
        await until(lambda: Key("shop", "quiet") in scene.backups.seen)


async def test_it_is_ready_when_it_works_and_not_while_a_kind_is_missing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_module, "KINDS_RETRY_SECONDS", 0.01)
    scene.api.missing = {"volumesnapshots"}
    operator = scene.operator()
    async with scene.running(operator):
        await until(lambda: len(scene.api.calls) > 20)
        assert not_ready(operator) == ["kinds"]
        assert operator.health.ready["kinds"]() == "missing: volumesnapshots.snapshot.storage.k8s.io"
        assert holder(scene.api) is None
        scene.api.missing = set()
        await until(lambda: holder(scene.api) and not not_ready(operator))


async def test_a_standby_is_ready_and_does_nothing(scene: Scene) -> None:
    lease = {
        "metadata": {"name": "coeval-operator"},
        "spec": {"holderIdentity": "x", "leaseDurationSeconds": 60},
    }
    scene.api.put(LEASE, lease, NS)
    scene.api.put(VM_BACKUP, {"metadata": {"name": "b", "namespace": "shop"}, "spec": {}})
    operator = scene.operator()
    async with scene.running(operator) as task:
        await until(lambda: any(call.kind == LEASE for call in scene.api.calls))
        await asyncio.sleep(0.1)
        assert not not_ready(operator)
        assert (scene.backups.seen, FakeWatch.made) == ([], [])
        assert b"coeval_leading 0.0" in operator.metrics.exposition()
    assert task.exception() is None
    assert holder(scene.api) == "x"


async def test_sigterm_lets_a_reconcile_finish_before_the_lease_is_released(scene: Scene) -> None:
    scene.api.put(VM_BACKUP, {"metadata": {"name": "b", "namespace": "shop"}, "spec": {}})
    scene.backups.blocked = asyncio.Event()
    async with scene.running(scene.operator()) as task:
        await until(lambda: scene.backups.seen)
        scene.stop.set()
        await asyncio.sleep(0.2)
        assert holder(scene.api) == "operator-0"
        assert not task.done()
        scene.backups.blocked.set()
        await asyncio.wait([task], timeout=5)
    assert scene.backups.finished == 1
    assert holder(scene.api) == ""
    assert task.exception() is None


async def test_sigterm_does_not_wait_for_ever(scene: Scene) -> None:
    scene.api.put(VM_BACKUP, {"metadata": {"name": "b", "namespace": "shop"}, "spec": {}})
    scene.backups.blocked = asyncio.Event()
    async with scene.running(scene.operator(shutdown_seconds=0.1)) as task:
        await until(lambda: scene.backups.seen)
        scene.stop.set()
        await asyncio.wait([task], timeout=3)
        assert task.done()
    assert scene.backups.finished == 0
    assert holder(scene.api) == ""


async def test_a_dead_watch_ends_the_process(scene: Scene) -> None:
    async with scene.running(scene.operator()) as task:
        await until(lambda: FakeWatch.made)
        await asyncio.sleep(0.05)
        FakeWatch.made[0].failed.set_exception(WatchEnded("403"))
        await asyncio.wait([task], timeout=3)
    error = task.exception()
    assert isinstance(error, ExceptionGroup)
    assert error.subgroup(WatchEnded) is not None


async def test_a_lost_lease_ends_the_process_at_once(scene: Scene) -> None:
    scene.api.put(VM_BACKUP, {"metadata": {"name": "b", "namespace": "shop"}, "spec": {}})
    scene.backups.blocked = asyncio.Event()
    async with scene.running(scene.operator()) as task:
        await until(lambda: scene.backups.seen)
        lease = scene.api.find(LEASE, "coeval-operator", NS)
        assert lease is not None
        scene.api.put(LEASE, lease | {"spec": lease["spec"] | {"holderIdentity": "thief"}}, NS)
        await asyncio.wait([task], timeout=4)
    error = task.exception()
    assert isinstance(error, ExceptionGroup)
    assert error.subgroup(LeaseLost) is not None
    assert scene.backups.finished == 0
    assert holder(scene.api) == "thief"


async def test_the_probes_are_served_from_the_first_moment(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    scene.api.missing = {"vmbackups"}
    operator = scene.operator()
    operator._settings = operator._settings.model_copy(update={"http_port": unused_tcp_port})
    async with scene.running(operator), aiohttp.ClientSession() as session:
        await until(lambda: scene.api.calls)
        async with session.get(f"http://127.0.0.1:{unused_tcp_port}/readyz") as answer:
            assert answer.status == 503
            assert "vmbackups.coeval.dev" in await answer.text()
        async with session.get(f"http://127.0.0.1:{unused_tcp_port}/healthz") as answer:
            assert answer.status == 200
