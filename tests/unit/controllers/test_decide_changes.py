"""Whom a mover asks what changed, and what makes it read everything."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coeval.api.v1alpha1.vmbackup import (
    BaseStatus,
    CopyStatus,
    FallbackStatus,
    ImagesSpec,
    StepState,
    Strategy,
    VolumeStatus,
)
from coeval.controllers.vmbackup.decide import decide
from coeval.controllers.vmbackup.decide.changes import Doubt
from coeval.controllers.vmbackup.plan import Ask, AskedThrough, MakeTwin, Plan, RunMover, TakeSnapshot, Verb
from coeval.controllers.vmbackup.world import TwinClaim, World
from coeval.domain.naming import child
from coeval.domain.storage import Claim, Content, MetadataService, Snapshot

from tests.unit.controllers.worlds import (
    CLAIMS,
    DATA1,
    DATA_DONE,
    NOW,
    READY,
    ROOT1,
    ROOT_COPIED,
    ROOT_DONE,
    SETTINGS,
    UID,
    at,
    condition,
    kinds,
    mover,
    of_backup,
    pod,
    the,
    transferring,
    world,
)

SERVICE = MetadataService("cbt.example.com:443", "cbt", "-----BEGIN CERTIFICATE-----\n")
ASKED = {"one": SERVICE}
GIB = 1 << 30
BASE = BaseStatus(backup="earlier", snapshot_id="s0", handle="h0", restore_size=GIB)


def exposed(*volumes: VolumeStatus) -> dict[str, Any]:
    """Every twin of these volumes is ready, with a claim."""
    names = [child(UID, f"{m}-twin", v.name) for v in volumes for m in ("t1", "t2")]
    return {
        "twins": {n: Snapshot(n, f"u-{n}", NOW, ready=True) for n in names},
        "twin_contents": {n: Content(n, f"c-{n}", NOW, ref=("coeval-system", n, f"u-{n}")) for n in names},
        "twin_claims": {n: TwinClaim(n, f"p-{n}", NOW, bound=True) for n in names},
    }


def seen(root: VolumeStatus, data: VolumeStatus, **fields: Any) -> World:
    found = {"snapshots": READY, "metadata_services": ASKED, **exposed(root, data)}
    return world(transferring(root, data), **(found | fields))


def direct(base: BaseStatus | None = BASE, **fields: Any) -> RunMover:
    """The mover of the direct volume."""
    data = DATA1.model_copy(update={"base": base})
    started: RunMover = the(decide(seen(ROOT1, data, **fields), at(10), SETTINGS), RunMover)
    return started


def rewind(**fields: Any) -> tuple[RunMover, FallbackStatus | None]:
    """The mover that rewinds, and the reason on record why it is not told what changed."""
    plan = decide(seen(ROOT_COPIED, DATA_DONE, **fields), at(10), SETTINGS)
    root = (plan.status.volumes or [])[0]
    return the(plan, RunMover), root.reconcile.fallback if root.reconcile else None


def image(strategy: Strategy, base: BaseStatus | None = BASE, **fields: Any) -> Plan:
    """What comes next for an image whose direct volume is done."""
    root = ROOT1.model_copy(update={"base": base})
    here = seen(root, DATA_DONE, **fields)
    spec = here.backup.spec.model_copy(update={"images": ImagesSpec(strategy=strategy)})
    return decide(of_backup(here, spec=spec), at(10), SETTINGS)


def test_a_direct_volume_is_read_where_it_changed_since_the_earlier_backup() -> None:
    found = direct()
    twin = child(UID, "t1-twin", "data")
    assert found.parent == "s0"
    assert found.ask == Ask(AskedThrough.DEVICE, SERVICE, twin, "h0")


@pytest.mark.parametrize(
    "base",
    [None, BASE.model_copy(update={"handle": None}), BASE.model_copy(update={"restore_size": 2 * GIB})],
)
def test_without_a_snapshot_to_count_from_what_is_allocated_is_read(base: BaseStatus | None) -> None:
    found = direct(base)
    assert found.ask is not None and found.ask.base_handle is None
    assert found.parent == (None if base is None else "s0")


def test_a_driver_that_tells_nothing_is_not_asked() -> None:
    found = direct(metadata_services={})
    assert (found.parent, found.ask) == ("s0", None)


def test_the_rewind_asks_what_changed_between_the_two_moments() -> None:
    found, fallback = rewind()
    assert found.verb is Verb.RETIME and fallback is None
    later = child(UID, "t2-twin", "root")
    assert found.ask == Ask(AskedThrough.EXTENTS, SERVICE, later, f"h-{child(UID, 't1', 'root', 1)}")
    assert found.record_extents


def with_claim(**fields: Any) -> dict[str, Claim]:
    return CLAIMS | {"db-root": replace(CLAIMS["db-root"], **fields)}


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("NoMetadataService", {"metadata_services": {}}),
        ("MetadataServiceInvalid", {"metadata_services": {"one": "no certificate"}}),
        ("ResizePending", {"claims": with_claim(resizing=True)}),
        ("DataJournaled", {"claims": with_claim(mount_options=("noatime,data=journal",))}),
        ("VolumeReplaced", {"claims": with_claim(uid="another")}),
        ("VolumeReplaced", {"claims": {}}),
    ],
)
def test_any_doubt_about_the_extents_means_that_the_rewind_compares(
    reason: str, fields: dict[str, Any]
) -> None:
    found, fallback = rewind(**fields)
    assert found.ask is None
    assert fallback is not None and fallback.reason == reason


def test_a_volume_that_grew_between_the_moments_is_compared() -> None:
    t2 = ROOT_COPIED.t2
    assert t2 is not None
    grown = ROOT_COPIED.model_copy(update={"t2": t2.model_copy(update={"restore_size": 2 * GIB})})
    plan = decide(seen(grown, DATA_DONE), at(10), SETTINGS)
    assert the(plan, RunMover).ask is None
    reconcile = (plan.status.volumes or [])[0].reconcile
    assert reconcile is not None and reconcile.fallback is not None
    assert reconcile.fallback.reason == "SizeDiffers"


def test_an_image_is_rewound_unless_told_otherwise() -> None:
    plan = image(Strategy.REWIND)
    assert kinds(plan) == [TakeSnapshot]
    assert (plan.status.volumes or [])[0].strategy is Strategy.REWIND


def test_rolled_forward_it_is_copied_from_t1_by_what_changed_since_the_earlier_backup() -> None:
    plan = image(Strategy.ROLL_FORWARD)
    found: RunMover = the(plan, RunMover)
    assert (found.verb, found.interim, found.parent, found.record_extents) == (Verb.COPY, False, "s0", True)
    assert found.ask == Ask(AskedThrough.EXTENTS, SERVICE, child(UID, "t1-twin", "root"), "h0")


def test_rolled_forward_without_a_base_everything_is_read_and_the_status_says_why() -> None:
    plan = image(Strategy.ROLL_FORWARD, None)
    found: RunMover = the(plan, RunMover)
    assert (found.parent, found.ask, found.interim) == (None, None, False)
    copy = (plan.status.volumes or [])[0].copy_
    assert copy is not None and copy.fallback is not None and copy.fallback.reason == "NoEarlierBackup"


def test_direct_reads_all_of_t1_and_compares() -> None:
    found: RunMover = the(image(Strategy.DIRECT), RunMover)
    assert (found.parent, found.ask, found.interim) == ("s0", None, False)


@pytest.mark.parametrize(
    ("base", "services", "chosen"),
    [
        (BASE, ASKED, Strategy.ROLL_FORWARD),
        (None, ASKED, Strategy.REWIND),
        (BASE.model_copy(update={"handle": None}), ASKED, Strategy.REWIND),
        (BASE, {}, Strategy.REWIND),
    ],
)
def test_auto_rolls_forward_where_the_driver_can_say(
    base: BaseStatus | None, services: dict[str, MetadataService], chosen: Strategy
) -> None:
    plan = image(Strategy.AUTO, base, metadata_services=services)
    assert (plan.status.volumes or [])[0].strategy is chosen


def test_the_choice_stays() -> None:
    root = ROOT1.model_copy(update={"strategy": Strategy.ROLL_FORWARD})
    plan = decide(seen(root, DATA_DONE, twin_claims={}, twins={}, twin_contents={}), at(10), SETTINGS)
    assert kinds(plan) == [MakeTwin]


def test_an_image_that_is_not_rewound_is_done_when_it_is_copied() -> None:
    done = CopyStatus(state=StepState.DONE, snapshot_id="s9")
    root = ROOT1.model_copy(update={"strategy": Strategy.DIRECT, "copy_": done})
    plan = decide(seen(root, DATA_DONE, manifests={child(UID, "manifests"): object()}), at(10), SETTINGS)
    assert the(plan, RunMover).snapshots == ("s9", "s1")
    assert condition(plan, "Reconciled") == ("True", "CopiedFromT1")


def finished(**result: Any) -> Plan:
    """The rewind's mover has said this."""
    said = {"snapshot": "s3", "change_source": "Compare", "bytes_read": 4 << 20, "seconds": 2.0, **result}
    root = ROOT_COPIED.model_copy(
        update={
            "reconcile": ROOT_DONE.reconcile
            and ROOT_DONE.reconcile.model_copy(update={"state": StepState.RUNNING, "snapshot_id": None})
        }
    )
    jobs = mover("retime", "root", succeeded=True, pods=(pod(phase="Succeeded", result=said),))
    return decide(seen(root, DATA_DONE, jobs=jobs), at(10), SETTINGS)


def test_the_result_says_how_and_how_fast() -> None:
    plan = finished(change_source="CSIThroughExtents", bytes_reported=8192, bytes_changed=1 << 20, retries=3)
    step = (plan.status.volumes or [])[0].reconcile
    assert step is not None
    assert (step.change_source, step.bytes_reported, step.fallback) == ("CSIThroughExtents", 8192, None)
    assert (step.bytes_read, step.bytes_per_second, step.bytes_rewound) == (4 << 20, 2 << 20, 1 << 20)
    assert step.retries == 3
    assert plan.notes == ()


def test_a_driver_that_lied_is_a_warning() -> None:
    plan = finished(fallback={"reason": "SampleContradicts", "message": "it left out blocks"})
    step = (plan.status.volumes or [])[0].reconcile
    assert step is not None and step.fallback is not None
    assert step.fallback.reason == "SampleContradicts"
    [note] = plan.notes
    assert (note.type, note.reason) == ("Warning", "SampleContradicts")
    assert "driver one" in note.message and "volume root" in note.message


def test_every_doubt_is_explained() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "changed-blocks.md").read_text()
    assert [doubt for doubt in Doubt if f"| `{doubt}` |" not in page] == []
