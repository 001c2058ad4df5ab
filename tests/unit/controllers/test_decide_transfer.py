"""What decide does between the snapshots and the commit."""

from dataclasses import replace

from coeval.api.v1alpha1.vmbackup import (
    Phase,
    StepState,
)
from coeval.controllers.vmbackup.decide import decide
from coeval.controllers.vmbackup.plan import (
    Delete,
    MakeClaim,
    MakeTwin,
    RunMover,
    TakeSnapshot,
    Thing,
    Verb,
)
from coeval.controllers.vmbackup.world import TwinClaim
from coeval.domain.naming import child
from coeval.domain.storage import Content, Snapshot

from tests.unit.controllers.worlds import (
    CLAIMS,
    DATA,
    DATA1,
    DATA_DONE,
    NOW,
    READY,
    ROOT1,
    ROOT2,
    ROOT_COPIED,
    ROOT_DONE,
    SETTINGS,
    TWIN,
    UID,
    at,
    condition,
    kinds,
    known,
    mover,
    pod,
    the,
    transferring,
    twin,
    world,
)


def test_the_direct_volume_goes_first() -> None:
    plan = decide(world(transferring(ROOT1, DATA1), snapshots=READY), at(10), SETTINGS)
    assert kinds(plan) == [MakeTwin]
    assert the(plan, MakeTwin).volume.name == "data"
    assert plan.status.phase is Phase.COPYING


def test_a_twin_that_is_not_ready_is_waited_for() -> None:
    plan = decide(world(transferring(ROOT1, DATA1), snapshots=READY, **twin(False)), at(10), SETTINGS)
    assert plan.actions == ()
    late = decide(world(transferring(ROOT1, DATA1), snapshots=READY, **twin(False)), at(301), SETTINGS)
    assert late.status.outcome is not None
    assert late.status.outcome.reason == "TwinNotReady"


def test_claim_and_job_come_with_the_twin_and_the_copy_is_on_record_before() -> None:
    plan = decide(world(transferring(ROOT1, DATA1), snapshots=READY, **twin()), at(10), SETTINGS)
    assert kinds(plan) == [MakeClaim, RunMover]
    run = the(plan, RunMover)
    assert (run.verb, run.interim, run.as_of) == (Verb.COPY, False, NOW)
    data = next(v for v in plan.status.volumes or () if v.name == "data")
    assert data.copy_ is not None
    assert data.copy_.state is StepState.RUNNING


def test_a_content_that_is_bound_to_a_deleted_twin_is_removed() -> None:
    stale = twin() | {"twins": {}}
    plan = decide(world(transferring(ROOT1, DATA1), snapshots=READY, **stale), at(10), SETTINGS)
    assert the(plan, Delete) == Delete(Thing.CONTENT, TWIN, "cu", None)


def test_an_original_that_is_gone_before_it_was_read_fails_the_backup() -> None:
    plan = decide(world(transferring(ROOT1, DATA1), snapshots={}, **twin()), at(10), SETTINGS)
    assert plan.status.outcome is not None
    assert plan.status.outcome.reason == "SnapshotLost"


def test_a_claim_that_is_bound_needs_the_original_no_more() -> None:
    claims = {TWIN: TwinClaim(TWIN, "pu", NOW, bound=True)}
    seen = world(transferring(ROOT1, DATA1), snapshots={}, twin_claims=claims, **twin())
    assert kinds(decide(seen, at(10), SETTINGS)) == [RunMover]


def test_the_second_snapshot_waits_for_the_direct_copies() -> None:
    plan = decide(world(transferring(ROOT1, DATA_DONE), snapshots=READY), at(10), SETTINGS)
    take = the(plan, TakeSnapshot)
    assert (take.volume, take.moment) == ("root", "t2")


def test_the_second_snapshot_is_of_the_same_volume_or_of_none() -> None:
    moved = CLAIMS | {"db-root": replace(CLAIMS["db-root"], volume="pv-other")}
    plan = decide(world(transferring(ROOT1, DATA_DONE), snapshots=READY, claims=moved), at(10), SETTINGS)
    assert plan.status.outcome is not None
    assert plan.status.outcome.reason == "VolumeReplaced"


def test_the_copy_of_an_image_is_interim_and_rewound_from_the_first_snapshot() -> None:
    t2 = child(UID, "t2-twin", "root")
    later = {
        "twins": {t2: Snapshot(t2, "tu", NOW, ready=True)},
        "twin_contents": {t2: Content(t2, "cu", NOW)},
    }
    originals = READY | {n: Snapshot(n, f"uid-{n}", NOW, ready=True) for n in [child(UID, "t2", "root")]}
    copy = decide(world(transferring(ROOT2, DATA_DONE), snapshots=originals, **later), at(10), SETTINGS)
    assert the(copy, RunMover).interim
    t1 = child(UID, "t1-twin", "root")
    first = {
        "twins": {t1: Snapshot(t1, "tu", NOW, ready=True)},
        "twin_contents": {t1: Content(t1, "cu", NOW)},
    }
    seen = world(transferring(ROOT_COPIED, DATA_DONE), snapshots=originals, **first)
    rewind = decide(seen, at(10), SETTINGS)
    run = the(rewind, RunMover)
    assert (run.verb, run.interim, run.as_of, run.snapshots) == (Verb.RETIME, False, NOW, ("s2",))
    assert rewind.status.phase is Phase.RECONCILING


def test_only_what_is_as_of_t1_is_committed() -> None:
    manifests = child(UID, "manifests")
    seen = world(transferring(ROOT_DONE, DATA_DONE), manifests={manifests: object()})
    plan = decide(seen, at(10), SETTINGS)
    run = the(plan, RunMover)
    assert (run.verb, run.snapshots) == (Verb.COMMIT, ("s3", "s1"))
    assert condition(plan, "Reconciled") == ("True", "Rewound")
    assert plan.status.phase is Phase.COMMITTING


def test_progress_is_told_and_the_time_left_only_anew_with_new_numbers() -> None:
    line = {"bytesDone": 10, "bytesTotal": 100, "bytesPerSecond": 5, "etaSeconds": 18}
    jobs = mover("copy", "data", pods=(pod(phase="Running", progress=line),))
    plan = decide(world(transferring(ROOT1, DATA1), snapshots=READY, jobs=jobs), at(10), SETTINGS)
    copy = (plan.status.volumes or [])[1].copy_
    assert copy is not None
    assert (copy.bytes_done, copy.bytes_total, copy.bytes_per_second, copy.eta) == (10, 100, 5, at(28))
    assert plan.status.progress is not None
    assert plan.status.progress.bytes_done == 10
    again = decide(world(plan.status, snapshots=READY, jobs=jobs), at(13), SETTINGS)
    assert again.status == plan.status
    assert again.requeue == SETTINGS.work_poll


def test_nonsense_in_a_log_is_no_progress() -> None:
    line = {"bytesDone": "many", "bytesTotal": -1, "bytesPerSecond": True, "etaSeconds": None}
    jobs = mover("copy", "data", pods=(pod(phase="Running", progress=line),))
    plan = decide(world(transferring(ROOT1, DATA1), snapshots=READY, jobs=jobs), at(10), SETTINGS)
    copy = (plan.status.volumes or [])[1].copy_
    assert copy is not None
    assert (copy.bytes_done, copy.bytes_total, copy.bytes_per_second, copy.eta) == (None, None, None, None)


def test_no_more_movers_at_once_than_set() -> None:
    volumes = [DATA1.model_copy(update={"name": f"d{i}", "t1": known(DATA)}) for i in range(6)]
    status = transferring().model_copy(update={"volumes": volumes})
    originals = {known(DATA).snapshot or "": Snapshot("x", known(DATA).uid or "", NOW)}
    assert len(decide(world(status, snapshots=originals), at(10), SETTINGS).actions) == 4
    busy = mover("copy", "d0") | mover("copy", "d1")
    seen = world(status, snapshots=originals, jobs=busy)
    assert len(decide(seen, at(10), SETTINGS).actions) == 2


def test_a_result_without_a_snapshot_is_not_trusted() -> None:
    done = mover("copy", "data", succeeded=True, pods=(pod(phase="Succeeded", result={"seconds": 1}),))
    plan = decide(world(transferring(ROOT1, DATA1), snapshots=READY, jobs=done), at(10), SETTINGS)
    assert plan.status.outcome is not None
    assert plan.status.outcome.reason == "MoverResultInvalid"
