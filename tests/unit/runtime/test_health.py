"""Probes over real HTTP on loopback."""

import asyncio
import threading

import aiohttp
from coeval.runtime.health import Health, Heartbeat
from coeval.runtime.metrics import Metrics


async def ask(health: Health, path: str) -> tuple[int, str]:
    async with (
        health.serve("127.0.0.1", 0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.get(path) as answer,
    ):
        return answer.status, await answer.text()


async def test_healthy() -> None:
    health = Health(Metrics())
    health.live["queue"] = lambda: None
    assert await ask(health, "/healthz") == (200, "queue: ok\n")
    assert await ask(health, "/readyz") == (200, "")


async def test_one_bad_check_is_enough_and_says_why() -> None:
    health = Health(Metrics())
    health.live["good"] = lambda: None
    health.live["bad"] = lambda: "no worker has taken a key for 90 s"
    status, text = await ask(health, "/healthz")
    assert status == 503
    assert text == "good: ok\nbad: no worker has taken a key for 90 s\n"
    assert (await ask(health, "/readyz"))[0] == 200


async def test_a_check_that_raises_is_bad() -> None:
    health = Health(Metrics())
    health.ready["broken"] = lambda: str(1 / 0)
    status, text = await ask(health, "/readyz")
    assert status == 503
    assert "ZeroDivisionError" in text


async def test_metrics_are_served() -> None:
    status, text = await ask(Health(Metrics()), "/metrics")
    assert status == 200
    assert "# TYPE coeval_backups gauge" in text


async def test_a_heartbeat_ages_until_the_other_loop_turns() -> None:
    other, time = asyncio.new_event_loop(), 100.0
    heart = Heartbeat(other, lambda: time)
    heart.ask()
    time = 130.0
    assert heart.age() == 30

    def turn() -> None:
        other.call_soon(other.stop)
        other.run_forever()

    thread = threading.Thread(target=turn)
    thread.start()
    thread.join()
    assert heart.age() == 0
    other.close()
    heart.ask()
    time = 150.0
    assert heart.age() == 20
