"""The operator is stopped before and after every call to the API server, and started anew.

It keeps nothing in memory, so a stop leaves just the world as it is; where two stops leave the same world,
one of them is tried. From each such world four futures are run to their end: the operator comes back at once,
it comes back after all timers have fired, the user has cancelled meanwhile, the user has deleted the VMBackup
meanwhile.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.controllers.sim import Sim, leaks
from tests.unit.controllers.sim_world import KEY
from tests.unit.fakeapi import Call, Moment

Future = Callable[[Sim], Awaitable[None]]
Check = Callable[[Sim], None]


async def worlds(sim: Sim, check: Check) -> list[tuple[str, Sim]]:
    """Run it through, and keep the world of every moment at which the operator may die."""
    sim.behaviour.job_takes = 1  # what a mover does meanwhile is no call of ours
    kept: list[tuple[str, Sim]] = []
    seen: set[tuple[int, int]] = set()

    def hook(moment: Moment, call: Call) -> None:
        state = (sim.api.version(), sim.changes)
        if state not in seen:
            seen.add(state)
            kept.append((f"{moment} {call}", sim.fork()))

    sim.api.hook = hook
    await sim.run()
    sim.api.hook = None
    check(sim)
    return kept


def check_end(sim: Sim, *phases: str) -> None:
    """The invariants of an end."""
    assert list(leaks(sim)) == []
    backup = sim.backup()
    if backup is None:
        # Deleted. With Retain a finished backup stays, and an unfinished one leaves nothing.
        assert len(sim.repository) <= 1
        return
    status = backup["status"]
    assert status["phase"] in phases, (status["phase"], status.get("outcome"))
    assert "finalizers" not in backup["metadata"] or backup["metadata"]["finalizers"] == []
    if status["phase"] == "Completed":
        check_moment(sim, status)
    else:
        assert sim.repository == {}


def check_moment(sim: Sim, status: dict[str, Any]) -> None:
    """One entry, and every disk in it holds what the guest had written at the one moment."""
    (entry,) = sim.repository.values()
    assert sorted(entry.volumes) == ["data", "root"]
    assert len(set(entry.volumes.values())) == 1, f"a broken moment: {entry.volumes}"
    assert entry.as_of == status["pointInTime"]
    assert status["consistency"]["proven"]
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    thawed = next(c for c in status["conditions"] if c["type"] == "Thawed")
    assert (ready["status"], thawed["status"]) == ("True", "True")


async def comes_back(sim: Sim) -> None:
    sim.advance(0.3)
    await sim.run()
    check_end(sim, "Completed")


async def comes_back_late(sim: Sim) -> None:
    quiesce = sim.status().get("quiesce", {})
    if "intentAt" not in quiesce or "releaseSeenAt" in quiesce:
        return  # no timer runs: it is the same as coming back at once
    sim.advance(100)
    assert not sim.guest.paused
    assert not sim.guest.held, "the safety timer has fired"
    await sim.run()
    check_end(sim, "Completed")


async def is_cancelled(sim: Sim) -> None:
    if sim.backup() is None:
        return
    sim.patch_spec(cancel=True)
    await sim.run()
    check_end(sim, "Completed", "Cancelled")


async def is_deleted(sim: Sim) -> None:
    sim.delete_backup()
    await sim.run()
    assert sim.backup() is None
    check_end(sim)


def check_complete(sim: Sim) -> None:
    check_end(sim, "Completed")


async def try_all(first: Sim, future: Future, check: Check = check_complete, *, least: int = 60) -> None:
    """Run every future of a backup; `check` is of its undisturbed end."""
    kept = await worlds(first, check)
    assert len(kept) > least
    for where, world in kept:
        try:
            await future(world)
        except AssertionError as error:
            raise AssertionError(f"stopped {where} at {world.now()}: {error}") from error


@pytest.mark.parametrize("future", [comes_back, comes_back_late, is_cancelled, is_deleted])
async def test_stopped_anywhere_it_settles(future: Future) -> None:
    await try_all(Sim(), future)


@pytest.mark.parametrize("future", [comes_back, is_cancelled, is_deleted])
async def test_stopped_anywhere_with_a_paused_guest_it_settles(future: Future) -> None:
    sim = Sim()
    sim.lose_agent()
    await try_all(sim, future)


async def test_a_deleted_object_is_no_work() -> None:
    sim = Sim()
    sim.delete_backup()
    assert await sim.controller().reconcile(KEY) is None
