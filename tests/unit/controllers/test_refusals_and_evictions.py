"""What administrators do to a backup that runs: drains, quotas, webhooks, other people's releases."""

from collections.abc import Callable

import pytest
from coeval.api.v1alpha1.vmbackup import CopyStatus, StepState
from coeval.controllers.vmbackup.decide import decide
from coeval.kube.kinds import CONFIG_MAP, JOB, VIRTUAL_MACHINE
from coeval.kube.port import ApiError, Forbidden

from tests.unit.controllers.asserts import assert_failed
from tests.unit.controllers.scene import SHOP
from tests.unit.controllers.sim import Sim, leaks
from tests.unit.controllers.sim_world import HOME
from tests.unit.controllers.test_crash_everywhere import check_end
from tests.unit.controllers.worlds import (
    DATA1,
    READY,
    ROOT1,
    SETTINGS,
    at,
    condition,
    mover,
    pod,
    transferring,
    twin,
    world,
)
from tests.unit.fakeapi import Call, Moment

RUNNING = DATA1.model_copy(update={"copy_": CopyStatus(state=StepState.RUNNING)})
LATE = at(7200)


@pytest.fixture
def sim() -> Sim:
    return Sim()


def refusing(refused: Callable[[Call], bool], error: ApiError) -> Callable[[Moment, Call], None]:
    def hook(moment: Moment, call: Call) -> None:
        if moment == "before" and refused(call):
            raise error

    return hook


@pytest.mark.parametrize("pods", [(), (pod(phase="Running", deleting=True),)], ids=["none", "terminating"])
def test_an_evicted_mover_s_age_does_not_fail_it(pods: tuple[object, ...]) -> None:
    seen = world(
        transferring(ROOT1, RUNNING), snapshots=READY, jobs=mover("copy", "data", pods=pods), **twin()
    )
    plan = decide(seen, LATE, SETTINGS)
    assert plan.status.outcome is None
    assert "waiting for" in next(c.message for c in plan.status.conditions or () if c.type == "Reconciling")
    assert plan.requeue is not None


def test_a_job_that_may_make_no_pod_fails_with_the_quota_s_words() -> None:
    jobs = mover("copy", "data", trouble="FailedCreate: exceeded quota: pods")
    seen = world(transferring(ROOT1, RUNNING), snapshots=READY, jobs=jobs, **twin())
    assert decide(seen, at(60), SETTINGS).status.outcome is None
    outcome = decide(seen, LATE, SETTINGS).status.outcome
    assert outcome is not None
    assert outcome.reason == "MoverNotStarted"
    assert "exceeded quota" in (outcome.message or "")


def test_a_second_try_that_never_starts_fails_too() -> None:
    said = {"error": {"reason": "Internal", "message": "a bug"}}
    pods = (pod(result=said), pod(name="q", phase="Pending", created=at(10), waiting="no node"))
    seen = world(
        transferring(ROOT1, RUNNING), snapshots=READY, jobs=mover("copy", "data", pods=pods), **twin()
    )
    plan = decide(seen, LATE, SETTINGS)
    assert plan.status.outcome is not None
    assert plan.status.outcome.reason == "MoverNotStarted"
    assert condition(plan, "Ready")[1] == "MoverNotStarted"


async def test_a_step_of_a_failed_backup_does_not_look_as_if_it_ran(sim: Sim) -> None:
    sim.behaviour.errors["copy"] = {"reason": "Internal", "message": "a bug"}
    await sim.run()
    assert "Running" not in [(v.get("copy") or {}).get("state") for v in sim.status()["volumes"]]


async def test_a_webhook_s_prose_is_no_reason(sim: Sim) -> None:
    sim.api.hook = refusing(
        lambda call: call.verb == "create" and call.kind is JOB,
        Forbidden(403, "images must come from the registry of ours", "denied by the image policy"),
    )
    await sim.run(seconds=4000)
    sim.api.hook = None
    ready = sim.condition("Ready")
    assert (sim.status()["phase"], ready["reason"]) == ("Failed", "Forbidden")
    assert "denied by the image policy" in ready["message"]
    assert "partial copies in the repository were not removed" in ready["message"]
    assert list(leaks(sim)) == []


async def test_a_vm_that_is_gone_before_its_definition_was_kept(sim: Sim) -> None:
    await sim.run(until=lambda: "pointInTime" in sim.status())
    for found in sim.api.all(CONFIG_MAP):
        sim.api.remove(CONFIG_MAP, found["metadata"]["name"], HOME)
    sim.api.remove(VIRTUAL_MACHINE, "db", SHOP)
    await sim.run(seconds=4000)
    assert_failed(sim, "VirtualMachineNotFound", "new backup")


async def test_a_pause_that_somebody_else_ended_proves_nothing(sim: Sim) -> None:
    """Our release got no answer, and the next one finds the guest running: whose work was that?"""
    sim.lose_agent()
    releases = 0

    def hook(moment: Moment, call: Call) -> None:
        nonlocal releases
        if not call.name.endswith("/unpause"):
            return
        releases += moment == "before"
        if moment == "before" and releases == 1:
            sim.guest.paused = False  # theirs, a moment before ours
            raise ApiError(0, "Timeout", "no answer")

    sim.api.hook = hook
    await sim.run()
    check_end(sim, "Completed")
    assert releases > 2
    assert sim.status()["quiesce"]["attempts"] == 2
    assert not sim.status()["quiesce"].get("foundReleased")
