"""What decide does around T1; the whole way is in test_whole_run."""

from dataclasses import replace
from typing import Any

import pytest
from coeval.api.v1alpha1.moment import QuiesceStatus, Window
from coeval.api.v1alpha1.vmbackup import Result, VMBackupStatus
from coeval.controllers.vmbackup.decide import decide, record
from coeval.controllers.vmbackup.plan import (
    Delete,
    Quiesce,
    Quiesced,
    Refused,
    Release,
    Released,
    TakeSnapshot,
)
from coeval.domain.guest import Answer

from tests.unit.controllers.worlds import (
    CLAIMS,
    DATA,
    INSTANCE,
    MACHINE,
    NOW,
    ROOT,
    SETTINGS,
    VOLUMES,
    at,
    condition,
    kinds,
    of_backup,
    snapshots,
    the,
    world,
)


def held(**quiesce: Any) -> VMBackupStatus:
    """Inside a window that began at NOW."""
    began: dict[str, Any] = {
        "method": "GuestFreeze",
        "intent_at": NOW,
        "returned_at": at(0.4),
        "answer": "Ok",
        "attempts": 1,
        "instance_uid": "i-1",
    }
    ready = decide(
        of_backup(world(), status=VMBackupStatus(started_at=NOW, volumes=[ROOT, DATA])), NOW, SETTINGS
    ).status
    assert ready.consistency is not None
    window = Window(quiesce_sent=NOW, quiesce_returned=at(0.4), safety_timer_seconds=60)
    return ready.model_copy(
        update={
            "quiesce": QuiesceStatus(**(began | quiesce)),
            "consistency": ready.consistency.model_copy(update={"window": window}),
        }
    )


def test_the_intent_is_in_the_status_that_is_written_before_the_call() -> None:
    status = VMBackupStatus(started_at=NOW, volumes=[ROOT, DATA])
    plan = decide(world(status), NOW, SETTINGS)
    assert the(plan, Quiesce).timer == 60
    quiesce = plan.status.quiesce
    assert quiesce is not None
    assert (quiesce.intent_at, quiesce.method, quiesce.returned_at) == (NOW, "GuestFreeze", None)
    assert condition(plan, "Thawed") == ("False", "GuestFreeze")


def test_windows_has_a_shorter_timer() -> None:
    status = VMBackupStatus(started_at=NOW, volumes=[ROOT, DATA])
    plan = decide(world(status, instance=replace(INSTANCE, windows=True)), NOW, SETTINGS)
    assert the(plan, Quiesce).timer == 8


def test_an_intent_without_a_return_is_released_not_used() -> None:
    plan = decide(world(held(returned_at=None, answer=None)), at(1), SETTINGS)
    assert kinds(plan) == [Release]
    assert plan.status.quiesce is not None
    assert plan.status.quiesce.abandoned == "QuiesceAmbiguous"


def test_all_snapshots_are_asked_for_at_once_and_the_guest_is_not_released() -> None:
    plan = decide(world(held()), at(1), SETTINGS)
    assert kinds(plan) == [TakeSnapshot, TakeSnapshot]
    assert plan.requeue == SETTINGS.window_poll


def test_the_guest_is_held_until_the_last_snapshot_exists() -> None:
    some = snapshots()
    first = next(iter(some))
    some[first] = replace(some[first], creation_time=NOW)
    plan = decide(world(held(), snapshots=some), at(1), SETTINGS)
    assert plan.actions == ()


def test_what_was_seen_is_in_the_status_that_is_written_before_the_release() -> None:
    plan = decide(world(held(), snapshots=snapshots(creation_time=NOW)), at(2), SETTINGS)
    assert kinds(plan) == [Release]
    assert plan.status.consistency is not None
    assert plan.status.consistency.window is not None
    assert plan.status.consistency.window.last_creation_time_seen == at(2)
    assert plan.status.point_in_time is None


def test_an_error_of_the_driver_may_heal_for_a_while_or_beside_a_snapshot_that_is_only_slow() -> None:
    failing = snapshots(error="array busy")
    assert decide(world(held(), snapshots=failing), at(19), SETTINGS).status.quiesce == held().quiesce
    slow = next(iter(failing))
    failing[slow] = replace(failing[slow], error=None)
    assert decide(world(held(), snapshots=failing), at(40), SETTINGS).status.quiesce == held().quiesce


def test_a_snapshot_that_is_being_deleted_does_not_count() -> None:
    plan = decide(world(held(), snapshots=snapshots(creation_time=NOW, deleted_at=NOW)), at(2), SETTINGS)
    assert plan.actions == ()


@pytest.mark.parametrize(
    ("fields", "now", "reason"),
    [
        ({"snapshots": snapshots()}, 55, "SnapshotNotReady"),
        ({"snapshots": snapshots(error="array busy")}, 21, "SnapshotNotReady"),
        ({"instance": None}, 1, "GuestChanged"),
        ({"instance": replace(INSTANCE, uid="i-2")}, 1, "GuestChanged"),
    ],
)
def test_the_window_is_given_up(fields: dict[str, Any], now: float, reason: str) -> None:
    plan = decide(world(held(), **fields), at(now), SETTINGS)
    assert plan.status.quiesce is not None
    assert plan.status.quiesce.abandoned == reason
    still_there = fields.get("instance", INSTANCE)
    gone = still_there is None or still_there.uid != "i-1"
    assert kinds(plan) == ([] if gone else [Release])


def test_a_refusal_of_the_api_server_is_not_worth_holding_the_guest_for() -> None:
    status = record(held(), [Refused("TakeSnapshot x", "Forbidden", "exceeded quota")], at(1))
    plan = decide(world(status), at(1), SETTINGS)
    assert kinds(plan) == [Release]
    assert plan.status.quiesce is not None
    assert plan.status.quiesce.abandoned == "Forbidden"
    assert "exceeded quota" in (plan.status.quiesce.message or "")


@pytest.mark.parametrize("how", ["cancel", "delete", "deadline"])
def test_every_way_out_releases_the_guest(how: str) -> None:
    seen = world(held())
    if how == "cancel":
        seen = of_backup(seen, spec=seen.backup.spec.model_copy(update={"cancel": True}))
    elif how == "delete":
        seen = of_backup(seen, deleting=True)
    else:
        seen = of_backup(seen, spec=seen.backup.spec.model_copy(update={"deadline": "1s"}))
    plan = decide(seen, at(2), SETTINGS)
    assert kinds(plan) == [Release]
    assert plan.status.outcome is not None
    assert plan.status.outcome.result is (Result.FAILED if how == "deadline" else Result.CANCELLED)


def released(answer: Answer = Answer.OK, *, seconds: float = 2.1) -> VMBackupStatus:
    seen = decide(world(held(), snapshots=snapshots(creation_time=NOW)), at(2), SETTINGS).status
    return record(seen, [Released(answer, at(seconds), at(seconds + 0.3))], at(seconds + 0.3))


def test_a_proven_moment_goes_on_while_the_guest_is_watched() -> None:
    seen = snapshots(creation_time=NOW)
    plan = decide(world(released(), snapshots=seen), at(2.5), SETTINGS)
    assert plan.status.point_in_time == NOW
    assert condition(plan, "PointInTime") == ("True", "GuestFreeze")
    assert condition(plan, "Thawed")[0] == "False"
    assert plan.status.quiesce is not None
    assert plan.status.quiesce.clear_polls == 1
    later = of_backup(world(snapshots=seen), status=plan.status)
    soon = decide(later, at(5), SETTINGS)
    assert condition(soon, "Thawed")[0] == "False"
    end = decide(later, at(8.6), SETTINGS)
    assert condition(end, "Thawed") == ("True", "Released")


def test_a_guest_that_still_reads_frozen_is_released_again() -> None:
    status = decide(world(released(), snapshots=snapshots(creation_time=NOW)), at(2.5), SETTINGS).status
    frozen = world(status, instance=replace(INSTANCE, frozen=True), snapshots=snapshots(creation_time=NOW))
    assert Release not in kinds(decide(frozen, at(6), SETTINGS)), "the status lags by seconds"
    plan = decide(frozen, at(8.2), SETTINGS)
    assert Release in kinds(plan)
    assert plan.status.quiesce is not None
    assert plan.status.quiesce.clear_polls == 0


@pytest.mark.parametrize(
    "change",
    [
        {"instance": replace(INSTANCE, node="n2")},
        {"instance": replace(INSTANCE, pods=("p", "q"))},
        {"instance": replace(INSTANCE, migration="m")},
        {"instance": replace(INSTANCE, migrating=True)},
        {"instance": replace(INSTANCE, agent_since="later")},
        {"instance": replace(INSTANCE, volumes=VOLUMES[:1])},
        {"machine": replace(MACHINE, locks=("the VirtualMachineSnapshot s",))},
        {"claims": CLAIMS | {"db-data": replace(CLAIMS["db-data"], volume="pv-other")}},
        {"claims": CLAIMS | {"db-data": replace(CLAIMS["db-data"], uid="other")}},
    ],
)
def test_evidence_that_changed_breaks_the_moment(change: dict[str, Any]) -> None:
    plan = decide(
        world(released(), **({"snapshots": snapshots(creation_time=NOW)} | change)), at(2.5), SETTINGS
    )
    assert plan.status.point_in_time is None
    assert plan.status.quiesce is not None
    assert plan.status.quiesce.abandoned == "GuestChanged"


def test_a_release_that_came_too_late_breaks_the_moment() -> None:
    plan = decide(world(released(seconds=55.2), snapshots=snapshots(creation_time=NOW)), at(56), SETTINGS)
    assert plan.status.quiesce is not None
    assert plan.status.quiesce.abandoned == "WindowExceeded"


def test_an_ambiguous_freeze_is_released_until_it_cannot_come_any_more() -> None:
    status = record(
        held(returned_at=None, answer=None),
        [Quiesced(Answer.AMBIGUOUS, NOW, at(10), "QuiesceAmbiguous", "no answer")],
        at(10),
    )
    status = record(status, [Released(Answer.OK, at(10), at(10.3))], at(10.3))
    sent = 10.0
    for second in range(11, 70):
        plan = decide(world(status), at(second), SETTINGS)
        assert plan.status.quiesce is not None
        assert plan.status.quiesce.release_seen_at is None
        if kinds(plan) == [Release]:
            assert second - sent >= SETTINGS.release_repeat
            sent = second
            status = record(plan.status, [Released(Answer.OK, at(second), at(second))], at(second))
    # The timer of 60 s has fired, and what a late answer may add has passed: now two polls count.
    for second, seen in ((70, False), (76, True)):
        plan = decide(world(status), at(second), SETTINGS)
        assert plan.status.quiesce is not None
        assert (plan.status.quiesce.release_seen_at is not None) == seen
        status = plan.status


def test_the_snapshots_of_a_given_up_window_are_removed_and_the_next_begins() -> None:
    status = held(abandoned="GuestChanged", message="moved", release_seen_at=at(10))
    plan = decide(world(status, snapshots=snapshots(creation_time=NOW)), at(11), SETTINGS)
    assert kinds(plan) == [Delete, Delete]
    assert plan.status.quiesce == QuiesceStatus(attempts=1)
    last = held(abandoned="GuestChanged", message="moved", release_seen_at=at(10), attempts=3)
    end = decide(world(last), at(11), SETTINGS)
    assert end.status.outcome is not None
    assert end.status.outcome.reason == "GuestChanged"
