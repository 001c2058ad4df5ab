"""The work queue in virtual time."""

import asyncio
import random
from typing import Any

import pytest
from coeval.kube.workqueue import QueueShutDown, TokenBucket, WorkQueue
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.looptime]


def now() -> float:
    return asyncio.get_running_loop().time()


async def taken(queue: WorkQueue[str], within: float) -> str | None:
    try:
        return await asyncio.wait_for(queue.get(), within)
    except TimeoutError:
        return None


async def test_a_key_waits_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "aba":
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert await taken(queue, 1) is None


async def test_a_key_is_never_with_two_workers_and_nothing_added_meanwhile_is_lost() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")
    assert await taken(queue, 1) is None
    queue.done(key)
    assert await taken(queue, 1) == "a"
    queue.done("a")
    assert await taken(queue, 1) is None


async def test_later_means_the_earliest_of_all_asked_for() -> None:
    queue: WorkQueue[str] = WorkQueue()
    start = now()
    queue.add_after("a", 10)
    queue.add_after("a", 3)
    queue.add_after("a", 20)
    assert await queue.get() == "a"
    assert now() - start == pytest.approx(3)
    queue.done("a")
    assert await taken(queue, 100) is None


async def test_a_look_now_does_not_cancel_a_look_later() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 5)
    queue.add("a")
    queue.done(await queue.get())
    assert await taken(queue, 10) == "a"


async def test_no_delay_is_now() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0)
    assert len(queue) == 1


async def test_failures_wait_longer_up_to_a_limit_until_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue(first_backoff=1, longest_backoff=60, burst=1000)
    delays = []
    for _ in range(9):
        queue.add_rate_limited("a")
        start = now()
        queue.done(await queue.get())
        delays.append(now() - start)
    for index, delay in enumerate(delays):
        full = min(60, 2**index)
        assert full / 2 <= delay <= full
    queue.forget("a")
    assert queue.add_rate_limited("a") <= 1


async def test_keys_back_off_alone_and_with_jitter() -> None:
    queue: WorkQueue[int] = WorkQueue(first_backoff=1, burst=1000, rng=random.Random(7))  # noqa: S311
    for _ in range(5):
        queue.add_rate_limited(0)
    delays = {queue.add_rate_limited(key) for key in range(1, 20)}
    assert max(delays) <= 1
    assert len(delays) > 15


async def test_the_server_may_ask_for_more_patience() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert queue.add_rate_limited("a", at_least=30) == 30


async def test_a_thousand_failures_do_not_overflow() -> None:
    queue: WorkQueue[str] = WorkQueue(longest_backoff=60, retries_per_second=1e9)
    for _ in range(1100):
        assert queue.add_rate_limited("a") <= 60


async def test_all_retries_together_are_bounded() -> None:
    queue: WorkQueue[int] = WorkQueue(first_backoff=0.01, retries_per_second=10, burst=5)
    delays = [queue.add_rate_limited(key) for key in range(25)]
    assert max(delays[:5]) <= 0.01
    assert delays[-1] == pytest.approx(2.0)


@given(gaps=st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_the_bucket_never_lets_more_through_than_rate_and_burst(gaps: list[float]) -> None:
    bucket, at, passed = TokenBucket(rate=4, burst=3), 0.0, []
    for gap in gaps:
        at += gap
        passed.append(at + bucket.reserve(at))
    for start in passed:
        assert sum(start <= moment < start + 1 for moment in passed) <= 3 + 4 + 1


async def test_get_wakes_up_for_a_late_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(1)
    queue.add("a")
    await asyncio.sleep(1)
    queue.add("b")
    assert await asyncio.gather(*waiting) == ["a", "b"]


async def test_shut_down_ends_workers_and_waits_for_those_that_are_busy() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("busy")
    queue.add("waiting")
    queue.add_after("later", 1)
    busy = await queue.get()
    queue.shut_down()
    queue.add("too late")
    queue.add_after("too late", 1)
    with pytest.raises(QueueShutDown):
        await queue.get()
    asyncio.get_running_loop().call_later(5, queue.done, busy)
    start = now()
    await queue.drain()
    assert now() - start == pytest.approx(5)
    await asyncio.sleep(10)
    assert len(queue) == 0


async def test_idle_workers_end_at_shut_down() -> None:
    queue: WorkQueue[str] = WorkQueue()
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(1)
    queue.shut_down()
    ended = await asyncio.gather(*workers, return_exceptions=True)
    assert [type(e) for e in ended] == [QueueShutDown] * 3


async def test_a_cancelled_worker_loses_no_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    idle = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    queue.add("a")
    idle.cancel()
    await asyncio.gather(idle, return_exceptions=True)
    assert await taken(queue, 1) == "a"


async def test_what_it_reports() -> None:
    said: list[tuple[str, Any]] = []

    class Metrics:
        def depth(self, keys: int) -> None:
            said.append(("depth", keys))

        def waited(self, seconds: float) -> None:
            said.append(("waited", round(seconds, 3)))

        def retried(self) -> None:
            said.append(("retried", None))

    queue: WorkQueue[str] = WorkQueue(metrics=Metrics())
    queue.add("a")
    await asyncio.sleep(2)
    assert queue.oldest_age() == pytest.approx(2)
    await queue.get()
    assert queue.oldest_age() == 0
    await asyncio.sleep(3)
    assert queue.longest_run() == pytest.approx(3)
    queue.done("a")
    assert queue.longest_run() == 0
    queue.add_rate_limited("a")
    assert said == [("depth", 1), ("waited", 2), ("depth", 0), ("retried", None)]


@settings(max_examples=60)
@given(data=st.data())
def test_against_a_plain_model(data: Any) -> None:
    """Whatever the order of calls: an added key is looked at, and never by two workers at once."""

    async def run() -> None:
        queue: WorkQueue[int] = WorkQueue()
        needs: set[int] = set()
        running: set[int] = set()
        for _ in range(data.draw(st.integers(1, 40))):
            match data.draw(st.sampled_from(["add", "get", "done"])):
                case "add":
                    key = data.draw(st.integers(0, 3))
                    queue.add(key)
                    needs.add(key)
                case "get" if needs - running:
                    key = await queue.get()
                    assert key in needs - running
                    needs.discard(key)
                    running.add(key)
                case "done" if running:
                    key = data.draw(st.sampled_from(sorted(running)))
                    queue.done(key)
                    running.discard(key)
            assert len(queue) == len(needs - running)

    asyncio.run(run())
