"""The elector in virtual time, on the in-memory API server."""

import asyncio
from typing import Any

import pytest
from coeval.kube.kinds import LEASE
from coeval.kube.lease import Elector, LeaseLost, Timing
from coeval.kube.port import ApiError, Object

from tests.unit.fakeapi import Call, FakeApi

pytestmark = [pytest.mark.looptime]

NS = "coeval-system"


class Fault:
    """A hook that makes the calls of some verbs fail, or of every one hang, while switched on."""

    def __init__(self) -> None:
        self.fails: set[str] = set()

    def __call__(self, moment: str, call: Call) -> None:
        if moment == "before" and call.verb in self.fails:
            raise ApiError(503, "ServiceUnavailable", "down")


class SlowApi(FakeApi):
    """Calls hang while `hangs`."""

    hangs = False

    async def get(self, *args: Any, **more: Any) -> Object | None:
        if self.hangs:
            await asyncio.Event().wait()
        return await super().get(*args, **more)


def now() -> float:
    return asyncio.get_running_loop().time()


def elector(api: FakeApi, identity: str) -> Elector:
    return Elector(api, namespace=NS, name="operator", identity=identity)


def record(api: FakeApi) -> dict[str, Any]:
    lease = api.find(LEASE, "operator", NS)
    assert lease is not None
    return dict(lease["spec"])


async def ends_within(seconds: float, task: asyncio.Task[None]) -> bool:
    done, _ = await asyncio.wait([task], timeout=seconds)
    return bool(done)


async def test_the_first_takes_it_at_once_and_renews() -> None:
    api = FakeApi()
    one = elector(api, "one")
    await one.acquire()
    assert one.leading
    before = record(api)
    assert before["holderIdentity"] == "one"
    assert (before["leaseDurationSeconds"], before["leaseTransitions"]) == (15, 0)
    holding = asyncio.create_task(one.hold())
    assert not await ends_within(100, holding)
    assert record(api)["acquireTime"] == before["acquireTime"]
    assert record(api)["renewTime"] > before["renewTime"]
    holding.cancel()


async def test_the_second_waits_while_the_first_renews_and_takes_over_when_it_stopped() -> None:
    api = FakeApi()
    one, two = elector(api, "one"), elector(api, "two")
    await one.acquire()
    holding = asyncio.create_task(one.hold())
    taking = asyncio.create_task(two.acquire())
    assert not await ends_within(120, taking)
    holding.cancel()
    stopped = now()
    await taking
    assert 13 <= now() - stopped <= 19  # the duration, within a retry period or so
    assert record(api)["holderIdentity"] == "two"
    assert record(api)["leaseTransitions"] == 1


async def test_a_dead_holders_clock_does_not_matter() -> None:
    api = FakeApi()
    spec = {"holderIdentity": "dead", "leaseDurationSeconds": 15, "renewTime": "2999-01-01T00:00:00.000000Z"}
    api.put(LEASE, {"metadata": {"name": "operator"}, "spec": spec}, NS)
    start = now()
    await elector(api, "one").acquire()
    assert 15 <= now() - start <= 18


async def test_a_released_lease_is_taken_at_the_next_look() -> None:
    api = FakeApi()
    one, two = elector(api, "one"), elector(api, "two")
    await one.acquire()
    taking = asyncio.create_task(two.acquire())
    await asyncio.sleep(5)
    await one.release()
    released = now()
    await taking
    assert now() - released <= 2


async def test_what_another_holds_is_not_released() -> None:
    api = FakeApi()
    await elector(api, "one").acquire()
    await elector(api, "two").release()
    assert record(api)["holderIdentity"] == "one"


async def test_lost_when_renewing_fails_until_the_deadline_and_not_before() -> None:
    fault = Fault()
    api = FakeApi(hook=fault)
    one = elector(api, "one")
    await one.acquire()
    fault.fails = {"patch"}
    holding = asyncio.create_task(one.hold())
    assert not await ends_within(9, holding)
    assert await ends_within(1.1, holding)
    assert isinstance(holding.exception(), LeaseLost)
    assert not one.leading
    calls = len(api.calls)
    await one.release()
    assert len(api.calls) == calls


async def test_a_short_outage_is_survived() -> None:
    fault = Fault()
    api = FakeApi(hook=fault)
    one = elector(api, "one")
    await one.acquire()
    holding = asyncio.create_task(one.hold())
    fault.fails = {"get", "patch"}
    await asyncio.sleep(7)
    fault.fails = set()
    assert not await ends_within(100, holding)
    holding.cancel()


async def test_lost_before_another_may_take_it_even_when_calls_hang() -> None:
    api = SlowApi()
    one = elector(api, "one")
    await one.acquire()
    start = now()
    holding = asyncio.create_task(one.hold())
    api.hangs = True
    assert await ends_within(14.9, holding)
    assert isinstance(holding.exception(), LeaseLost)
    assert now() - start == pytest.approx(10, abs=0.1)


async def test_lost_at_once_when_another_has_taken_it() -> None:
    api = FakeApi()
    one = elector(api, "one")
    await one.acquire()
    holding = asyncio.create_task(one.hold())
    await asyncio.sleep(3)
    api.put(LEASE, {"metadata": {"name": "operator"}, "spec": record(api) | {"holderIdentity": "two"}}, NS)
    assert await ends_within(2.1, holding)
    assert "two" in str(holding.exception())


async def test_a_lost_answer_to_the_create_is_no_loss() -> None:
    lost = False

    def hook(moment: str, call: Call) -> None:
        nonlocal lost
        if (moment, call.verb) == ("after", "create") and not lost:
            lost = True
            raise ApiError(0, "ConnectionFailed", "cut")

    api = FakeApi(hook=hook)
    one = elector(api, "one")
    await one.acquire()
    assert record(api)["holderIdentity"] == "one"


async def test_of_many_exactly_one_leads() -> None:
    api = FakeApi()
    electors = [elector(api, f"e{i}") for i in range(5)]
    tasks = [asyncio.create_task(e.acquire()) for e in electors]
    await asyncio.wait(tasks, timeout=10)
    assert sum(e.leading for e in electors) == 1
    for task in tasks:
        task.cancel()


async def test_release_never_raises() -> None:
    fault = Fault()
    api = FakeApi(hook=fault)
    one = elector(api, "one")
    await one.acquire()
    fault.fails = {"get"}
    await one.release()


@pytest.mark.parametrize(
    "wrong", [{"renew_deadline": 20}, {"try_timeout": 10}, {"retry_period": 11}, {"duration": 5}]
)
def test_times_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        Timing(**wrong)
