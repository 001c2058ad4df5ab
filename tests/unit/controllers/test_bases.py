"""Which earlier backup is started from, which snapshots are kept for the next, and which that frees."""

from dataclasses import replace
from typing import Any

import pytest
from coeval.api.v1alpha1.vmbackup import (
    BaseStatus,
    ChangedBlocksSpec,
    KeepBase,
    OutcomeStatus,
    Result,
    SnapshotStatus,
    VMBackupStatus,
    VolumeStatus,
)
from coeval.controllers.vmbackup.decide import bases, decide
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.plan import Delete, KeepSnapshot
from coeval.controllers.vmbackup.world import Earlier, World
from coeval.domain.storage import Content, MetadataService, Snapshot

from tests.unit.controllers.worlds import (
    DATA,
    DATA_DONE,
    NOW,
    READY,
    ROOT_DONE,
    SETTINGS,
    at,
    of_backup,
    transferring,
    world,
)

GIB = 1 << 30
T1 = SnapshotStatus(
    snapshot="vs", uid="vs-uid", content="vsc", handle="h", restore_size=GIB, kept_as_base=True
)
BEFORE = DATA.model_copy(update={"t1": T1})
ALIVE = Snapshot("vs", "vs-uid", NOW, ready=True, content="vsc", restore_size=GIB)


def earlier(name: str, when: float, *volumes: VolumeStatus) -> Earlier:
    return Earlier(name, at(when), f"s-{name}", volumes)


def chosen(*found: Earlier, snapshots: dict[str, Snapshot] | None = None) -> BaseStatus | None:
    seen = world(earlier=found, base_snapshots={"vs": ALIVE} if snapshots is None else snapshots)
    return bases.choose(seen, DATA)


def test_the_newest_is_started_from() -> None:
    first, second = earlier("first", -20, BEFORE), earlier("second", -10, BEFORE)
    expected = BaseStatus(backup="second", snapshot_id="s-second", handle="h", restore_size=GIB)
    assert chosen(first, second) == chosen(second, first) == expected


def test_before_a_newer_one_goes_one_that_kept_its_snapshot() -> None:
    bare = BEFORE.model_copy(update={"t1": T1.model_copy(update={"kept_as_base": None})})
    found = chosen(earlier("kept", -20, BEFORE), earlier("newer", -10, bare))
    assert found is not None and (found.backup, found.handle) == ("kept", "h")
    found = chosen(earlier("kept", -20, bare), earlier("newer", -10, bare))
    assert found is not None and (found.backup, found.handle) == ("newer", None)


@pytest.mark.parametrize(
    "now",
    [
        None,
        replace(ALIVE, uid="another"),
        replace(ALIVE, ready=False),
        replace(ALIVE, content="another"),
        replace(ALIVE, deleted_at=NOW),
    ],
)
def test_a_snapshot_in_doubt_is_not_counted_from(now: Snapshot | None) -> None:
    found = chosen(earlier("first", -20, BEFORE), snapshots={"vs": now} if now else {})
    assert found == BaseStatus(backup="first", snapshot_id="s-first")


@pytest.mark.parametrize(
    "field",
    [{"claim_uid": "x"}, {"persistent_volume": "x"}, {"volume_handle": "x"}, {"name": "x"}, {"driver": "x"}],
)
def test_another_volume_is_no_base(field: dict[str, str]) -> None:
    assert chosen(earlier("first", -20, BEFORE.model_copy(update=field))) is None


def ending(result: Result = Result.COMPLETED, **fields: Any) -> World:
    """A backup past its outcome, which keeps both its snapshots."""
    volumes = [
        v.model_copy(update={"t1": v.t1 and v.t1.model_copy(update={"kept_as_base": True})})
        for v in (ROOT_DONE, DATA_DONE)
    ]
    outcome = OutcomeStatus(result=result, reason="R", decided_at=NOW, forgotten="removed")
    status: VMBackupStatus = transferring(*volumes).model_copy(update={"outcome": outcome})
    return world(status, **({"snapshots": READY} | fields))


def removed(seen: World) -> set[str]:
    return {a.name for a in decide(seen, at(30), SETTINGS).actions if isinstance(a, Delete)}


def test_what_is_kept_stays_and_frees_what_the_earlier_ones_kept() -> None:
    old = earlier(
        "first",
        -20,
        BEFORE,
        BEFORE.model_copy(
            update={"name": "gone", "t1": T1.model_copy(update={"snapshot": "other", "uid": "other"})}
        ),
    )
    there = {"vs": ALIVE, "other": replace(ALIVE, name="other", uid="other")}
    assert removed(ending(earlier=(old,), base_snapshots=there)) == {"vs"}


@pytest.mark.parametrize("gone", [{"deleted_at": at(20)}, {"ready": False}])
def test_what_is_about_to_go_itself_frees_nothing(gone: dict[str, Any]) -> None:
    ours = {name: replace(snapshot, **gone) for name, snapshot in READY.items()}
    old = earlier("first", -20, BEFORE)
    assert removed(ending(snapshots=ours, earlier=(old,), base_snapshots={"vs": ALIVE})) == set()


def test_a_backup_that_fails_keeps_nothing_and_frees_nothing() -> None:
    old = earlier("first", -20, BEFORE)
    assert removed(ending(Result.FAILED, earlier=(old,), base_snapshots={"vs": ALIVE})) == set(READY)


def test_a_later_backup_is_not_touched() -> None:
    later = earlier("later", 20, BEFORE)
    assert removed(ending(earlier=(later,), base_snapshots={"vs": ALIVE})) == set()


def test_what_is_kept_goes_with_its_storage_whatever_its_class_says() -> None:
    name = next(iter(READY))
    bound = {name: replace(READY[name], content="vsc")}
    seen = ending(snapshots=bound, contents={"vsc": Content("vsc", "u", NOW, retains=True)})
    plan = decide(seen, at(30), SETTINGS)
    assert plan.actions == (KeepSnapshot(name, f"uid-{name}"),) and plan.requeue == 1
    assert plan.status.completed_at is None
    done = ending(snapshots=bound, contents={"vsc": Content("vsc", "u", NOW)})
    assert decide(done, at(30), SETTINGS).status.phase.value == "Completed"


@pytest.mark.parametrize(
    ("policy", "services", "kept"),
    [
        (KeepBase.AUTO, {"one": MetadataService("a:1", "b", "c")}, True),
        (KeepBase.AUTO, {}, False),
        (KeepBase.AUTO, {"one": "no certificate"}, False),
        (KeepBase.NEVER, {"one": MetadataService("a:1", "b", "c")}, False),
    ],
)
def test_kept_is_what_the_driver_can_be_asked_about(
    policy: KeepBase, services: dict[str, MetadataService | str], kept: bool
) -> None:
    seen = world(transferring(ROOT_DONE, DATA_DONE), metadata_services=services)
    spec = seen.backup.spec.model_copy(update={"changed_blocks": ChangedBlocksSpec(keep_base=policy)})
    draft = Draft(of_backup(seen, spec=spec), NOW, SETTINGS)
    bases.keep(draft)
    assert [bool(v.t1 and v.t1.kept_as_base) for v in draft.volumes] == [kept, kept]
