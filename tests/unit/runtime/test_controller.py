"""The runner in virtual time: what becomes of a reconcile's outcome."""

import asyncio
import itertools
import logging
from collections.abc import Callable

import pytest
from coeval.controllers.ports import Key
from coeval.kube.port import ApiError, Conflict
from coeval.runtime.controller import Runner
from coeval.runtime.metrics import Metrics

pytestmark = [pytest.mark.looptime]

A, B = Key("shop", "a"), Key("shop", "b")


class Scripted:
    """A controller whose outcomes are listed; the last stays."""

    def __init__(self, *outcomes: float | Exception | None, takes: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.takes = takes
        self.seen: list[tuple[float, Key]] = []
        self.busy = 0
        self.most_busy = 0

    async def reconcile(self, key: Key) -> float | None:
        self.seen.append((asyncio.get_running_loop().time(), key))
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.busy -= 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def watched(
    controller: Scripted, seconds: float, *, workers: int = 2, then: Callable[[Runner], None] | None = None
) -> tuple[list[float], Metrics]:
    """The moments (from the start) at which A was looked at."""
    metrics = Metrics()
    runner = Runner("x", controller, metrics.controller("x"), workers=workers)
    running = asyncio.create_task(runner.run())
    start = asyncio.get_running_loop().time()
    runner.queue.add(A)
    if then is not None:
        then(runner)
    await asyncio.sleep(seconds)
    runner.queue.shut_down()
    await running
    return [round(at - start, 3) for at, key in controller.seen if key == A], metrics


async def test_done_is_done() -> None:
    moments, _ = await watched(Scripted(None), 100)
    assert moments == [0]


async def test_looks_again_when_the_controller_says() -> None:
    moments, _ = await watched(Scripted(3.0), 10)
    assert moments == [0, 3, 6, 9]


async def test_zero_is_at_once_and_not_never() -> None:
    moments, _ = await watched(Scripted(0.0, 0.0, None), 10)
    assert moments == [0, 0, 0]


async def test_failures_back_off_and_success_resets() -> None:
    controller = Scripted(*[RuntimeError("x")] * 6, 100.0, RuntimeError("y"), None)
    moments, metrics = await watched(controller, 300)
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    for n, gap in enumerate(gaps[:6]):
        assert 0.05 * 2**n - 0.001 <= gap <= 0.1 * 2**n + 0.001
    # The loop's clock is a float that has been added up.
    assert gaps[6] == pytest.approx(100, abs=0.001)
    assert gaps[7] <= 0.1 + 0.001
    text = metrics.exposition().decode()
    assert 'coeval_reconcile_errors_total{controller="x",reason="RuntimeError"} 7.0' in text


async def test_the_servers_retry_after_is_respected() -> None:
    moments, _ = await watched(Scripted(ApiError(429, "TooManyRequests", "slow", retry_after=20), None), 60)
    assert moments == [0, 20]


async def test_one_broken_object_does_not_stop_the_others() -> None:
    controller = Scripted(RuntimeError("x"))
    await watched(controller, 50, workers=1, then=lambda runner: runner.queue.add(B))
    assert {key for _, key in controller.seen} == {A, B}


async def test_a_key_is_never_reconciled_twice_at_once() -> None:
    controller = Scripted(None, takes=5)

    def keep_adding(runner: Runner) -> None:
        for second in range(20):
            asyncio.get_running_loop().call_later(second, runner.queue.add, A)

    await watched(controller, 60, workers=4, then=keep_adding)
    assert controller.most_busy == 1
    assert len(controller.seen) == 5


async def test_different_keys_run_beside_each_other() -> None:
    controller = Scripted(None, takes=5)
    await watched(controller, 60, workers=2, then=lambda runner: runner.queue.add(B))
    assert controller.most_busy == 2


async def test_shut_down_lets_the_running_reconcile_finish() -> None:
    controller = Scripted(None, takes=30)
    moments, _ = await watched(controller, 1)
    assert moments == [0]
    assert controller.busy == 0
    assert asyncio.get_running_loop().time() >= 30


async def test_what_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    conflict, broken = Conflict(409, "Conflict", "stale"), KeyError("spec")
    await watched(Scripted(conflict, ApiError(500, "InternalError", "boom"), broken, None), 10)
    said = [(record.levelname, bool(record.exc_info)) for record in caplog.records]
    assert said == [("WARNING", False), ("ERROR", True)]
    assert caplog.records[0].__dict__["object"] == "shop/a"
