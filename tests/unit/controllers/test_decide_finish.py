"""What decide does at the end."""

from typing import Any

import pytest
from coeval.api.v1alpha1.moment import Consistency, ConsistencyStatus, QuiesceStatus
from coeval.api.v1alpha1.vmbackup import CopyStatus, OutcomeStatus, Phase, Result, StepState, VMBackupStatus
from coeval.controllers.vmbackup.decide import decide
from coeval.controllers.vmbackup.decide.finish import AS_SOURCE, BOUND_CONTENT
from coeval.controllers.vmbackup.plan import (
    Delete,
    DropFinalizer,
    Release,
    RemoveFinalizer,
    RunMover,
    Thing,
    Verb,
)
from coeval.controllers.vmbackup.world import Stage, TwinClaim
from coeval.domain.naming import child
from coeval.domain.storage import Content

from tests.unit.controllers.worlds import (
    DATA1,
    NOW,
    READY,
    ROOT1,
    SETTINGS,
    TWIN,
    UID,
    at,
    condition,
    kinds,
    mover,
    of_backup,
    snapshots,
    the,
    transferring,
    twin,
    world,
)


def ending(result: Result = Result.FAILED, **fields: Any) -> VMBackupStatus:
    outcome = OutcomeStatus(result=result, reason="R", message="m", **fields)
    return transferring(ROOT1, DATA1).model_copy(update={"outcome": outcome})


def test_the_end_is_never_declared_on_a_look_that_was_not_for_it() -> None:
    """A look of the preflight does not see our namespace: nothing seen there is nothing known."""
    cancelled = of_backup(world(), spec=world().backup.spec.model_copy(update={"cancel": True}))
    plan = decide(cancelled, NOW, SETTINGS)
    assert plan.status.phase is Phase.CLEANING_UP
    assert plan.requeue == 0.0


def test_order_of_the_clean_up() -> None:
    everything: dict[str, Any] = {
        "jobs": mover("copy", "data"),
        "twin_claims": {TWIN: TwinClaim(TWIN, "pu", NOW, bound=True)},
        "snapshots": READY,
        "manifests": {},
        **twin(finalizers=(AS_SOURCE,)),
    }
    removed: list[Thing] = []
    for key in ("jobs", "twin_claims", "twins", "twin_contents", "snapshots"):
        plan = decide(world(ending(), **everything), at(60), SETTINGS)
        assert plan.status.phase is Phase.CLEANING_UP
        removed += [a.thing for a in plan.actions if isinstance(a, Delete)]
        everything[key] = {}
    assert removed == [Thing.JOB, Thing.CLAIM, Thing.SNAPSHOT, Thing.CONTENT, Thing.SNAPSHOT, Thing.SNAPSHOT]
    assert kinds(decide(world(ending(), **everything), at(60), SETTINGS)) == []
    assert decide(world(ending(), **everything), at(60), SETTINGS).status.phase is Phase.FAILED


def test_a_foreign_finalizer_is_taken_off_our_own_twin_only_when_nothing_reads_it() -> None:
    stuck = twin(finalizers=(AS_SOURCE, "bound"), deleted_at=NOW)
    plan = decide(world(ending(), **stuck), at(60), SETTINGS)
    assert kinds(plan) == [DropFinalizer]
    claims = {TWIN: TwinClaim(TWIN, "pu", NOW, bound=False, deleting=True)}
    assert decide(world(ending(), twin_claims=claims, **stuck), at(60), SETTINGS).actions == ()


def test_a_content_is_not_removed_within_moments_of_its_creation() -> None:
    fresh = {"twin_contents": {TWIN: Content(TWIN, "cu", at(59))}}
    assert decide(world(ending(), **fresh), at(60), SETTINGS).actions == ()
    assert kinds(decide(world(ending(), **fresh), at(70), SETTINGS)) == [Delete]


def test_a_content_that_its_controller_forgot_is_let_go() -> None:
    content = Content(TWIN, "cu", NOW, deleted_at=at(5), finalizers=(BOUND_CONTENT,))
    forgotten = world(ending(), twin_contents={TWIN: content})
    assert decide(forgotten, at(15), SETTINGS).actions == ()
    plan = decide(forgotten, at(16), SETTINGS)
    assert plan.actions == (DropFinalizer(Thing.CONTENT, TWIN, None, "cu", BOUND_CONTENT),)
    still_there = twin(deleted_at=at(5))["twins"]
    assert (
        decide(world(ending(), twins=still_there, twin_contents={TWIN: content}), at(16), SETTINGS).actions
        == ()
    )


def test_a_driver_that_does_not_finish_a_removal_does_not_hold_the_end_for_ever() -> None:
    going = world(ending(), snapshots=snapshots(deleted_at=NOW))
    assert decide(going, at(119), SETTINGS).status.phase is Phase.CLEANING_UP
    plan = decide(going, at(121), SETTINGS)
    assert plan.status.phase is Phase.FAILED
    ready = next(c for c in plan.status.conditions or () if c.type == "Ready")
    assert child(UID, "t1", "root", 1) in ready.message
    asked = world(ending(), snapshots=snapshots())
    assert kinds(decide(asked, at(1000), SETTINGS)) == [Delete, Delete], (
        "what was not asked for is not let go"
    )


def test_parts_are_forgotten_when_there_may_be_some() -> None:
    begun = ending().model_copy(
        update={"volumes": [ROOT1, DATA1.model_copy(update={"copy_": CopyStatus(state=StepState.RUNNING)})]}
    )
    run = the(decide(world(begun), at(60), SETTINGS), RunMover)
    assert (run.verb, run.parts_only, run.snapshots) == (Verb.FORGET, False, ())
    assert decide(world(ending()), at(60), SETTINGS).status.phase is Phase.FAILED


def test_the_guest_is_released_before_the_end_is_declared() -> None:
    status = ending().model_copy(
        update={
            "quiesce": QuiesceStatus(
                method="GuestFreeze", intent_at=NOW, returned_at=NOW, answer="Ok", instance_uid="i-1"
            )
        }
    )
    plan = decide(world(status), at(60), SETTINGS)
    assert kinds(plan) == [Release]
    assert plan.status.phase is Phase.CLEANING_UP


def test_only_a_completed_backup_says_what_may_be_relied_on() -> None:
    achieved = ConsistencyStatus(
        required=Consistency.AUTO, achieved=Consistency.FILESYSTEM, method="GuestFreeze"
    )
    for result in Result:
        status = ending(result).model_copy(update={"consistency": achieved})
        running = decide(world(status, jobs=mover("copy", "data")), at(60), SETTINGS)
        assert running.status.restorable is None, "not before the end"
        restorable = decide(world(status), at(60), SETTINGS).status.restorable
        if result is Result.COMPLETED:
            assert restorable is not None
            assert (restorable.point_in_time, restorable.consistency) == (NOW, Consistency.FILESYSTEM)
        else:
            assert restorable is None


@pytest.mark.parametrize(
    ("result", "ready", "stalled"),
    [
        (Result.COMPLETED, "True", "False"),
        (Result.FAILED, "False", "True"),
        (Result.CANCELLED, "False", "True"),
    ],
)
def test_conditions_of_an_end(result: Result, ready: str, stalled: str) -> None:
    plan = decide(world(ending(result)), at(60), SETTINGS)
    assert plan.status.phase == result.value
    assert condition(plan, "Ready") == (ready, "R")
    assert condition(plan, "Stalled")[0] == stalled
    assert condition(plan, "Reconciling")[0] == "False"
    assert (plan.status.restorable is not None) == (result is Result.COMPLETED)
    after = of_backup(world(), status=plan.status)
    assert after.backup.stage is Stage.TERMINAL
    end = decide(after, at(61), SETTINGS)
    assert kinds(end) == [RemoveFinalizer]
    assert end.status == plan.status
