"""What decide does at the first looks."""

from dataclasses import replace

import pytest
from coeval.api.v1alpha1.vmbackup import (
    VMBackupStatus,
)
from coeval.controllers.vmbackup.decide import decide
from coeval.controllers.vmbackup.plan import (
    AddFinalizer,
)
from coeval.controllers.vmbackup.world import Rival
from coeval.domain.guest import GuestVolume

from tests.unit.controllers.worlds import (
    MACHINE,
    NOW,
    SETTINGS,
    VOLUMES,
    at,
    condition,
    kinds,
    of_backup,
    world,
)


def test_nothing_is_done_before_the_finalizer_is_there() -> None:
    plan = decide(of_backup(world(), finalizer=False), NOW, SETTINGS)
    assert kinds(plan) == [AddFinalizer]


def test_a_deletion_without_our_finalizer_is_left_alone() -> None:
    plan = decide(of_backup(world(), finalizer=False, deleting=True), NOW, SETTINGS)
    assert (plan.actions, plan.requeue) == ((), None)


def test_conditions_are_there_from_the_first_look() -> None:
    plan = decide(world(VMBackupStatus(), machine=None), NOW, SETTINGS)
    assert condition(plan, "Ready") == ("False", "VirtualMachineNotFound")
    assert condition(plan, "Reconciling") == ("True", "Pending")
    assert condition(plan, "Stalled") == ("False", "Progressing")
    assert (plan.status.observed_generation, plan.status.started_at) == (1, NOW)


@pytest.mark.parametrize(
    ("rival", "waits"),
    [
        (Rival("a", "u-0", NOW, started=False), True),
        (Rival("a", "u-2", NOW, started=False), False),
        (Rival("a", "u-2", at(-1), started=False), True),
        (Rival("a", "u-0", at(1), started=False), False),
        (Rival("a", "u-2", at(1), started=True), True),
    ],
)
def test_the_oldest_goes_first_but_never_beside_a_running_one(rival: Rival, waits: bool) -> None:
    plan = decide(world(rivals=(rival,)), NOW, SETTINGS)
    assert (plan.status.volumes is None) == waits
    if waits:
        assert condition(plan, "Ready") == ("False", "OtherBackupRunning")
        much_later = of_backup(world(rivals=(rival,)), status=plan.status)
        assert decide(much_later, at(3600), SETTINGS).status.outcome is None, "waiting is no failure"


def test_a_vm_with_another_volume_than_its_guest() -> None:
    more = replace(MACHINE, volumes=(*VOLUMES, GuestVolume("new", "persistentVolumeClaim", "db-new")))
    plan = decide(world(machine=more), NOW, SETTINGS)
    assert [v.name for v in plan.status.volumes or ()] == ["root", "data"]
    assert plan.status.excluded_volumes == ["new: in the VM's definition, but not in the running guest"]
