"""Backups from beginning to end in the simulated world: how they go well, and how they fail."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from coeval.kube.kinds import (
    VIRTUAL_MACHINE_INSTANCE,
)
from coeval.kube.port import ApiError

from tests.unit.controllers.asserts import assert_failed
from tests.unit.controllers.scene import SHOP
from tests.unit.controllers.sim import Sim, leaks
from tests.unit.controllers.test_crash_everywhere import check_end

NOT_CONNECTED = "command Freeze failed: 'Guest agent is not responding: QEMU guest agent is not connected'"


def refuse(text: str) -> Callable[[Sim], None]:
    def freeze(_: Sim) -> None:
        raise ApiError(500, "InternalError", text)

    return freeze


@pytest.fixture
def sim() -> Sim:
    return Sim()


async def test_a_running_vm(sim: Sim) -> None:
    await sim.run()
    check_end(sim, "Completed")
    status = sim.status()
    assert (status["consistency"]["achieved"], status["consistency"]["method"]) == (
        "Filesystem",
        "GuestFreeze",
    )
    window = status["consistency"]["window"]
    assert (
        window["quiesceSent"]
        <= window["quiesceReturned"]
        <= window["firstSnapshotCreated"]
        < window["lastCreationTimeSeen"]
        <= window["releaseSent"]
    )
    assert status["progress"]["percent"] == 100
    assert status["repository"]["path"] == "shop/db"
    assert sim.guest.window == 1
    assert [e for e in sim.recorder.events if e[0] == "Warning"] == []


async def test_the_guest_is_held_only_while_its_snapshots_come_to_exist(sim: Sim) -> None:
    sim.behaviour.ready_after = 60
    await sim.run(until=lambda: "pointInTime" in sim.status())
    assert not sim.guest.held
    assert (sim.now() - sim.backend_times()[0]) < timedelta(seconds=2)


async def test_a_stopped_vm() -> None:
    sim = Sim(running=False)
    await sim.run()
    check_end(sim, "Completed")
    consistency = sim.status()["consistency"]
    assert (consistency["achieved"], consistency["method"]) == ("Crash", "Stopped")
    assert sim.guest.window == 0


async def test_without_an_agent_the_guest_is_paused(sim: Sim) -> None:
    sim.lose_agent()
    await sim.run()
    check_end(sim, "Completed")
    consistency = sim.status()["consistency"]
    assert (consistency["achieved"], consistency["method"]) == ("Crash", "Pause")
    assert not sim.guest.paused


async def test_best_effort_does_not_touch_the_guest() -> None:
    sim = Sim(spec={"consistency": "BestEffort"})
    await sim.run()
    assert sim.status()["phase"] == "Completed"
    assert sim.status()["consistency"]["proven"] is False
    assert sim.condition("PointInTime")["status"] == "False"
    assert sim.guest.window == 0
    assert list(leaks(sim)) == []


async def test_a_refused_freeze_falls_back_to_pause(sim: Sim) -> None:
    sim.behaviour.freeze = refuse(NOT_CONNECTED)
    await sim.run()
    check_end(sim, "Completed")
    status = sim.status()
    assert status["consistency"]["method"] == "Pause"
    assert NOT_CONNECTED in status["quiesce"]["refused"]["GuestFreeze"]
    assert any(e[1] == "FreezeRefused" for e in sim.recorder.events)


async def test_a_refused_freeze_fails_where_it_is_required() -> None:
    sim = Sim(spec={"consistency": "Filesystem"})
    sim.behaviour.freeze = refuse(NOT_CONNECTED)
    await sim.run()
    assert_failed(sim, "FreezeRefused", "not connected", "Crash")
    assert sim.guest.window == 0


async def test_a_freeze_that_lands_after_its_time_out_is_thawed_and_tried_again(sim: Sim) -> None:
    def late(this: Sim) -> None:
        this.behaviour.freeze = None
        this.later(8, lambda: this.freeze_guest(60))
        raise ApiError(500, "InternalError", "context deadline exceeded (Client.Timeout exceeded)")

    sim.behaviour.freeze = late
    await sim.run()
    check_end(sim, "Completed")
    assert sim.guest.window == 2
    assert sim.guest.longest_hold < timedelta(seconds=10)
    assert any(e[1] == "QuiesceAmbiguous" for e in sim.recorder.events)


async def test_a_lost_answer_of_thaw_does_not_leave_the_guest_frozen(sim: Sim) -> None:
    sim.behaviour.lose_thaws = 5
    await sim.run()
    check_end(sim, "Completed")
    assert sim.guest.longest_hold < timedelta(seconds=30)


async def test_a_guest_that_changes_in_the_window_is_tried_again(sim: Sim) -> None:
    sim.behaviour.cut_after = 3

    def move() -> None:
        sim.api.set_status(VIRTUAL_MACHINE_INSTANCE, "db", SHOP, {"nodeName": "n2"})

    sim.later(1.5, move)
    await sim.run()
    check_end(sim, "Completed")
    assert sim.guest.window == 2
    assert any("node was n1, is n2" in e[2] for e in sim.recorder.events)


async def test_a_guest_that_is_replaced_in_the_window_is_not_waited_for(sim: Sim) -> None:
    sim.behaviour.cut_after = 3

    def restart() -> None:
        vmi = sim.api.find(VIRTUAL_MACHINE_INSTANCE, "db", SHOP)
        assert vmi is not None
        sim.api.remove(VIRTUAL_MACHINE_INSTANCE, "db", SHOP)
        sim.guest.frozen_until = None
        del vmi["metadata"]["uid"]
        sim.api.put(VIRTUAL_MACHINE_INSTANCE, vmi, SHOP)

    sim.later(1.5, restart)
    await sim.run()
    check_end(sim, "Completed")


async def test_snapshots_that_never_come_release_the_guest_and_fail(sim: Sim) -> None:
    sim.behaviour.never_cut = True
    await sim.run()
    assert_failed(sim, "SnapshotNotReady", "the array is busy", "3 attempts")
    assert sim.guest.window == 3
    assert sim.guest.longest_hold < timedelta(seconds=60)


async def test_snapshots_that_never_get_ready_fail(sim: Sim) -> None:
    sim.behaviour.never_ready = True
    await sim.run()
    assert_failed(sim, "SnapshotNotReady", "300 s")


async def test_a_pause_of_somebody_else_is_not_ended(sim: Sim) -> None:
    sim.lose_agent()

    def pause_first(this: Sim) -> None:
        this.guest.paused = True

    sim.behaviour.pause = pause_first
    await sim.run()
    assert sim.guest.paused
    sim.guest.paused = False
    assert_failed(sim, "VirtualMachinePaused", "unpause")


@pytest.mark.parametrize("method", ["freeze", "pause"])
async def test_a_window_that_somebody_else_ended_is_not_used(sim: Sim, method: str) -> None:
    if method == "pause":
        sim.lose_agent()
    sim.behaviour.cut_after = 3

    def meddle() -> None:
        sim.guest.paused = False
        sim.guest.frozen_until = None
        if method == "freeze":
            sim.behaviour.thaw_error = "fsfreeze is limited up to 10 seconds"

    sim.later(1.5, meddle)
    await sim.run()
    check_end(sim, "Completed")
    assert sim.guest.window == 2
